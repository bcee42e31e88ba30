"""Several replicas, of different speed, some of them killed in mid-run: the output is that of one replica."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.crash

SUPPORT = Path(__file__).resolve().parents[1] / "support"
ROWS = 240


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replicas") / "in.jsonl"
    rows = [{"id": n, "text": f"Ship {n % 200} sails. It carries {n} sacks of grain."} for n in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(source: Path, output: Path, *latencies: float) -> subprocess.Popen[str]:
    """A job with a replica for each of ``latencies``."""
    settings = json.dumps([{"latency": latency, "max_num_seqs": 4} for latency in latencies])
    command = [sys.executable, str(SUPPORT / "run_faulty.py"), settings, "translate", str(source)]
    return subprocess.Popen(
        [*command, "--to", "ko", "--engine", "echo", "-o", str(output), "--part-size", "50"],
        env={**os.environ, "PYTHONPATH": str(SUPPORT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(job: subprocess.Popen[str]) -> tuple[int, str]:
    said = job.communicate(timeout=120)[1]
    return job.returncode, said


@pytest.fixture(scope="module")
def of_one_replica(source: Path) -> bytes:
    output = source.with_name("one.jsonl")
    assert finished(start(source, output, 0.0))[0] == 0
    return output.read_bytes()


def replicas_of(job: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(job.pid).children()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("seed", range(2))
def test_replicas_of_different_speed_that_are_killed_make_the_output_of_one(
    source: Path, of_one_replica: bytes, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    latencies = [chance.choice([0.02, 0.05, 0.15, 0.3]) for _ in range(chance.randint(2, 4))]
    job = start(source, tmp_path / "out.jsonl", *latencies)
    kills = 0
    segments = tmp_path / "out.jsonl.koen" / "segments.sqlite"
    while job.poll() is None and kills < 2:
        time.sleep(chance.uniform(0.2, 0.5))
        running = [replica for replica in replicas_of(job) if time.time() - replica.create_time() > 0.6]
        if running and segments.exists():
            chance.choice(running).kill()
            kills += 1
    status, said = finished(job)
    assert status == 0, said
    # On a slow machine one is killed before it is up, and so twice in a row.
    assert "starting it again" in said or "does not start" in said, said
    assert (tmp_path / "out.jsonl").read_bytes() == of_one_replica


def test_replicas_that_are_killed_again_and_again_end_the_job_which_goes_on_by_the_same_command(
    source: Path, of_one_replica: bytes, tmp_path: Path
) -> None:
    job = start(source, tmp_path / "out.jsonl", 30.0, 30.0)
    while job.poll() is None:
        for replica in replicas_of(job):
            if time.time() - replica.create_time() > 0.4:
                replica.kill()
        time.sleep(0.05)
    status, said = finished(job)
    assert status == 1, said
    assert said.splitlines()[-1].startswith("koen-batch: engine faulty:FaultyEngine")
    assert not (tmp_path / "out.jsonl").exists()

    status, said = finished(start(source, tmp_path / "out.jsonl", 0.0, 0.01))
    rejects = tmp_path / "out.jsonl.rejects.jsonl"
    rejected = [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    assert status == (3 if rejected else 0), said
    assert {row["reason"] for row in rejected} <= {"killed_engine"}
    lost = {row["row"] for row in rejected}
    assert len(lost) < 10, "what a lone request was killed with, twice"
    rows = [row for number, row in enumerate(of_one_replica.splitlines(), 1) if number not in lost]
    assert (tmp_path / "out.jsonl").read_bytes().splitlines() == rows
