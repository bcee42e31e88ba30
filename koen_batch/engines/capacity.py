"""What fits where: a model in a number format against the memory, the GPUs and the cores of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from koen_batch.engines import vllm
from koen_batch.engines.hardware import GIB, Hardware
from koen_batch.errors import UsageError

if TYPE_CHECKING:
    from koen_batch.engines.start import Wishes
    from koen_batch.models import Model

ITEM_SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}

OVERHEAD = 3 * GIB // 2
"""Memory of a GPU that is neither weights nor cache: CUDA's context, activations, graphs. An assumption."""

SEQUENCE_TOKENS = 512
"""Cache planned for a running sequence: a sentence with its prompt and answer takes less."""

LEAST_SEQUENCES = 16
"""A model fits where its weights and this many sequences do."""

CACHE_SHARE = 0.3
"""Cache on a CPU: at most this share of the memory that the weights leave, which the rest of the job needs too."""

CPU_BATCH_TOKENS, MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 4096, 1024, 65536


ON_CPU = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "30000",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(4 * GIB),
}
"""OpenMP threads that wait for each other spin for a millisecond or two, and then give their core away (libgomp).

A step is thousands of short parallel regions. Medians of three passes, starter, two cores: threads that sleep between
them take 70 ms for a step of 4 sequences and 203 for one of 128, with this bound 43 and 188, without one 34 and 161
(one pass). But threads that spin without end, as is the default, keep each other from running wherever anything else
does: beside two busy processes a step of 4 took 120, 159 and 455 ms (one pass each).

glibc keeps what it has freed. By default it gives every block above 32 MiB back to the kernel and takes it anew, page
by page: each step's logits (64 rows of 262,144 tokens in float32 are 64 MiB) several times. Measured with the starter
model in bfloat16, 64 sequences: 8.0 against 9.8 ms of processor time a token."""


@dataclass(frozen=True)
class Load:
    """A model in a number format, on the devices of ``hardware`` (its GPUs, or else its cores).

    ``share`` is the share of each GPU's memory that weights and cache may take.
    """

    hardware: Hardware
    model: Model
    dtype: str
    share: float

    @property
    def item(self) -> int:
        return ITEM_SIZE[self.dtype]

    @property
    def weights(self) -> int:
        """Bytes, those of an adapter included."""
        return self.model.parameters * self.item + self.adapter

    @property
    def adapter(self) -> int:
        """Bytes of the adapter, each of its layers as wide as vLLM makes it; 0 without one."""
        adapter = self.model.adapter
        if adapter is None:
            return 0
        return adapter.parameters * self.item * vllm.lora_rank(adapter.rank) // adapter.rank

    @property
    def sequence(self) -> int:
        """Bytes of cache of a running sequence."""
        return self.model.kv_bytes_per_token(self.item) * SEQUENCE_TOKENS

    @property
    def gpu_memory(self) -> int:
        """Bytes that the smallest GPU gives to weights and cache."""
        return int(min(gpu.memory for gpu in self.hardware.gpus) * self.share) - OVERHEAD

    def fits(self, ranks: int) -> bool:
        """Whether one copy fits that many GPUs."""
        return (self.weights + LEAST_SEQUENCES * self.sequence) / ranks <= self.gpu_memory

    def divides(self, ranks: int) -> bool:
        """Whether the attention heads can be shared evenly: keys and values may be repeated, queries may not."""
        kv = self.model.kv_heads
        return self.model.heads % ranks == 0 and (kv % ranks == 0 or ranks % kv == 0)

    def layout(self, wishes: Wishes) -> tuple[int, int, str]:
        """(ranks that share one copy, copies, why).

        Raises:
            UsageError: it does not fit, or not in the way that was asked for.
        """
        return self._on_gpus(wishes) if self.hardware.gpus else self._on_cores(wishes)

    def _on_gpus(self, wishes: Wishes) -> tuple[int, int, str]:
        count = len(self.hardware.gpus)
        size = f"{self.model.name} takes {self.weights / GIB:.1f} GiB in {self.dtype}"
        total = min(gpu.memory for gpu in self.hardware.gpus) / GIB
        if wishes.tensor_parallel is None:
            ranks = next((n for n in range(1, count + 1) if self.divides(n) and self.fits(n)), 0)
        else:
            ranks = wishes.tensor_parallel
            if ranks > count:
                raise UsageError(f"--tensor-parallel {ranks}: there are only {count} usable GPU(s)")
            self._check_divides(ranks)
        if not ranks or not self.fits(ranks):
            raise UsageError(
                f"{size}, which does not fit into {self.share:.0%} of {ranks or count} GPU(s) of {total:.1f} GiB; "
                "use a smaller model"
            )
        replicas = wishes.replicas or count // ranks
        if replicas * ranks > count:
            raise UsageError(f"--replicas {replicas} of {ranks} GPU(s) each: there are only {count} usable GPU(s)")
        return ranks, replicas, f"{replicas} replica(s) on {ranks} GPU(s) each: {size}, a GPU has {total:.1f} GiB"

    def _on_cores(self, wishes: Wishes) -> tuple[int, int, str]:
        ranks, replicas = wishes.tensor_parallel or 1, wishes.replicas or 1
        cores = len(self.hardware.cpus)
        if ranks * replicas > cores:
            raise UsageError(f"{replicas} replica(s) of {ranks} rank(s): there are only {cores} usable CPU core(s)")
        self._check_divides(ranks)
        if self.weights * replicas + OVERHEAD > self.hardware.memory:
            raise UsageError(
                f"{self.model.name} takes {self.weights / GIB:.1f} GiB in {self.dtype}, {replicas} time(s), and this "
                f"machine has {self.hardware.memory / GIB:.1f} GiB; use a smaller model"
            )
        return ranks, replicas, f"{replicas} replica(s) on {cores // replicas} CPU core(s) each"

    def _check_divides(self, ranks: int) -> None:
        if not self.divides(ranks):
            heads = f"{self.model.heads} attention heads and {self.model.kv_heads} key-value heads"
            raise UsageError(f"--tensor-parallel {ranks}: does not divide the {heads} of {self.model.name}")

    def sequences(self, ranks: int) -> int:
        """Running sequences for which GPUs have cache beside the weights."""
        return (self.gpu_memory * ranks - self.weights) // self.sequence

    def cpu_cache_gib(self, sequences: int, length: int, replicas: int) -> float:
        """GiB of cache: usual sequences, at least two of full length, within :data:`CACHE_SHARE`."""
        wanted = max(sequences * self.sequence, 2 * length * self.sequence // SEQUENCE_TOKENS)
        free = self.hardware.memory / replicas - self.weights
        return max(1, round(min(wanted, CACHE_SHARE * free) / GIB * 4)) / 4

    def batch_tokens(self) -> int:
        """Padded tokens of a batch for ``generate``."""
        if not self.hardware.gpus:
            return CPU_BATCH_TOKENS
        # Keys and values twice, as the cache grows by copying, and the widest activations of a step.
        token = 2 * self.model.kv_bytes_per_token(self.item) + 16 * self.model.hidden * self.item
        affordable = (self.gpu_memory - self.weights) // token
        return max(MIN_BATCH_TOKENS, min(MAX_BATCH_TOKENS, 1 << max(0, affordable.bit_length() - 1)))

    def places(self, ranks: int, replicas: int) -> list[dict[str, str]]:
        """Environment of each replica: its GPUs, or its share of the cores."""
        if self.hardware.gpus:
            ids = [str(gpu.index) for gpu in self.hardware.gpus]
            return [{"CUDA_VISIBLE_DEVICES": ",".join(ids[n * ranks : (n + 1) * ranks])} for n in range(replicas)]
        if replicas == ranks == 1:
            return [dict(ON_CPU)]
        cores = self.hardware.cpus
        each = len(cores) // (replicas * ranks)
        groups = [cores[n * each : (n + 1) * each] for n in range(replicas * ranks)]
        return [ON_CPU | _bound(groups[n * ranks : (n + 1) * ranks]) for n in range(replicas)]


def _bound(ranks: list[tuple[int, ...]]) -> dict[str, str]:
    """Bind a replica's ranks to cores: vLLM binds its own workers; a single rank lives in the process itself, where
    OpenMP reads its own variables (vllm/utils/ompmultiprocessing.py)."""
    if len(ranks) > 1:
        return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, cores)) for cores in ranks)}
    return {"OMP_NUM_THREADS": str(len(ranks[0])), "GOMP_CPU_AFFINITY": " ".join(map(str, ranks[0]))}
