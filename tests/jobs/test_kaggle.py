"""The Kaggle notebook: valid, its metadata as Kaggle wants them, and run from its second cell to its last."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from koen_batch import cli

nbformat = pytest.importorskip("nbformat")

FIELDS = {
    "id": str,
    "title": str,
    "code_file": str,
    "language": str,
    "kernel_type": str,
    "is_private": bool,
    "enable_gpu": bool,
    "enable_internet": bool,
    "machine_shape": str,
    "dataset_sources": list,
    "competition_sources": list,
    "kernel_sources": list,
    "model_sources": list,
}
"""Kaggle/kaggle-cli, docs/kernels_metadata.md."""

PARAMETER = re.compile(r"^(\w+) = .*?(?=\s+#|$)", re.MULTILINE)


@pytest.fixture
def folder(jobs: Path) -> Path:
    return jobs / "kaggle_2xt4"


@pytest.fixture
def notebook(folder: Path) -> Any:
    return nbformat.read(folder / "koen-batch-2xt4.ipynb", as_version=4)


def tagged(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def program(notebook: Any, parameters: dict[str, object], *, without: tuple[str, ...]) -> str:
    """The notebook's code cells as one program, with other parameters, and without the cells of some tags."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or any(tagged(cell, tag) for tag in without):
            continue
        source = cell.source
        if tagged(cell, "parameters"):
            assert parameters.keys() <= set(PARAMETER.findall(source))
            source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
        cells.append(source)
    return "\n\n".join(cells)


def test_the_metadata_are_what_kaggle_wants(folder: Path) -> None:
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    assert {name: type(value) for name, value in metadata.items()} == FIELDS
    assert (folder / metadata["code_file"]).is_file()
    assert metadata["kernel_type"] == "notebook"
    slug = metadata["title"].lower().replace(" ", "-")
    assert metadata["id"].endswith(f"/{slug}"), "Kaggle makes the slug from the title"
    assert metadata["machine_shape"] == "NvidiaTeslaT4", "two T4s (Kaggle/kaggle-cli#1198)"
    assert metadata["enable_gpu"] and metadata["enable_internet"]


def test_the_inputs_are_data_sets_of_the_metadata(folder: Path, notebook: Any) -> None:
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    [parameters] = [cell for cell in notebook.cells if tagged(cell, "parameters")]
    used = set(re.findall(r"/kaggle/input/([\w-]+)", parameters.source))
    assert used == {source.partition("/")[2] for source in metadata["dataset_sources"]}
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in readme for name in used)


def test_it_is_a_valid_notebook_with_nothing_hidden_and_nothing_run(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}
    for cell in code:
        compile(cell.source, cell.id, "exec")
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), "plain Python: a test runs it"


def shown_by(notebook: Any, parameters: dict[str, object], tmp_path: Path, environment: dict[str, str]) -> list[str]:
    """Every command of the notebook, in order, none of them run."""
    source = program(notebook, parameters, without=())
    source = source.replace("    with subprocess.Popen(", "    return\n    with subprocess.Popen(")
    source = source.partition("print(f\"{'layout'")[0] + source.partition("['seconds']:>10.1f}\")")[2]
    done = subprocess.run(
        [sys.executable, "-c", source], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return [line.removeprefix("$ ") for line in done.stdout.splitlines()]


def test_every_command_is_accepted_by_the_parsers(notebook: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    from train.__main__ import parser

    commands = [shlex.split(command) for command in shown_by(notebook, {}, tmp_path, environment)]
    koen = [command[1:] for command in commands if command[0] == "koen-batch"]
    train = [command[command.index("train") + 1 :] for command in commands if "train" in command]
    assert len(koen) >= 6 and len(train) == 4
    assert len(koen) + len(train) == len(commands) - 2, "the two others install"
    for arguments in koen:
        assert callable(cli.parser().parse_args(arguments).command)
    for arguments in train:
        assert parser().parse_args(arguments)


@pytest.fixture
def parameters(tmp_path: Path, flores_data: Path) -> dict[str, object]:
    """Inputs of a few rows, and `echo`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    things = {"red": "빨간", "blue": "파란", "large": "커다란", "old": "오래된", "quiet": "조용한", "new": "새로운"}
    places = {"house": "집", "garden": "정원", "school": "학교", "station": "역", "market": "시장", "library": "도서관"}
    pairs = [
        {"en": f"We met near the {thing} {place} yesterday.", "ko": f"우리는 어제 {korean} {where} 근처에서 만났다."}
        for thing, korean in things.items()
        for place, where in places.items()
    ]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    corpus = pa.table({"id": list(range(40)), "text": [f"Sentence number {n} of the corpus." for n in range(40)]})
    pq.write_table(corpus, tmp_path / "corpus.parquet")
    (tmp_path / "work").mkdir()
    return {
        "CORPUS": str(tmp_path / "corpus.parquet"),
        "FLORES": str(flores_data),
        "PAIRS": str(tmp_path / "pairs.parquet"),
        "WORK": str(tmp_path / "work"),
        "ENGINE": "echo",
        "ROWS": 30,
        "SENTENCES": 20,
        "EXAMPLES": 30,
    }


def run(notebook: Any, parameters: dict[str, object], environment: dict[str, str], *without: str) -> str:
    work = Path(str(parameters["WORK"]))
    source = work.parent / "notebook.py"
    source.write_text(program(notebook, parameters, without=without), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, source], env=environment, cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(parameters: dict[str, object], shown: str) -> None:
    """Both layouts were translated and timed, and the model stands on the board."""
    import pyarrow.parquet as pq

    work = Path(str(parameters["WORK"]))
    for layout in ("replicated", "tensor-parallel"):
        table = pq.read_table(work / layout / "corpus.ko.parquet")
        assert table.num_rows == parameters["ROWS"]
        assert set(table.column("translation_verdict").to_pylist()) == {"ok"}
        [line] = [line for line in shown.splitlines() if line.startswith(layout)]
        assert float(line.split()[1]) > 0
    assert (work / "board" / "leaderboard.html").exists()
    assert {path.name for path in (work / "runs").iterdir()} == {
        f"echo.{direction}.devtest.first-20" for direction in ("en-ko", "ko-en")
    }


def test_it_runs_with_echo_and_without_installing_and_training(
    notebook: Any, parameters: dict[str, object], environment: dict[str, str]
) -> None:
    check(parameters, run(notebook, parameters, environment, "install", "training"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_with_echo_and_trains_the_tiny_recipe_in_two_processes(
    notebook: Any, parameters: dict[str, object], environment: dict[str, str]
) -> None:
    pytest.importorskip("trl")
    recipe = Path(str(parameters["WORK"])).parent / "recipe.toml"
    tiny = (Path(__file__).resolve().parents[2] / "train" / "recipes" / "tiny.toml").read_text(encoding="utf-8")
    recipe.write_text(tiny.replace('method = "full"', 'method = "lora"\nlora_rank = 4\nlora_alpha = 8'))
    parameters["RECIPE"] = str(recipe)
    shown = run(notebook, parameters, {**environment, "OMP_NUM_THREADS": "1"}, "install")
    check(parameters, shown)
    merged = Path(str(parameters["WORK"])) / "fine-tuned-model"
    assert (merged / "model.safetensors").stat().st_size > 1_000_000


def test_a_command_that_fails_stops_it(
    notebook: Any, parameters: dict[str, object], environment: dict[str, str]
) -> None:
    parameters["CORPUS"] = "missing.parquet"
    source = program(notebook, parameters, without=("install", "training"))
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing.parquet" in done.stdout
    assert "koen-batch flores" not in done.stdout
