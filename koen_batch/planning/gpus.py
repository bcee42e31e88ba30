"""What GPUs that are not here could do: the roofline of a model on each, times an efficiency that is stated."""

from __future__ import annotations

from dataclasses import dataclass

from koen_batch.engines import choose
from koen_batch.engines.capacity import ITEM_SIZE
from koen_batch.engines.hardware import GIB, Gpu, Hardware
from koen_batch.engines.start import Wishes
from koen_batch.errors import UsageError
from koen_batch.models import Model

EFFICIENCY = 0.46
"""Of the roofline. An assumption: 30 of a T4's 65 TFLOP/s were taken as realistic when this project was designed; it
was not measured on any of these GPUs."""


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A GPU by NVIDIA's data sheet: dense FLOP/s in 16 bit and in float32, bytes a second, bytes of memory."""

    name: str
    capability: tuple[int, int]
    flops16: float
    flops32: float
    bandwidth: float
    memory: int


KNOWN = (
    KnownGpu("T4", (7, 5), 65e12, 8.1e12, 320e9, 15 * GIB),
    KnownGpu("L4", (8, 9), 121e12, 30.3e12, 300e9, 23 * GIB),
    KnownGpu("A100 80GB", (8, 0), 312e12, 19.5e12, 2039e9, 80 * GIB),
    KnownGpu("H100 SXM", (9, 0), 989e12, 67e12, 3350e9, 80 * GIB),
    KnownGpu("H200 SXM", (9, 0), 989e12, 67e12, 4800e9, 140 * GIB),
)
"""Data sheets of the T4, L4, A100 SXM, H100 SXM and H200 SXM; figures with sparsity are halved there."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds of the arithmetic and of the memory traffic; the longer one bounds the job from below."""

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory)


def flops(model: Model, prompt: float, output: float, segments: float) -> float:
    """FLOP of generating ``output`` tokens from ``prompt`` tokens, in ``segments`` requests.

    2 for each parameter and token (Kaplan et al. 2020, 2.1), where the embedding counts as the matrix of the output,
    which only generated tokens pass; attention costs 4 x width for each layer, token and token before it.
    """
    embedding = model.vocabulary * model.hidden
    tokens = prompt + output
    length = tokens / max(segments, 1)
    attention = 4 * model.attention_layers * model.heads * model.head_dim * tokens * length / 2
    return 2 * (model.parameters - embedding) * tokens + 2 * embedding * output + attention


def traffic(model: Model, prompt: float, output: float, segments: float, *, sequences: int, item: int) -> float:
    """Bytes that decoding moves: the weights once for a token of ``sequences`` running ones, each one's cache once."""
    before = (prompt + output / 2) / max(segments, 1)
    return output * (model.parameters * item / sequences + before * model.kv_bytes_per_token(item))


def roofline(model: Model, gpu: KnownGpu, prompt: float, output: float, segments: float) -> tuple[Roofline, str] | str:
    """The bounds on one GPU of this kind, and the number format there; why not, where the model cannot run on it."""
    hardware = Hardware(
        cpus=tuple(range(8)),
        memory=64 * GIB,
        gpus=(Gpu(0, gpu.name, gpu.capability, gpu.memory, gpu.memory),),
        driver=".".join(map(str, choose.MIN_DRIVER)),
        vllm="0.32.0",
        torch="2.13.0",
        transformers="5.16.1",
    )
    try:
        plan = choose.plan(hardware, model, Wishes())
    except UsageError:
        return "does not fit"
    item = ITEM_SIZE[plan.dtype]
    sequences = int(plan.specs[0].settings.get("max_num_seqs") or plan.window // 2)
    peak = gpu.flops32 if plan.dtype == "float32" else gpu.flops16
    moved = traffic(model, prompt, output, segments, sequences=sequences, item=item)
    return Roofline(flops(model, prompt, output, segments) / peak, moved / gpu.bandwidth), plan.dtype
