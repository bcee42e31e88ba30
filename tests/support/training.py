"""What the tests of `train` share: the tiny recipe as a command, and its death in mid-run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from train import curves

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def command(data: Path, folder: Path, settings: list[str], launcher: Sequence[str] = ()) -> list[str]:
    arguments = ["--recipe", "tiny", "--data", str(data), "-o", str(folder), "--set", *settings]
    return [sys.executable, *launcher, "-m", "train", "sft", *arguments]


def losses(rows: list[dict[str, Any]]) -> dict[int, float]:
    return dict(zip(*curves.series(rows, "loss"), strict=True))


def kill_after(run: list[str], metrics: Path, step: int) -> None:
    """Start a run and send all its processes SIGKILL as soon as it has logged ``step``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = metrics.parent.with_name("said.txt")
    with log.open("w") as said, subprocess.Popen(run, cwd=ROOT, env=environment, stdout=said, stderr=said) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if any(row["step"] >= step for row in curves.read(metrics)):
                break
            time.sleep(0.01)
        running = process.poll() is None
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if running else []
        for member in family:
            member.kill()
    assert running, log.read_text()
