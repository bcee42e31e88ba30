"""What each row of a Hugging Face batch needs for itself: its penalty, its random numbers, its end, its logprob.

``generate`` knows one setting for a whole batch. Here requests of any settings share one, a row's answer does not
depend on its neighbours, and no step's scores are kept once their token is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from koen_batch.engines.base import Completion, Decoding
from koen_batch.engines.vllm import LOOP_COUNT, LOOP_PATTERNS, NOT_A_NUMBER


class Rows:
    """State of one call of ``generate``: ``choose`` is its logits processor, ``watch`` its stopping criterion.

    Args:
        decodings: one for each row.
        budgets: new tokens that each row may take.
        end: token ids that end any row.
        prompt: ids with which the generated sequence begins, [rows, length].
        mask: 1 where ``prompt`` is not padding, [rows, length].
    """

    def __init__(
        self,
        decodings: Sequence[Decoding],
        budgets: Sequence[int],
        end: Sequence[int],
        prompt: torch.Tensor,
        mask: torch.Tensor,
    ) -> None:
        device = prompt.device
        self._decodings = decodings
        self._budgets = torch.tensor(budgets, device=device)
        self._end = _padded([sorted({*decoding.stop_token_ids, *end}) or [-1] for decoding in decodings], device)
        self._penalty = torch.tensor([[decoding.repetition_penalty] for decoding in decodings], device=device)
        self._penalised = any(decoding.repetition_penalty != 1.0 for decoding in decodings)
        self._sampled = [row for row, decoding in enumerate(decodings) if decoding.temperature > 0]
        self._prompt, self._mask = prompt, mask
        self._seen: torch.Tensor | None = None
        self._logits: torch.Tensor | None = None
        self._tokens: list[torch.Tensor] = []
        self._sums = torch.zeros(len(decodings), device=device)
        self._lengths = torch.zeros(len(decodings), dtype=torch.long, device=device)
        self._reasons = torch.zeros(len(decodings), dtype=torch.long, device=device)

    def choose(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores from which the greatest is taken: the model's own, or with a row's penalty or random numbers.

        Args:
            ids: tokens so far, [rows, length].
            scores: logits of the next token, [rows, vocabulary], float32.
        """
        self._logits = scores
        if self._penalised:
            scores = self._penalise(ids, scores)
        if self._sampled:
            scores = scores.clone() if scores is self._logits else scores
            for row in self._sampled:
                own, decoding = scores[row].cpu().numpy(), self._decodings[row]
                near = candidates(own, decoding.temperature)
                drawn = near[draw(own[near], decoding, len(self._tokens))]
                scores[row] = -torch.inf
                scores[row, drawn] = 0.0
        return scores

    def watch(self, ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """Note the token just chosen; say which rows are done, [rows], bool."""
        assert self._logits is not None
        chosen = ids[:, -1]
        logprob = self._logits.gather(1, chosen[:, None])[:, 0] - self._logits.logsumexp(dim=1)
        self._logits = None
        self._tokens.append(chosen)
        step = len(self._tokens)
        running = self._reasons == 0
        self._sums += torch.where(running, logprob, 0.0)
        self._lengths += running
        stopped = (self._end == chosen[:, None]).any(dim=1)
        for reason, done in ((_STOP, stopped), (_LENGTH, self._budgets <= step), (_REPETITION, self._loops())):
            self._reasons = torch.where((self._reasons == 0) & done, reason, self._reasons)
        return self._reasons != 0

    def completions(self, identities: Sequence[int]) -> list[Completion]:
        """The answers of all rows, once ``generate`` is through; ``identities`` are their requests' ids.

        Raises:
            RuntimeError: a row's log-probabilities are not numbers.
        """
        rows = torch.stack(self._tokens, dim=1).tolist()
        facts = zip(identities, rows, self._lengths.tolist(), self._reasons.tolist(), self._sums.tolist(), strict=True)
        answers = []
        for identity, row, length, reason, total in facts:
            if math.isnan(total):
                raise RuntimeError(NOT_A_NUMBER)
            tokens = row[: length - 1 if reason == _STOP else length]
            answers.append(Completion(identity, tokens, _REASONS[reason], total / length))
        return answers

    def _penalise(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The repetition penalty over prompt and answer, padding left out."""
        if self._seen is None:
            counts = torch.zeros(scores.shape, dtype=self._mask.dtype, device=scores.device)
            self._seen = counts.scatter_add_(1, self._prompt, self._mask) > 0
        else:
            self._seen.scatter_(1, ids[:, -1:], True)
        return torch.where(self._seen, penalised(scores, self._penalty), scores)

    def _loops(self) -> torch.Tensor:
        """Which rows end in a pattern, as long as one of ``LOOP_PATTERNS``, that comes ``LOOP_COUNT`` times, [rows]."""
        tail = torch.stack(self._tokens[-LOOP_PATTERNS[-1] * LOOP_COUNT :], dim=1)
        found = torch.zeros(tail.shape[0], dtype=torch.bool, device=tail.device)
        for size in LOOP_PATTERNS:
            if size * LOOP_COUNT > len(self._tokens):
                break
            turns = tail[:, -size * LOOP_COUNT :].reshape(-1, LOOP_COUNT, size)
            found |= (turns == turns[:, :1]).flatten(1).all(dim=1)
        return found


def penalised(scores: torch.Tensor, penalty: float | torch.Tensor) -> torch.Tensor:
    """Scores of seen tokens under the repetition penalty of CTRL (Keskar et al. 2019, section 4.1)."""
    return torch.where(scores > 0, scores / penalty, scores * penalty)


NEGLIGIBLE = 25.0
"""Natural logarithm: tokens that are e^25 times less probable than the best are no candidates of a sample. All 262,144
of a large vocabulary together would have less than 4 in a million of its chances."""


def candidates(scores: np.ndarray[Any, Any], temperature: float) -> np.ndarray[Any, Any]:
    """The tokens that have a chance in a sample of ``scores``, [vocabulary], in ascending order; all of them where the
    scores are not numbers."""
    best = scores.max()
    if np.isnan(best):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= best - NEGLIGIBLE * temperature)


def draw(scores: np.ndarray[Any, Any], decoding: Decoding, place: int) -> int:
    """Which of the candidates, whose ``scores`` these are, a sample is: one in the nucleus of ``top_p``.

    Inverse transform sampling over the few tokens that have a chance: a third of the time that all of them take, and
    a tenth of what a random number for each takes (the Gumbel-max trick). The number follows from the seed and the
    token's ``place`` in its answer, so that neighbours do not matter and a step that is done twice gives the same.
    """
    chances = np.exp((scores - scores.max()) / decoding.temperature, dtype=np.float64)
    if decoding.top_p < 1:
        order = np.argsort(-scores, kind="stable")  # not by chance: unlike scores may round to one
        before = chances[order].cumsum() - chances[order]
        chances[order[before >= decoding.top_p * chances.sum()]] = 0.0
    reached = chances.cumsum()
    point = reached[-1] * np.random.default_rng((decoding.seed % 2**64, place)).random()
    return min(int(np.searchsorted(reached, point, side="right")), len(scores) - 1)


_STOP, _LENGTH, _REPETITION = 1, 2, 3
_REASONS = {_STOP: "stop", _LENGTH: "length", _REPETITION: "repetition"}


def _padded(rows: list[list[int]], device: torch.device) -> torch.Tensor:
    """Rows of unlike length as a tensor, each filled up with its first value."""
    width = max(map(len, rows))
    return torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device=device)
