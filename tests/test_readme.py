"""The README's commands: run with the echo engine where they can be, parsed by the real parser where they cannot."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from koen_batch import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [line.partition("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line]
KOEN = [line.rpartition("| ")[2].partition(" >")[0] for line in COMMANDS if "koen-batch " in line]
TRAIN = [line for line in COMMANDS if line.startswith("python -m train")]
MAKE = [line for line in COMMANDS if line.startswith("make ")]


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    assert len(KOEN) + len(TRAIN) + len(MAKE) == len(COMMANDS)
    assert len(KOEN) >= 10


@pytest.mark.parametrize("line", KOEN)
def test_a_command_is_accepted_by_the_parser(line: str) -> None:
    arguments = shlex.split(line)
    assert arguments[0] == "koen-batch"
    assert callable(cli.parser().parse_args(arguments[1:]).command)


@pytest.mark.parametrize("line", TRAIN)
def test_a_training_command_is_accepted_by_the_parser(line: str) -> None:
    from train.__main__ import parser

    assert parser().parse_args(shlex.split(line)[3:])


@pytest.mark.parametrize("line", MAKE)
def test_a_target_is_there(line: str) -> None:
    target = shlex.split(line)[1]
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
    assert dry.returncode == 0, dry.stderr


ELSEWHERE = (".srt", "season", "--ray", "--adapter", "://")
"""What marks a command of another test, or one that needs a cluster, a trained model or an object store."""


@pytest.mark.parametrize(
    "line", [line for line in KOEN if " translate " in line and not any(mark in line for mark in ELSEWHERE)]
)
def test_a_corpus_command_runs(line: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": "Good morning.", "title": "A title.", "messages": [{"content": "A message."}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    (tmp_path / "corpus.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("좋은 아침입니다.\n")
    arguments = [*shlex.split(line)[1:], "--engine", "echo"]
    done = subprocess.run(
        [sys.executable, "-m", "koen_batch.cli", *arguments],
        cwd=tmp_path,
        input=b'{"text": "One."}\n',
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_subtitle_commands_run(tmp_path: Path) -> None:
    cue = "1\n00:00:01,000 --> 00:00:02,000\nGood morning.\n"
    (tmp_path / "season-1").mkdir()
    for path in (tmp_path / "movie.en.srt", tmp_path / "season-1" / "e1.srt"):
        path.write_text(cue)
    lines = [line for line in KOEN if ".srt" in line or "season-1" in line]
    assert len(lines) == 2
    for line in lines:
        command = [sys.executable, "-m", "koen_batch.cli", *shlex.split(line)[1:], "--engine", "echo"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "movie.ko.srt").exists()
    assert (tmp_path / "korean" / "e1.ko.srt").exists()


def test_the_commands_of_a_sharded_job_run(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("Good morning.\nGood night.\n")
    (block,) = [block for kind, block in BLOCKS if kind == "sh" and "koen-batch shard corpus/" in block]
    lines = [line.partition("#")[0] for line in block.splitlines()]
    for line in [*lines[:1], lines[1].replace("0-3,7", "0"), *lines[2:]]:
        echo = ["--engine", "echo"] if " shard " in line or " worker " in line else []
        command = [sys.executable, "-m", "koen_batch.cli", *shlex.split(line)[1:], *echo]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "corpus.ko" / "a.ko.txt").exists()


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"text": "Good morning."}\n')
    exec(compile(example.replace('model="starter"', 'engine="echo"'), "README.md", "exec"), {})
    assert (tmp_path / "corpus.ko.jsonl").exists()
