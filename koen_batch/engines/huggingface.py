"""Hugging Face ``generate``: the fallback wherever vLLM does not run or does not know the model, and the engine of
encoder-decoder models.

What is submitted gathers until the present window is done; a window is sorted by length and cut into batches of a
token budget. :mod:`koen_batch.engines.rows` holds what each row of a batch needs for itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koen_batch.engines.base import Completion, Request, cancelled
from koen_batch.engines.checkpoint import end_tokens
from koen_batch.models import read_config

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Padded tokens of a batch, prompts and answers together, before any out-of-memory error."""

WINDOW = {"cpu": 64, "cuda": 1024}
"""Requests among which rows of like length are sought."""


def context_length(config: dict[str, Any]) -> int | None:
    """Tokens of prompt and answer that a ``config.json`` allows, None where it sets no bound."""
    text = config.get("text_config") or config
    length = text.get("max_position_embeddings")
    return int(length) if length else None


def cost(request: Request) -> int:
    """Tokens that a row of this request takes at most."""
    return len(request.tokens) + request.decoding.max_new_tokens


def batches(window: list[Request], budget: int) -> list[list[Request]]:
    """Cut a window into batches of rows of like length, the longest first, so that want of memory shows at once.

    Rows times the longest row's cost stays within ``budget``; a row that alone is above it is a batch of its own.
    Requests with and without ``forced_first_token`` are not mixed: their decoders begin with a different length.
    """
    cut: list[list[Request]] = []
    for request in sorted(window, key=lambda r: (r.decoding.forced_first_token is None, -cost(r))):
        batch = cut[-1] if cut else []
        if (
            batch
            and (len(batch) + 1) * cost(batch[0]) <= budget
            and (batch[0].decoding.forced_first_token is None) == (request.decoding.forced_first_token is None)
        ):
            batch.append(request)
        else:
            cut.append([request])
    return cut


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a batch does not fit: torch's for accelerators, and what its CPU allocator says."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error) for phrase in ("not enough memory", "can't allocate memory", "out of memory")
    )


class HuggingFaceEngine:
    """A causal or encoder-decoder model in transformers (see :class:`koen_batch.engines.base.Engine`).

    Args:
        model: folder with ``config.json`` and safetensors.
        dtype: ``bfloat16``, ``float16``, ``float32``, or ``auto`` (what the checkpoint says).
        device: ``cpu``, ``cuda``, or ``auto`` (CUDA where it is).
        batch_tokens: padded tokens of a batch, prompt and answer; halved for good when memory runs out.
        window: requests among which rows of like length are sought; twice as many are wanted in flight.
        max_model_len: tokens of prompt and answer together; None takes the model's own.
        adapter: folder of a LoRA adapter, which is merged into the weights in memory.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int | None = None,
        window: int | None = None,
        max_model_len: int | None = None,
        adapter: str | None = None,
    ) -> None:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.setdefault(name, "1")
        config = read_config(Path(model))
        import torch
        import transformers

        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._encoder_decoder = bool(config.get("is_encoder_decoder"))
        library: Any = transformers  # its annotations are partial
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
        loader = library.AutoModelForSeq2SeqLM if self._encoder_decoder else library.AutoModelForCausalLM
        self._model = loader.from_pretrained(model, dtype=dtype if dtype == "auto" else getattr(torch, dtype))
        if adapter:
            from koen_batch.conversion import merged

            stored = self._model.dtype
            self._model = merged(self._model, Path(adapter)).to(stored)
        self._model.eval().to(self._device)
        loaded = self._model.generation_config
        self._start = loaded.decoder_start_token_id
        # NLLB's encoder knows padding by its token, whatever the mask says.
        self._padding = config.get("pad_token_id") or 0
        # A checkpoint's own sampling settings and bounds must not mix into a request's.
        self._model.generation_config = type(loaded)(decoder_start_token_id=self._start)
        self._end = end_tokens(Path(model), config)
        self._vocabulary = int(self._model.get_input_embeddings().weight.shape[0])
        own = context_length(config)
        self._longest = min(length for length in (max_model_len, own, 2**30) if length)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self._device]
        self.capacity = 2 * (window or WINDOW[self._device])
        self._waiting: list[Request] = []
        self._batches: deque[list[Request]] = deque()
        self._finished: list[Completion] = []

    def submit(self, request: Request) -> None:
        """Queue a request; one that the model cannot take fails alone."""
        if reason := self._refusal(request):
            self._finished.append(Completion(request.id, [], "error", error=reason))
        else:
            self._waiting.append(request)

    def cancel(self, ids: Sequence[int]) -> None:
        """Those that wait: whatever shares a batch is computed to its end."""
        self._finished += [cancelled(request.id) for request in self._waiting if request.id in ids]
        self._waiting = [request for request in self._waiting if request.id not in ids]
        for batch in self._batches:
            self._finished += [cancelled(request.id) for request in batch if request.id in ids]
            batch[:] = [request for request in batch if request.id not in ids]
        self._batches = deque(batch for batch in self._batches if batch)

    def poll(self) -> list[Completion]:
        finished, self._finished = self._finished, []
        while not finished:
            if not self._batches:
                self._batches.extend(batches(self._waiting, self.batch_tokens))
                self._waiting = []
            finished = self._run(self._batches.popleft())
        return finished

    def close(self) -> None:
        del self._model

    def _refusal(self, request: Request) -> str:
        if not request.tokens:
            return "the prompt is empty"
        if not 0 <= min(request.tokens) <= max(request.tokens) < self._vocabulary:
            return f"token {max(request.tokens)} is not in the model's vocabulary of {self._vocabulary}"
        if len(request.tokens) >= self._longest:
            return f"the prompt has {len(request.tokens)} tokens, the model takes {self._longest} with the answer"
        return ""

    def _run(self, batch: list[Request]) -> list[Completion]:
        """Translate a batch. Where memory runs out, its rows are queued again in smaller batches, and later windows
        are cut to the size that remains."""
        try:
            return self._generate(batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "out of memory"
        # Outside the handler: the traceback held the tensors that did not fit.
        self._free()
        if len(batch) == 1:
            return [Completion(batch[0].id, [], "error", error=f"alone does not fit into memory: {reason}")]
        self.batch_tokens = min(self.batch_tokens, len(batch) * max(map(cost, batch)) // 2)
        rows = [*batch, *(request for queued in self._batches for request in queued)]
        self._batches = deque(batches(rows, self.batch_tokens))
        return []

    def _free(self) -> None:
        import gc

        import torch

        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _generate(self, batch: list[Request]) -> list[Completion]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        from koen_batch.engines.rows import Rows

        inputs, budgets = self._inputs(batch)
        seen = inputs["input_ids"], inputs["attention_mask"]
        if self._encoder_decoder:
            seen = inputs["decoder_input_ids"], torch.ones_like(inputs["decoder_input_ids"])
        rows = Rows([request.decoding for request in batch], budgets, self._end, *seen)
        with torch.inference_mode():
            self._model.generate(
                **inputs,
                max_new_tokens=max(budgets),
                pad_token_id=self._padding,
                do_sample=False,
                logits_processor=LogitsProcessorList([rows.choose]),
                stopping_criteria=StoppingCriteriaList([rows.watch]),
            )
        return rows.completions([request.id for request in batch])

    def _inputs(self, batch: list[Request]) -> tuple[dict[str, Any], list[int]]:
        """Arguments of ``generate``: prompts padded on the left, [rows, length]; and the new tokens of each row."""
        import torch

        width = max(len(request.tokens) for request in batch)
        ids = torch.full((len(batch), width), self._padding)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(batch):
            ids[row, width - len(request.tokens) :] = torch.tensor(request.tokens)
            mask[row, width - len(request.tokens) :] = 1
        inputs = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        if self._encoder_decoder:
            heads = [[self._start, *self._forced(request)] for request in batch]
            inputs["decoder_input_ids"] = torch.tensor(heads, device=self._device)
        return inputs, [self._budget(request) for request in batch]

    def _budget(self, request: Request) -> int:
        """New tokens of a row: what it asks for, within what the model takes."""
        used = 1 + len(self._forced(request)) if self._encoder_decoder else len(request.tokens)
        return max(1, min(request.decoding.max_new_tokens, self._longest - used))

    def _forced(self, request: Request) -> list[int]:
        forced = request.decoding.forced_first_token
        return [] if forced is None else [forced]
