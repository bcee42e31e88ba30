"""How vLLM's CPU build chooses the next token, and how probable it was.

vLLM's own sampler works on the whole batch as soon as one of its rows is sampled or penalised: several passes over
rows times vocabulary, and a random number for each of them. With 64 rows of 262,144 tokens one sampled row took a step
from 287 to 426 ms of processor time. (It also turns a row's random numbers back when its prompt is cut over two steps,
which torch's generator for CPUs cannot: the engine dies. ``GPUModelRunner._bookkeeping_sync``, vLLM 0.32.)

Here every request is greedy for vLLM. The row of one that is not is decided here, and its choice alone is left in it.

Nor does vLLM compute log-probabilities here: it would make a second copy of all logits for them, 69 ms for 128 rows
where 30 are enough. The logits become log-probabilities in place, and vLLM is told to report what it chooses from
(``processed_logits``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import LogitsProcessor

from koen_batch.engines.base import Decoding
from koen_batch.engines.rows import candidates, draw, penalised

if TYPE_CHECKING:
    from vllm import SamplingParams

_KEY = "koen_batch_decoding"


def extra_args(decoding: Decoding) -> dict[str, Any]:
    """``SamplingParams.extra_args`` that have :class:`OwnChoice` decode a request so."""
    names = ("temperature", "top_p", "seed", "repetition_penalty")
    return {_KEY: {name: getattr(decoding, name) for name in names}}


@dataclass
class _Row:
    """A request that is not plainly greedy. ``answer`` is vLLM's own list, which grows."""

    decoding: Decoding
    prompt: list[int]
    answer: list[int]

    def choose(self, scores: np.ndarray[Any, Any]) -> tuple[int, np.ndarray[Any, Any] | slice]:
        """The request's next token, from the model's logits, [vocabulary], which are as before in the end; and the
        tokens among which those are that the model may find more probable.

        One row at a time is too little work to share out among threads, and a call of torch for a few dozen numbers
        takes ten times NumPy's time.
        """
        seen = np.array([*{*self.prompt, *self.answer}], dtype=np.int64)
        own = scores[seen]
        scores[seen] = penalised(torch.from_numpy(own), self.decoding.repetition_penalty).numpy()
        near: Any
        if self.decoding.temperature > 0:
            near = candidates(scores, self.decoding.temperature)
            token = near[draw(scores[near], self.decoding, len(self.answer))]
        else:
            near = token = scores.argmax()
        scores[seen] = own
        # What a penalty below 1 has raised may have overtaken any token.
        return int(token), slice(None) if self.decoding.repetition_penalty < 1 else np.append(seen, near)


class OwnChoice(LogitsProcessor):
    """What vLLM calls with the logits of every step."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(self._rows, batch_update, _row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probabilities, [rows, vocabulary], whose greatest is each row's choice; ``logits`` are overwritten."""
        rows = logits.numpy()  # the same memory
        chosen = {index: row.choose(rows[index]) for index, row in self._rows.items()}
        torch.log_softmax(logits, dim=-1, out=logits)
        for index, (token, rivals) in chosen.items():
            logprob = rows[index, token]
            rows[index, rivals] = -np.inf
            rows[index, token] = logprob
        return logits


def _row(parameters: SamplingParams, prompt: list[int] | None, answer: list[int]) -> _Row | None:
    own = (parameters.extra_args or {}).get(_KEY)
    return _Row(Decoding(max_new_tokens=0, **own), prompt or [], answer) if own else None
