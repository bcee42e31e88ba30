"""jobs/leaderboard: every model that can be had, and one that fails costs nobody else their turn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from koen_batch import catalog


def run(jobs: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, jobs / "leaderboard" / "run.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_takes_every_model_that_can_be_had(jobs: Path) -> None:
    namespace: dict[str, object] = {"__name__": "job"}
    exec(compile((jobs / "leaderboard" / "run.py").read_text(encoding="utf-8"), "run.py", "exec"), namespace)
    names = namespace["runnable"]()  # type: ignore[operator]
    left_out = catalog.load().keys() - set(names)
    assert left_out == {"google", "lfm2-mt-v1"}
    readme = (jobs / "leaderboard" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in left_out)


def test_a_model_that_fails_is_named_and_the_others_are_ranked(jobs: Path, flores_data: Path, tmp_path: Path) -> None:
    """Only NLLB is asked for other languages than English and Korean."""
    (flores_data / "devtest.deu_Latn").write_bytes((flores_data / "devtest.eng_Latn").read_bytes())
    runs, board = tmp_path / "runs", tmp_path / "board"
    models = ["--model", "koen-v4", "--model", "nllb-600m"]
    options = ["--engine", "echo", "--limit", "10", "--quiet", "--direction", "eng_Latn-deu_Latn"]
    done = run(jobs, "--data", flores_data, "-o", runs, "--board", board, *models, *options)
    assert done.returncode == 1
    assert done.stderr.endswith("not on the board: koen-v4 (their reasons stand above)\n")
    assert "echo" in (board / "leaderboard.md").read_text(encoding="utf-8")
