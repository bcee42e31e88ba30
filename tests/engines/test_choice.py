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


def taken(row: torch.Tensor) -> tuple[int, float]:
    """The token that vLLM takes from a row, and the log-probability that it reports."""
    return int(row.argmax()), float(row.max())


def penalised_choice(row: torch.Tensor, seen: list[int], penalty: float) -> int:
    return int(row.index_copy(0, torch.tensor(seen), penalised(row[seen], penalty)).argmax())


def test_rows_are_log_probabilities_and_the_greatest_of_a_row_is_its_choice() -> None:
    before = logits()
    expected = before.log_softmax(dim=1)
    best = int(before[2].argmax())
    choice = choosing(
        (0, SamplingParams(temperature=0.0), [1], []),
        (1, asked(temperature=1.0), [1], []),
        (2, asked(repetition_penalty=50.0), [best, best], [5]),
    )
    after = choice.apply(before.clone())
    assert torch.equal(after[[0, 3]], expected[[0, 3]])
    token, logprob = taken(after[1])
    assert logprob == expected[1, token]
    other = penalised_choice(before[2], sorted({best, 5}), 50.0)
    assert other != best
    assert taken(after[2]) == (other, expected[2, other])
    assert not choice.is_argmax_invariant()


@pytest.mark.parametrize("penalty", [0.3, 0.9, 1.05, 1.1, 3.0])
def test_a_penalised_choice_is_the_greatest_whatever_was_seen(penalty: float) -> None:
    """Also where the penalty raises what was seen, and where what it lowers is the greatest by far."""
    for number in range(50):
        before = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(number)) * 5
        seen = [number % VOCABULARY, int(before.argmax())]
        token = penalised_choice(before[0], sorted(set(seen)), penalty)
        after = choosing((0, asked(repetition_penalty=penalty), seen, [])).apply(before.clone())
        assert taken(after[0]) == (token, before.log_softmax(dim=1)[0, token])


def test_rows_move_with_their_requests() -> None:
    before = logits()
    choice = choosing((0, asked(repetition_penalty=2.0), [1], []), (1, asked(repetition_penalty=2.0), [2], []))
    moved = (1, 3, MoveDirectionality.UNIDIRECTIONAL)
    choice.update_state(BatchUpdate(batch_size=2, removed=[0], added=[], moved=[moved]))
    after, expected = choice.apply(before.clone()), before.log_softmax(dim=1)
    assert torch.equal(after[:3], expected[:3])
    token = penalised_choice(before[3], [2], 2.0)
    assert taken(after[3]) == (token, expected[3, token])


def test_the_answer_so_far_is_penalised_as_it_grows() -> None:
    answer: list[int] = []
    choice = choosing((0, asked(repetition_penalty=50.0), [], answer))
    row = logits(1)[0]
    best = int(row.argmax())
    assert choice.apply(row[None].clone())[0].argmax() == best
    answer.append(best)
    assert choice.apply(row[None].clone())[0].argmax() == penalised_choice(row, [best], 50.0) != best


def test_a_row_that_is_not_a_number_stays_one() -> None:
    """The log-probability that vLLM reports says so, and the engine is refused."""
    row = torch.full((1, VOCABULARY), torch.nan)
    for parameters in (asked(temperature=1.0), asked(repetition_penalty=1.5), SamplingParams(temperature=0.0)):
        assert choosing((0, parameters, [1], [])).apply(row.clone()).isnan().any()


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
