"""`python -m train merge`: an adapter into its base model, as a folder that every engine and the evaluator take."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from koen_batch import models
from koen_batch.adapters import folder_of, origin
from koen_batch.conversion import merged
from koen_batch.errors import UsageError
from train.saving import commit, finish


def merge(source: Path, output: Path, base: str | None = None, dtype: str | None = None) -> Path:
    """Merge the adapter in ``source`` (a run, its ``final``, a checkpoint, or any adapter) and return ``output``.

    The sum is made in float32 and stored as ``dtype``, by default the base's own. ``base`` is what ``--model`` takes;
    by default what the run was trained from. Raises UsageError where there is nothing to merge, or the base is
    unknown or another one than in training.
    """
    adapter = folder_of(source)
    if output.exists():
        raise UsageError(f"{output} is there already: choose another -o, or remove it")
    told = origin(adapter)
    model = models.resolve(base or _base(adapter, told), family=told.get("family"))
    trained_on = told.get("revision")
    if trained_on and not base and model.revision != trained_on:
        raise UsageError(f"{adapter}: trained on {model.name} {trained_on}, and here is {model.revision}: name --base")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.merging")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        _merge(model.folder, adapter, scratch, dtype or model.dtype)
        finish(scratch, model, adapter)
        commit(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _base(adapter: Path, told: dict[str, Any]) -> str:
    if told.get("base"):
        return str(told["base"])
    beside = adapter.parent / "base"
    if "base" in told and beside.is_dir():
        return str(beside)
    raise UsageError(f"{adapter}: it does not say which model it was trained on: name it with --base")


def _merge(base: Path, adapter: Path, target: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged(model, adapter).to(getattr(torch, dtype)).save_pretrained(target)
