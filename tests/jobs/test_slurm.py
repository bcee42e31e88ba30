"""jobs/slurm through its own scripts, with a program in Slurm's place that runs an array as a loop."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_corpus import SmallCorpus

DIRECTIVES = {
    *("array", "cpus-per-task", "gpus", "gpus-per-node", "job-name", "mem", "nodes", "ntasks"),
    *("open-mode", "output", "requeue", "signal", "time"),
}
"""The options of sbatch (its manual page) that the scripts use."""


@pytest.fixture
def slurm(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**environment, "SLURM_LOG": str(tmp_path / "slurm.log"), "TASKS": "2"}


def submitted(environment: dict[str, str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(environment["SLURM_LOG"]).read_text().splitlines()]


def submit(jobs: Path, corpus: SmallCorpus, environment: dict[str, str]) -> Path:
    """Run submit.sh; returns the output."""
    folder = corpus.path.parent
    output = folder / "out.jsonl"
    command = [jobs / "slurm" / "submit.sh", corpus.path, folder / "job", output, "--to", "ko", "--engine", "echo"]
    done = subprocess.run(
        [*command, "--rows-per-shard", "4"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("array ")
    return output


def test_the_array_and_the_merge_make_what_translate_makes(
    jobs: Path, corpus: SmallCorpus, slurm: dict[str, str]
) -> None:
    output = submit(jobs, corpus, slurm)
    assert output.read_bytes() == corpus.translated
    array, merge = submitted(slurm)
    assert (array["script"], array["statuses"]) == ("translate.sbatch", [0, 0])
    assert (merge["script"], merge["statuses"]) == ("merge.sbatch", [0]), "also with rejected records"


def test_a_task_that_fails_keeps_the_merge_away_and_the_same_submission_resumes(
    jobs: Path, corpus: SmallCorpus, slurm: dict[str, str], tmp_path: Path
) -> None:
    broken = shutil.copytree(jobs / "slurm", tmp_path / "jobs" / "slurm")
    script = broken / "translate.sbatch"
    script.write_text(script.read_text().replace("exec koen-batch", '[ "$SLURM_ARRAY_TASK_ID" != 1 ]\nexec koen-batch'))
    output = submit(tmp_path / "jobs", corpus, slurm)
    assert not output.exists()
    assert submitted(slurm)[1] == {"id": 2, "script": "merge.sbatch", "statuses": [], "cancelled": True}
    before = {path: path.stat().st_mtime_ns for path in (corpus.path.parent / "job" / "done").iterdir()}
    assert submit(jobs, corpus, slurm).read_bytes() == corpus.translated
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is not done again"


def test_training_takes_the_gpus_of_the_node(jobs: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """With a program in torchrun's place that shows what it was given: training itself is tested in tests/train."""
    from train.__main__ import parser

    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    told = subprocess.run(
        ["bash", jobs / "slurm" / "train.sbatch", "koen-v4", "train.parquet", "run", "--eval-flores", "100"],
        env={**environment, "PATH": f"{tmp_path}:{environment['PATH']}", "SLURM_GPUS_ON_NODE": "4"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told[:4] == ["--standalone", "--nproc_per_node=4", "-m", "train"]
    assert parser().parse_args(told[4:]).eval_flores == 100


@pytest.mark.parametrize("name", ["translate.sbatch", "merge.sbatch", "train.sbatch"])
def test_the_directives_are_slurms(jobs: Path, name: str) -> None:
    """They count only above the first command."""
    text = (jobs / "slurm" / name).read_text()
    directives = re.findall(r"^#SBATCH --([\w-]+)(?:=\S+)?$", text, re.MULTILINE)
    assert set(directives) <= DIRECTIVES
    assert len(directives) == len(set(directives)) == text.count("#SBATCH") >= 6
    assert text.rindex("#SBATCH") < text.index("set -euo pipefail")
