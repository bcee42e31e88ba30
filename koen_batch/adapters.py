"""LoRA adapters that are given beside their model (``--adapter FOLDER``) instead of being merged into it first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koen_batch.conversion import content_id
from koen_batch.errors import UsageError

if TYPE_CHECKING:
    from koen_batch.models import Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on this machine."""

    name: str
    folder: Path
    """Holds ``adapter_config.json`` and ``adapter_model.safetensors``."""
    id: str
    """12 hex digits of its content."""
    rank: int
    """The greatest of its layers."""
    parameters: int
    family: str
    """That it was trained to be asked as; empty where it does not say."""
    revision: str
    """Of the model that it was trained on; empty where it does not say."""
    not_in_vllm: str
    """What of it vLLM does not know; empty where there is nothing."""


def folder_of(given: Path) -> Path:
    """The folder that holds the adapter: of a training run its ``final``, else ``given`` itself.

    Raises UsageError, in one line, where there is none.
    """
    folder = given / "final" if (given / "final").is_dir() else given
    if not (folder / CONFIG).is_file():
        whole = " (its weights are whole: use it as --model as it is)" if (folder / "config.json").is_file() else ""
        raise UsageError(f"{folder}: no adapter in it{whole}" if folder.is_dir() else f"{folder}: no such folder")
    return folder


def name_of(given: Path) -> str:
    """What an adapter is called: as its folder, or as the training run that ``final`` is the result of."""
    path = given.expanduser().resolve()
    return path.parent.name if path.name == "final" else path.name


def origin(folder: Path) -> dict[str, Any]:
    """What ``train`` has written of ``base``, ``revision`` and ``family``: for a run's ``final``, or a checkpoint of
    it; {} for an adapter from elsewhere."""
    if (folder / "training.json").is_file():
        found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        return found
    run = folder.parent / "run.json"
    if not run.is_file():
        return {}
    fingerprint = json.loads(run.read_text(encoding="utf-8"))["fingerprint"]
    recipe = fingerprint["recipe"]
    return {"base": recipe["model"], "revision": fingerprint["model"], "family": recipe["family"]}


def read(given: Path) -> Adapter:
    """The adapter in a folder, a training run or a checkpoint of one.

    Raises UsageError, in one line, where there is none, or another kind than LoRA.
    """
    from koen_batch.models import tensors

    folder = folder_of(given.expanduser())
    config = _config(folder)
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder}: no {WEIGHTS} in it")
    shapes = {name: described["shape"] for name, described in tensors(folder / WEIGHTS).items()}
    ranks = [shape[0] for name, shape in shapes.items() if "lora_A" in name]
    if not ranks:
        raise UsageError(f"{folder}: no LoRA weights in its {WEIGHTS}")
    told = origin(folder)
    digest = hashlib.sha256("".join(content_id(folder / name) for name in (CONFIG, WEIGHTS)).encode())
    return Adapter(
        name=name_of(folder),
        folder=folder,
        id=digest.hexdigest()[:12],
        rank=max(ranks),
        parameters=sum(map(prod, shapes.values())),
        family=str(told.get("family") or ""),
        revision=str(told.get("revision") or ""),
        not_in_vllm=_not_in_vllm(config),
    )


def attach(adapter: Adapter, model: Model) -> Model:
    """``model`` with ``adapter``; raises UsageError where they do not belong together."""
    if model.is_encoder_decoder:
        raise UsageError(f"--adapter {adapter.folder}: {model.name} is an encoder-decoder model: merge it first")
    if adapter.revision and adapter.revision != model.revision:
        raise UsageError(
            f"--adapter {adapter.folder}: trained on revision {adapter.revision} of its base, and {model.name} is "
            f"{model.revision}: give that base as --model"
        )
    return replace(model, adapter=adapter)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise UsageError(f"{folder / CONFIG}: not valid JSON: {error}") from error
    if config.get("peft_type") != "LORA":
        raise UsageError(f"{folder}: an adapter of type {config.get('peft_type')}; only LORA is known")
    return config


_MODIFY_THE_BASE = ("pissa", "olora", "corda", "loftq")


def _not_in_vllm(config: dict[str, Any]) -> str:
    """The first of an ``adapter_config.json``'s settings that vLLM does not compute (vllm/lora/peft_helper.py)."""
    settings = ["use_dora", "lora_bias", "modules_to_save", "layer_replication", "alora_invocation_tokens"]
    settings += ["use_bdlora", "use_qalora"]
    if found := next((name for name in settings if config.get(name)), ""):
        return found
    if config.get("bias", "none") != "none":
        return "bias"
    initial = config.get("init_lora_weights")
    changed = isinstance(initial, str) and initial.lower().startswith(_MODIFY_THE_BASE)
    return f"init_lora_weights {initial}" if changed else ""
