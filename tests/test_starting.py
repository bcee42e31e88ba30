"""The engine loads while the job looks at its input, and only where there is something to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import koen_batch
from koen_batch import job
from koen_batch.errors import InputError, UsageError


@pytest.fixture
def engines() -> Callable[[], int]:
    """How many child processes there are that the test has begun: libraries of other tests may have left some."""
    before = set(psutil.Process().children())
    return lambda: len(set(psutil.Process().children()) - before)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, engines: Callable[[], int]) -> list[int]:
    """How many engines there were whenever a file was hashed."""
    seen: list[int] = []
    original = job.file_hash

    def hashed(path: Path) -> str:
        seen.append(engines())
        return original(path)

    monkeypatch.setattr(job, "file_hash", hashed)
    return seen


def test_the_engine_starts_before_the_inputs_are_hashed(
    tmp_path: Path, running: list[int], engines: Callable[[], int]
) -> None:
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for source in sources:
        source.write_text('{"text": "The sky is blue."}\n')
    koen_batch.translate(list(map(str, sources)), to="ko", engine="echo")
    assert running == [1, 1]
    assert engines() == 0


def test_a_job_that_is_done_starts_no_engine(tmp_path: Path, running: list[int]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "The sky is blue."}\n')
    koen_batch.translate(str(source), to="ko", engine="echo")
    running.clear()
    koen_batch.translate(str(source), to="ko", engine="echo")
    assert set(running) == {0}


def test_a_refused_job_ends_the_engine_that_it_started(
    tmp_path: Path, running: list[int], engines: Callable[[], int]
) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "The sky is blue."}\n{broken\n')
    with pytest.raises(InputError):
        koen_batch.translate(str(source), to="ko", engine="echo", on_bad_row="stop")
    with pytest.raises(UsageError, match="begun with other settings"):
        koen_batch.translate(str(source), to="ko", engine="echo", seed=1)
    assert running == [1, 1]
    assert engines() == 0
