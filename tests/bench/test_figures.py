"""Rates and ratios from figures that are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koen_batch.bench.figures import ENGINE, NAIVE, PIPELINE, Pass, Spread, segment_ratio, work_ratio


def measured(way: str, number: int, seconds: float, tokens: int, *, segments: int = 100, unique: int = 100) -> Pass:
    return Pass(way, number, seconds, segments, unique, tokens, prompt_tokens=1000)


def test_a_ratio_is_of_tokens_a_second_within_a_round() -> None:
    passes = [
        measured(ENGINE, 0, 10, 1000),  # 100 tokens/s
        measured(PIPELINE, 0, 15, 1200),  # 80
        measured(PIPELINE, 1, 5, 1000),  # 200: the machine was faster in this round
        measured(ENGINE, 1, 5, 1000),  # 200
        measured(ENGINE, 2, 20, 1000),  # 50
        measured(PIPELINE, 2, 20, 900),  # 45
    ]
    assert work_ratio(passes, PIPELINE, ENGINE) == Spread(median=0.9, min=0.8, max=1.0)
    assert segment_ratio(passes, PIPELINE, ENGINE) == Spread(median=1.0, min=(100 / 15) / 10, max=1.0)


def test_repeated_segments_count_each_time_they_are_used() -> None:
    passes = [
        measured(ENGINE, 0, 20, 2000),
        measured(PIPELINE, 0, 10, 1000, segments=100, unique=50),
    ]
    assert work_ratio(passes, PIPELINE, ENGINE) == Spread(2, 2, 2)
    assert segment_ratio(passes, PIPELINE, ENGINE) == Spread(2, 2, 2)


def test_there_is_no_ratio_to_what_did_not_run() -> None:
    assert work_ratio([measured(ENGINE, 0, 1, 1), measured(PIPELINE, 0, 1, 1)], PIPELINE, NAIVE) is None


@given(st.lists(st.floats(min_value=0.01, max_value=100), min_size=1), st.randoms())
def test_the_spread_does_not_depend_on_the_order(values: list[float], random: object) -> None:
    spread = Spread.of(values)
    assert spread.min <= spread.median <= spread.max
    assert {spread.min, spread.max} <= set(values)
    random.shuffle(values)  # type: ignore[attr-defined]
    assert Spread.of(values) == spread


def test_a_pass_knows_its_rates() -> None:
    one = measured(PIPELINE, 0, 4, 400, segments=100, unique=25)
    assert (one.segments_per_second, one.tokens_per_second, one.used_tokens_per_second) == pytest.approx((25, 100, 400))
