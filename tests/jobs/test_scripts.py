"""Every script under jobs/ passes shellcheck, and every command in its READMEs is accepted by the program's parsers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from koen_batch import cli

JOBS = Path(__file__).resolve().parents[2] / "jobs"
SCRIPTS = sorted(path for path in JOBS.rglob("*") if path.suffix in {".sh", ".sbatch"})
READMES = sorted(JOBS.rglob("README.md"))
PLACE = re.compile(r"\$\{?(\w+)(?::-[^}]*)?\}?")


def test_every_folder_has_a_readme_that_the_index_names() -> None:
    index = (JOBS / "README.md").read_text(encoding="utf-8")
    folders = sorted(path.name for path in JOBS.iterdir() if path.is_dir())
    assert folders == ["kaggle_2xt4", "kubernetes", "leaderboard", "ray", "slurm"]
    assert all((JOBS / name / "README.md").exists() and f"[`{name}/`]({name}/)" in index for name in folders)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(JOBS)))
def test_a_script_passes_shellcheck(script: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert script.stat().st_mode & 0o111, "can be run"


def commands() -> list[str]:
    """Those of READMEs (``sh`` blocks) and those that scripts call."""
    found = []
    for readme in READMES:
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            found += block.replace("\\\n", "").splitlines()
    for script in SCRIPTS:
        found += script.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    lines = [re.split(r" +#|\|\||\) *$|;", line.strip())[0].strip() for line in found]
    called = [
        re.search(r"(?:^|exec |-- +)((?:koen-batch|torchrun .* -m train|python -m train) .*)", line) for line in lines
    ]
    return list(dict.fromkeys(match[1] for match in called if match))


@pytest.mark.parametrize("line", commands())
def test_a_command_is_accepted_by_the_parser(line: str) -> None:
    from train.__main__ import parser

    program, *arguments = [
        word
        for word in shlex.split(PLACE.sub(lambda place: "1" if "TASK" in place[1] else place[1], line))
        if word not in ("@", "$@")
    ]
    if "translate" in arguments and "--to" not in arguments:
        arguments += ["input", "--to", "ko"]  # the caller's
    if "shard" in arguments and "--to" not in arguments:
        arguments += ["--to", "ko"]
    if program == "koen-batch":
        assert callable(cli.parser().parse_args(arguments).command)
    else:
        assert parser().parse_args(arguments[arguments.index("train") + 1 :])


def test_the_paper_calculation_comes_to_what_is_printed_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = (JOBS / "README.md").read_text(encoding="utf-8")
    [(code, printed)] = re.findall(r"^```python\n(.*?)^```\n\n```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_commands_were_found() -> None:
    found = "\n".join(commands())
    for one in ("koen-batch shard", "koen-batch worker", "koen-batch merge", "koen-batch translate", "-m train sft"):
        assert one in found
