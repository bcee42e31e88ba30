"""What vLLM's CPU build is told to choose, row by row, without a model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from koen_batch.engines.base import Decoding
from koen_batch.engines.choice import OwnChoice, extra_args
from koen_batch.engines.rows import penalised

VOCABULARY = 6


def asked(**decoding: Any) -> SamplingParams:
    return SamplingParams(temperature=0.0, extra_args=extra_args(Decoding(8, **decoding)))


def choosing(*added: tuple[int, SamplingParams, list[int], list[int]]) -> OwnChoice:
    choice = OwnChoice(None, torch.device("cpu"), False)
    choice.update_state(BatchUpdate(batch_size=4, removed=[], added=list(added), moved=[]))
    return choice


def logits(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3))


def test_only_the_rows_that_ask_for_it_are_changed() -> None:
    before = logits()
    choice = choosing(
        (0, SamplingParams(temperature=0.0), [1], []),
        (1, asked(temperature=1.0), [1], []),
        (2, asked(repetition_penalty=1.5), [1, 1, 4], [5]),
    )
    after = choice.apply(before.clone())
    assert torch.equal(after[[0, 3]], before[[0, 3]])
    assert not torch.equal(after[1], before[1])
    assert torch.equal(after[2, [0, 2, 3]], before[2, [0, 2, 3]])
    assert torch.equal(after[2, [1, 4, 5]], penalised(before[2, [1, 4, 5]], 1.5))
    assert not choice.is_argmax_invariant()


def test_rows_move_with_their_requests() -> None:
    before = logits()
    choice = choosing((0, asked(repetition_penalty=2.0), [1], []), (1, asked(repetition_penalty=2.0), [2], []))
    moved = (1, 3, MoveDirectionality.UNIDIRECTIONAL)
    choice.update_state(BatchUpdate(batch_size=2, removed=[0], added=[], moved=[moved]))
    after = choice.apply(before.clone())
    assert torch.equal(after[:3], before[:3])
    assert torch.equal(after[3, 2], penalised(before[3, 2], 2.0))


def test_the_answer_so_far_is_penalised_as_it_grows() -> None:
    answer: list[int] = []
    choice = choosing((0, asked(repetition_penalty=2.0), [], answer))
    answer.append(4)
    before = logits()
    after = choice.apply(before.clone())
    assert torch.equal(after[0, 4], penalised(before[0, 4], 2.0))


def test_seed_and_place_decide_a_sample() -> None:
    def samples(seed: int, places: range) -> list[int]:
        rows = [choosing((0, asked(temperature=2.0, seed=seed), [1], [0] * place)).apply(logits(1)) for place in places]
        return [int(row[0].argmax()) for row in rows]

    assert samples(1, range(20)) == samples(1, range(20))
    assert samples(1, range(20)) != samples(2, range(20))
    assert len(set(samples(1, range(20)))) > 1


def test_samples_follow_the_distribution_at_their_temperature() -> None:
    """5,000 samples: each token's share is within five standard errors of its probability."""
    row, count = logits(1), 5_000
    answer: list[int] = []
    choice = choosing((0, asked(temperature=0.7), [1], answer))
    chosen = torch.zeros(VOCABULARY)
    for _ in range(count):
        chosen[choice.apply(row.clone())[0].argmax()] += 1
        answer.append(0)
    expected = (row[0] / 0.7).softmax(0)
    error = (expected * (1 - expected) / count).sqrt()
    assert ((chosen / count - expected).abs() < 5 * error).all()
