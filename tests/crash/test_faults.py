"""Faults of the machine: no room, no permission, a folder that goes, an engine that dies. One line, then it goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from koen_batch.engines.echo import MARK

pytestmark = pytest.mark.crash

SUPPORT = Path(__file__).resolve().parents[1] / "support"
COMMAND = (sys.executable, "-m", "koen_batch.cli", "translate")
OPTIONS = ("--to", "ko", "--engine", "echo", "--quiet", "--part-size", "40")


def texts(rows: int) -> Iterator[tuple[str, str]]:
    """A text for each row, some of them alike, and what goes with it untouched."""
    for n in range(rows):
        yield f"Sentence {n % 150} of a corpus. And one more.", f"{n:04d}" * 250


def jsonl(path: Path, rows: int = 200) -> None:
    lines = [json.dumps({"id": n, "text": text, "pad": pad}) for n, (text, pad) in enumerate(texts(rows))]
    lines[7] = '{"text": "cut off'
    path.write_text("\n".join(lines) + "\n")


def parquet(path: Path, rows: int = 200) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"text": [text for text, _ in texts(rows)], "pad": [os.urandom(500).hex() for _ in range(rows)]}
    pq.write_table(pa.table(columns), path, row_group_size=50)


def srt(path: Path, rows: int = 200) -> None:
    cues = (f"{n + 1}\n01:{n // 60:02d}:{n % 60:02d},000 --> 01:{n // 60:02d}:{n % 60:02d},900\n" for n in range(rows))
    path.write_text("\n".join(cue + text + "\n" for cue, (text, _) in zip(cues, texts(rows), strict=True)))


WRITERS: dict[str, Callable[[Path], None]] = {"jsonl": jsonl, "parquet": parquet, "srt": srt}
HELD = ("Sentence 45 ", "Sentence 85 ")
"""Texts of the second part and of the third."""
STATUS = {"jsonl": 3, "parquet": 0, "srt": 0}


def run(
    folder: Path, *arguments: str, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments, *OPTIONS],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=before,
    )


def stopped_with_one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("koen-batch: ")
    return line


def reference(folder: Path, name: str) -> bytes:
    """What an undisturbed run makes of ``in.NAME``."""
    (folder / "undisturbed").mkdir()
    done = run(folder, f"in.{name}", "-o", "undisturbed/")
    assert done.returncode == STATUS[name], done.stderr
    return (folder / "undisturbed" / f"in.ko.{name}").read_bytes()


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the job ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A job that stands still in its second part until that is let go, and then in its third."""
    settings = json.dumps({"hold": str(folder / "held")})
    (folder / "held").mkdir(exist_ok=True)
    for text in HELD:
        (folder / "held" / text).touch()
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "run_faulty.py"), settings, "translate", *arguments, *OPTIONS],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(SUPPORT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def let_go(folder: Path, *texts: str) -> None:
    for text in texts:
        (folder / "held" / text).unlink()


# --- no room -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("jsonl", 20_000),
        ("jsonl", 100_000),
        pytest.param("jsonl", 35_000, marks=pytest.mark.slow),
        pytest.param("parquet", 20_000, marks=pytest.mark.slow),
        ("parquet", 35_000),
        pytest.param("parquet", 100_000, marks=pytest.mark.slow),
        ("srt", 20_000),
        pytest.param("srt", 35_000, marks=pytest.mark.slow),
    ],
)
def test_a_file_that_may_not_grow(tmp_path: Path, name: str, limit: int) -> None:
    """The limit is met by the store, by a part or by the final file, as it comes."""
    WRITERS[name](tmp_path / f"in.{name}")
    whole = reference(tmp_path, name)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    stopped_with_one_line(run(tmp_path, f"in.{name}", before=limited))
    assert not (tmp_path / f"in.ko.{name}").exists()
    resumed = run(tmp_path, f"in.{name}")
    assert resumed.returncode == STATUS[name], resumed.stderr
    assert (tmp_path / f"in.ko.{name}").read_bytes() == whole


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """A file system of its own at ``folder``; yields what changes its mount options."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")

    def change(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "name", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow), pytest.param("srt", marks=pytest.mark.slow)]
)
def test_a_full_disk_that_is_given_a_little_more_room_each_time(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / f"in.{name}")
    whole = reference(tmp_path, name)
    full = 0
    with small_disk(tmp_path / "disk", 64) as change:
        for kilobytes in range(64, 4096, 96):
            change(f"size={kilobytes}k")
            done = run(tmp_path, f"in.{name}", "-o", "disk/")
            if done.returncode != 1:
                break
            line = stopped_with_one_line(done)
            assert os.strerror(errno.ENOSPC) in line or "disk is full" in line or "disk I/O error" in line, line
            full += 1
        assert done.returncode == STATUS[name], done.stderr
        assert full >= 2
        assert (tmp_path / "disk" / f"in.ko.{name}").read_bytes() == whole


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl")
    whole = reference(tmp_path, "jsonl")
    with small_disk(tmp_path / "disk", 8192) as change:
        killed = run(tmp_path, "in.jsonl", "-o", "disk/", KOEN_KILL_AT="30")
        assert killed.returncode == -signal.SIGKILL
        change("ro")
        assert os.strerror(errno.EROFS) in stopped_with_one_line(run(tmp_path, "in.jsonl", "-o", "disk/"))
        assert os.strerror(errno.EROFS) in stopped_with_one_line(run(tmp_path, "in.jsonl", "-o", "disk/other.jsonl"))
        change("rw")
        assert run(tmp_path, "in.jsonl", "-o", "disk/").returncode == STATUS["jsonl"]
        assert (tmp_path / "disk" / "in.ko.jsonl").read_bytes() == whole


def test_an_input_that_gives_errors_when_it_is_read(tmp_path: Path) -> None:
    """Linux answers a read of ``/proc/self/mem`` at address 0 with EIO, like a broken disk."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc/self/mem here")
    (tmp_path / "in.jsonl").symlink_to("/proc/self/mem")
    assert os.strerror(errno.EIO) in stopped_with_one_line(run(tmp_path, "in.jsonl"))
    (tmp_path / "in.jsonl").unlink()
    jsonl(tmp_path / "in.jsonl")
    assert run(tmp_path, "in.jsonl").returncode == STATUS["jsonl"]


@pytest.mark.parametrize("option", ["--log-json", "--summary"])
def test_a_report_that_cannot_be_written(tmp_path: Path, option: str) -> None:
    jsonl(tmp_path / "in.jsonl")
    refused = run(tmp_path, "in.jsonl", option, "nowhere/report")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "in.ko.jsonl.koen").exists()
    assert os.strerror(errno.ENOSPC) in stopped_with_one_line(run(tmp_path, "in.jsonl", option, "/dev/full"))
    assert run(tmp_path, "in.jsonl").returncode == STATUS["jsonl"]


# --- what goes away ----------------------------------------------------------------------------------------


def test_the_output_folder_is_removed_in_mid_run(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl")
    whole = reference(tmp_path, "jsonl")
    with running(tmp_path, "in.jsonl", "-o", "out/") as process:
        until((tmp_path / "out" / "in.ko.jsonl.koen" / "parts" / "000000").exists, process)
        while (tmp_path / "out").exists():  # again where the job wrote a file into it meanwhile
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        let_go(tmp_path, *HELD)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1, told
    assert len(told.splitlines()) == 1
    assert run(tmp_path, "in.jsonl", "-o", "out/").returncode == STATUS["jsonl"]
    assert (tmp_path / "out" / "in.ko.jsonl").read_bytes() == whole


@pytest.mark.parametrize("gone", ["000000", "000001"])
def test_a_part_that_somebody_has_taken_away_is_missed(tmp_path: Path, gone: str) -> None:
    jsonl(tmp_path / "in.jsonl")
    with running(tmp_path, "in.jsonl") as process:
        let_go(tmp_path, HELD[0])
        parts = tmp_path / "in.ko.jsonl.koen" / "parts"
        until((parts / "000001").exists, process)
        process.kill()
        process.wait()
    shutil.rmtree(parts / gone)
    done = run(tmp_path, "in.jsonl")
    if gone == "000000":
        assert done.returncode == 2
        assert "part 000000 has gone" in done.stderr
        done = run(tmp_path, "in.jsonl", "--restart")
    assert done.returncode == STATUS["jsonl"]  # the last part is simply made again
    assert len((tmp_path / "in.ko.jsonl").read_bytes().splitlines()) == 199


def test_a_finished_output_that_was_changed_is_called_so(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl")
    loud = [argument for argument in OPTIONS if argument != "--quiet"]
    command = [*COMMAND, "in.jsonl", *loud]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    with (tmp_path / "in.ko.jsonl").open("ab") as output:
        output.write(b"an edit\n")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "already done: in.ko.jsonl (changed since" in again.stderr
    assert (tmp_path / "in.ko.jsonl").read_bytes().endswith(b"an edit\n")


@pytest.mark.parametrize("name", ["job.json", "done.json"])
def test_a_state_file_that_is_damaged_is_refused_and_restarted(tmp_path: Path, name: str) -> None:
    jsonl(tmp_path / "in.jsonl")
    run(tmp_path, "in.jsonl")
    (tmp_path / "in.ko.jsonl.koen" / name).write_text("{ no")
    refused = run(tmp_path, "in.jsonl")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert run(tmp_path, "in.jsonl", "--restart").returncode == STATUS["jsonl"]


# --- what dies ---------------------------------------------------------------------------------------------


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_only_the_engine_is_killed(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl")
    whole = reference(tmp_path, "jsonl")
    with running(tmp_path, "in.jsonl") as process:
        for part, held in zip(("000000", "000001"), HELD, strict=True):
            until((tmp_path / "in.ko.jsonl.koen" / "parts" / part).exists, process)
            (engine,) = children_of(process)
            engine.kill()
            let_go(tmp_path, held)
        _, told = process.communicate(timeout=60)
    assert process.returncode == STATUS["jsonl"], told
    assert (tmp_path / "in.ko.jsonl").read_bytes() == whole


def test_the_job_is_killed_and_resumed_at_once_while_its_children_die(tmp_path: Path) -> None:
    jsonl(tmp_path / "in.jsonl")
    whole = reference(tmp_path, "jsonl")
    engines: list[psutil.Process] = []
    for part, answered in (("000000", ()), ("000001", HELD[:1])):
        with running(tmp_path, "in.jsonl") as process:
            let_go(tmp_path, *answered)
            until((tmp_path / "in.ko.jsonl.koen" / "parts" / part).exists, process)
            engines += children_of(process)
            process.kill()  # and on without waiting for anything
            process.wait()
    done = run(tmp_path, "in.jsonl")
    assert done.returncode == STATUS["jsonl"], done.stderr
    assert (tmp_path / "in.ko.jsonl").read_bytes() == whole
    assert len(engines) == 2
    assert not psutil.wait_procs(engines, timeout=10)[1]


@pytest.mark.parametrize("kill_at", [12, 33])
def test_committed_segments_are_not_sent_again(tmp_path: Path, kill_at: int) -> None:
    """Counted by the engine itself, which writes down what it is asked."""
    rows = [f"Sentence number {n} is one of a kind." for n in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))

    def asked(name: str, kill_at: int) -> list[str]:
        settings = json.dumps({"count": str(tmp_path / name), "max_num_seqs": 2})
        done = subprocess.run(
            [sys.executable, str(SUPPORT / "run_faulty.py"), settings, "translate", "in.jsonl", *OPTIONS],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(SUPPORT), "KOEN_KILL_AT": str(kill_at)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr
        return (tmp_path / name).read_text().splitlines()

    first = asked("first", kill_at)
    store = sqlite3.connect(tmp_path / "in.ko.jsonl.koen" / "segments.sqlite")
    committed = {text.removeprefix(MARK) for (text,) in store.execute("SELECT text FROM segments")}
    store.close()
    assert committed <= set(first)
    again = asked("again", 0)
    assert not committed.intersection(again)
    assert committed.union(again) == set(rows)
    assert len(again) == len(rows) - len(committed)
    out = [json.loads(line)["translation"] for line in (tmp_path / "in.ko.jsonl").read_text().splitlines()]
    assert out == [MARK + text for text in rows]
