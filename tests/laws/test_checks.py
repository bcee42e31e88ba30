"""What holds for the checks whatever the texts are."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from koen_batch import checks, ladder, numerals
from koen_batch.languages import Direction

DIRECTIONS = st.sampled_from([Direction.to("ko"), Direction.to("en")])
FINISHED = st.sampled_from(["stop", "length", "repetition", "error"])
AWKWARD = st.sampled_from(
    (
        *(
            "ha ",
            "하하",
            "한",
            "the ",
            "서울 ",
            "\n",
            "\n\n",
            "(",
            ")",
            "1/2",
            "3억 ",
            "12,000",
            "0",
            "1" * 400,
            "p.m.",
        ),
        *("{x}", "`", "<b>", "번역:", "Translation: ", "<think>", "字", "…", ".", "!", "١", "②", "\u0000", "\ud7b0"),
    )
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(AWKWARD, max_size=30).map("".join))


@given(TEXTS, TEXTS, FINISHED, DIRECTIONS)
def test_flags_are_sorted_known_and_never_empty_without_a_stop(
    source: str, hypothesis: str, finish_reason: str, direction: Direction
) -> None:
    flags = checks.check(source, hypothesis, finish_reason, direction)
    assert list(flags) == sorted(set(flags))
    assert set(flags) <= set(checks.FLAGS)
    assert flags or finish_reason == "stop"


@given(TEXTS)
def test_no_number_is_lost_from_a_text_to_itself(text: str) -> None:
    assert numerals.lost(text, text) == []


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8), st.randoms())
def test_numbers_may_stand_in_any_order(numbers: list[int], rng: Random) -> None:
    shuffled = rng.sample(numbers, len(numbers))
    assert numerals.lost(" and ".join(map(str, numbers)), " 그리고 ".join(map(str, shuffled))) == []


@given(TEXTS, DIRECTIONS)
def test_a_text_is_of_one_of_three_kinds(text: str, direction: Direction) -> None:
    assert checks.classify(text, direction) in ("translate", "nothing_to_translate", "already_target")


@given(TEXTS, st.sets(st.sampled_from(checks.FLAGS)))
def test_the_ladder_ends(source: str, flags: set[str]) -> None:
    tried = [ladder.LADDER[0].name]
    while step := ladder.next_step(flags, tried, source):
        assert step.name not in tried
        tried.append(step.name)
    assert len(tried) <= ladder.MOST_RETRIES + 1
