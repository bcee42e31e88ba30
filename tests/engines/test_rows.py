"""A sample of one row: which tokens it may be, and what decides it."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from koen_batch.engines.base import Decoding
from koen_batch.engines.rows import candidates, draw

scores = arrays(np.float32, st.integers(1, 40), elements=st.floats(-80, 80, width=32))
shares = st.floats(0.01, 1.0)
temperatures = st.floats(0.1, 2.0)


def sample(row: np.ndarray, decoding: Decoding, place: int) -> int:
    near = candidates(row, decoding.temperature)
    return int(near[draw(row[near], decoding, place)])


@given(scores, temperatures, shares, st.integers(), st.integers(0, 1000))
@example(np.array([-1.1754944e-38, 0.0], dtype=np.float32), 1.0, 0.25, 0, 0)  # unlike scores, one chance
def test_a_sample_is_of_the_nucleus_and_follows_from_seed_and_place(
    row: np.ndarray, temperature: float, top_p: float, seed: int, place: int
) -> None:
    decoding = Decoding(8, temperature=temperature, top_p=top_p, seed=seed)
    before = row.copy()
    token = sample(row, decoding, place)
    assert token == sample(row, decoding, place)
    assert np.array_equal(row, before)
    chances = np.exp((row.astype(np.float64) - row.max()) / temperature)
    better = chances[row > row[token]].sum() / chances.sum()
    assert better <= top_p + 1e-6


def test_a_nucleus_holds_the_best_whose_chances_reach_its_share() -> None:
    row = np.log(np.array([0.05, 0.5, 0.15, 0.3], dtype=np.float32))
    drawn = {sample(row, Decoding(8, temperature=1.0, top_p=0.7), place) for place in range(300)}
    assert drawn == {1, 3}
    assert {sample(row, Decoding(8, temperature=1.0), place) for place in range(300)} == {0, 1, 2, 3}


def test_what_has_no_chance_is_never_drawn_and_nothing_is_lost_where_all_are_alike() -> None:
    row = np.full(1000, -1e9, dtype=np.float32)
    row[[7, 11]] = 0.0
    assert {sample(row, Decoding(8, temperature=1.0), place) for place in range(50)} == {7, 11}
    even = {sample(np.zeros(4, dtype=np.float32), Decoding(8, temperature=0.1), place) for place in range(100)}
    assert even == {0, 1, 2, 3}
