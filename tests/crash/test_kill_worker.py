"""Real SIGKILLs at every durable step of a worker: the same command resumes, here or on another machine, and what is
merged is what ``translate`` makes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

KOEN = (sys.executable, "-m", "koen_batch.cli")
ROWS = [json.dumps({"id": n, "text": f"Sentence {n % 5}. And one more."}).encode() for n in range(11)]
OUTPUTS = ("in.ko.jsonl", "in.ko.jsonl.rejects.jsonl")


def koen(
    folder: Path, *arguments: str, kill_at: int = 0, steps: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KOEN_KILL_AT": str(kill_at), "TMPDIR": str(folder)}
    if steps:
        environment["KOEN_STEPS"] = str(steps)
    return subprocess.run(
        [*KOEN, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def work(folder: Path, *, kill_at: int = 0, steps: Path | None = None) -> subprocess.CompletedProcess[str]:
    return koen(
        folder, "worker", "JOB", "--shard", "0", "--of", "1", "--max-num-seqs", "2", kill_at=kill_at, steps=steps
    )


def merged(folder: Path) -> dict[str, bytes]:
    done = koen(folder, "merge", "JOB")
    assert done.returncode == 3, done.stderr
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def cut(folder: Path) -> Path:
    folder.mkdir()
    (folder / "in.jsonl").write_bytes(b"\n".join([*ROWS[:5], b'{"text": "cut', *ROWS[5:]]) + b"\n")
    options = ("--to", "ko", "--engine", "echo")
    assert koen(folder, "shard", "in.jsonl", "-o", "JOB", "--rows-per-shard", "4", *options).returncode == 0
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[str]]:
    """What ``translate`` makes, and the steps of a worker that nobody kills."""
    folder = cut(tmp_path_factory.mktemp("reference") / "job")
    assert work(folder, steps=folder / "steps").returncode == 0
    out = merged(folder)
    shutil.rmtree(folder / "in.ko.jsonl.koen")
    translated = koen(folder, "translate", "in.jsonl", "--to", "ko", "--engine", "echo", "--overwrite", "--quiet")
    assert translated.returncode == 3, translated.stderr
    expected = {name: (folder / name).read_bytes() for name in OUTPUTS}
    # A file is named as it was given: `in.jsonl` both times.
    assert out == expected
    return expected, (folder / "steps").read_text().splitlines()


def killed(folder: Path, kill_at: int) -> Path:
    """A job whose worker was killed at a step. How many there are depends a little on the engine's pace."""
    cut(folder)
    died = work(folder, kill_at=kill_at)
    assert died.returncode in (-signal.SIGKILL, 0), died.stderr
    return folder


def resumed(folder: Path, expected: dict[str, bytes]) -> None:
    again = work(folder)
    assert again.returncode == 0, again.stderr
    assert merged(folder) == expected
    assert not list(folder.glob("koen-batch-*/*/shards-*")), "nothing of the worker stays"


def test_a_worker_passes_the_steps_that_matter(reference: tuple[dict[str, bytes], list[str]]) -> None:
    steps = reference[1]
    for step in ("part synced", "commit shard", "shard committed", "rename 000000.json", "renamed 000000.json"):
        assert step in steps
    assert any(step.startswith("rename 000.data.") for step in steps)
    upload = next(n for n, step in enumerate(steps) if step.startswith("renamed 000.data."))
    assert steps.index("part synced") < upload < steps.index("rename 000000.json")


def test_killed_around_the_commit(reference: tuple[dict[str, bytes], list[str]], tmp_path: Path) -> None:
    """Before the upload, behind it, before the marker, and behind that."""
    expected, steps = reference
    around = {
        "commit shard": steps.index("commit shard"),
        "uploaded": next(n for n, step in enumerate(steps) if step.startswith("renamed 000.data.")),
        "marker": steps.index("rename 000000.json"),
        "marked": steps.index("renamed 000000.json"),
    }
    for name, step in around.items():
        resumed(killed(tmp_path / name.replace(" ", "-"), step + 1), expected)


def test_resumed_on_another_machine(reference: tuple[dict[str, bytes], list[str]], tmp_path: Path) -> None:
    """Nothing is there of the worker that died but what it has committed."""
    expected, steps = reference
    folder = killed(tmp_path / "job", steps.index("renamed 000000.json") + 1)
    for left in folder.glob("koen-batch-*"):
        shutil.rmtree(left)
    resumed(folder, expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_merge_killed_at_every_step(reference: tuple[dict[str, bytes], list[str]], tmp_path: Path) -> None:
    expected, _ = reference
    folder = cut(tmp_path / "job")
    assert work(folder).returncode == 0
    step = 1
    while koen(folder, "merge", "JOB", kill_at=step).returncode == -signal.SIGKILL:
        assert merged(folder) == expected
        for left in folder.glob("in.ko.jsonl*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        step += 1
    assert step > 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_step(reference: tuple[dict[str, bytes], list[str]], tmp_path: Path) -> None:
    expected, steps = reference
    for number in range(1, len(steps) + 1):
        resumed(killed(tmp_path / f"kill-{number}", number), expected)
