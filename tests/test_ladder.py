"""The ladder: each step changes something, and the last one for a lost item cannot lose it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koen_batch import checks, ladder

LONG = "The first sentence is here. The second one follows it, and it is longer."


def climb(flags: set[str], source: str) -> list[str]:
    """The names of the steps that are taken if every attempt fails in the same way."""
    tried = ["greedy"]
    while step := ladder.next_step(flags, tried, source):
        tried.append(step.name)
    return tried[1:]


def test_every_step_after_the_first_changes_something() -> None:
    first, *others = ladder.LADDER
    assert first == ladder.Step(first.name)
    asked = [replace(step, name="") for step in ladder.LADDER]
    assert len(set(asked)) == len(asked)
    assert all(replace(step, name=first.name) != first for step in others)


def test_sampling_has_a_fixed_seed_of_its_own() -> None:
    assert all(step.seed > 0 for step in ladder.LADDER if step.temperature > 0)


@pytest.mark.parametrize("flag", checks.FLAGS)
def test_each_flag_is_retried_at_most_three_times_and_never_the_same_way(flag: str) -> None:
    for source in (LONG, LONG + " {name}", "short"):
        steps = climb({flag}, source)
        assert 1 <= len(steps) <= ladder.MOST_RETRIES
        assert len(set(steps)) == len(steps)


def test_what_cannot_be_split_is_not() -> None:
    assert "split" not in climb({"truncated"}, "Nothing to split")
    assert "split" not in climb({"truncated"}, "One sentence of many words that goes on and on and has no inner break.")


def test_a_loop_is_met_with_a_penalty_and_then_with_sampling() -> None:
    assert climb({"repetition"}, LONG)[:2] == ["penalty", "sample"]


@pytest.mark.parametrize("flag", ["truncated", "length_ratio", "lost_number"])
def test_what_lacks_something_is_split_first_and_sampled_last(flag: str) -> None:
    assert climb({flag}, LONG) == ["split", "penalty", "sample"]
    assert climb({flag}, "short") == ["penalty", "sample"]


def test_a_lost_item_is_kept_by_construction_in_the_last_step() -> None:
    assert climb({"lost_placeholder"}, "Hello, {name}, welcome.")[-1] == "around"
    assert climb({"lost_placeholder", "copied", "lost_number"}, "Hello, {name}, welcome to 3.")[-1] == "around"
    assert "around" not in climb({"lost_placeholder"}, "Hello, no item here.")


def test_nothing_is_retried_without_a_flag() -> None:
    assert ladder.next_step(set(), ["greedy"], LONG) is None


def test_the_worst_flag_decides() -> None:
    assert ladder.next_step({"lost_number", "truncated"}, ["greedy"], LONG) == ladder.next_step(
        {"truncated"}, ["greedy"], LONG
    )


def test_the_best_attempt_has_the_least_severe_flags_and_then_the_most_confidence() -> None:
    def score(flags: tuple[str, ...], confidence: float | None = -1.0) -> tuple[float, ...]:
        return ladder.score("Hello.", "안녕.", flags, confidence)

    assert score(("lost_number",)) > score(("copied",)) > score(("empty",))
    assert score(("lost_number",)) > score(("lost_number", "chatter"))
    assert score(("copied",), -0.2) > score(("copied",), -0.9) > score(("copied",), None)
    assert ladder.score("Hello.", "안녕하세요", ("copied",), None) > ladder.score(
        "Hello.", "안" * 50, ("copied",), None
    )
