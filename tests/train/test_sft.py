"""Fine-tuning the tiny recipe on a CPU: the loss falls, a killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from training import ROOT, TORCHRUN, command, kill_after, losses

from koen_batch import models
from koen_batch.errors import StoppedError, UsageError
from koen_batch.languages import Direction
from koen_batch.tokenization import HuggingFace
from train import curves, recipe
from train.run import Order
from train.sft import sft

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pl = pytest.importorskip("polars")

LORA = ["method=lora", "lora_rank=4", "lora_alpha=8", "lora_dropout=0.2", "epochs=2", "save_steps=4"]
"""Twelve steps, six an epoch; the dropout draws from the random state that a checkpoint must bring back."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Two threads that wait for each other on a busy machine take ten times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["one", "two", "red", "sky", "sun", "sea", "car"], ["하나", "둘", "빨강", "하늘", "해", "바다", "차"]
    rows = [
        (f"The {words[0][i % 7]} {words[0][i % 5]}", f"{words[1][i % 7]} {words[1][i % 5]}", "en-ko") for i in range(48)
    ]
    path = tmp_path_factory.mktemp("data") / "train.parquet"
    pl.DataFrame(rows, schema=["text", "target", "direction"], orient="row").write_parquet(path)
    return path


def train(data: Path, folder: Path, settings: list[str], **more: Any) -> list[dict[str, Any]]:
    order = Order(recipe=recipe.load("tiny", settings), data=data, output=folder, **more)
    assert sft(order) == 0
    return curves.read(folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("full") / "run"
    train(data, folder, ["epochs=4", "save_steps=5", "keep=2"], validation=data)
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "run"
    train(data, folder, LORA)
    return folder


def test_the_loss_falls_and_the_rates_are_the_planned_ones(full: Path) -> None:
    rows = curves.read(full / "metrics.jsonl")
    fallen = losses(rows)
    assert list(fallen) == list(range(1, 25))
    assert fallen[24] < fallen[1] - 1.5
    plan = recipe.load("tiny", ["epochs=4"])
    steps, rates = curves.series(rows, "learning_rate")
    stored = json.loads((full / "run.json").read_text(encoding="utf-8"))["plan"]
    assert (stored["steps"], stored["warmup_steps"]) == (24, 3)
    from train.machine import planned

    expected = planned(plan, 48, 1, "cpu")
    assert rates == pytest.approx([expected.rate(step) for step in steps])
    assert [row["step"] for row in rows if "eval_loss" in row] == [5, 10, 15, 20, 24]


def test_a_finished_run_has_a_model_that_says_how_it_was_asked(full: Path) -> None:
    model = models.resolve(str(full / "final"))
    assert (model.family.name, model.dtype, model.architecture) == ("koen", "float32", "Lfm2ForCausalLM")
    config = json.loads((full / "final" / "config.json").read_text(encoding="utf-8"))
    assert (config["conv_dim"], config["block_dim"]) == (128, 128), "what vLLM reads"
    assert (full / "final" / "tokenizer.json").read_bytes() == (full / "base" / "tokenizer.json").read_bytes()
    for name in ("README.md", "curve.png", "curve.html", "metrics.jsonl", "training.json"):
        assert (full / "final" / name).stat().st_size > 100
    card = (full / "README.md").read_text(encoding="utf-8")
    assert "validation loss" in card and "48 examples" in card and "their sources and licences are unknown" in card


def test_checkpoints_are_kept_to_a_limit_and_nothing_else_is_left(full: Path) -> None:
    folders = sorted(path.name for path in full.iterdir() if path.is_dir())
    assert folders == ["base", "checkpoint-20", "checkpoint-24", "data", "final"]


def test_a_finished_run_is_left_alone_and_another_one_is_refused(
    full: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in full.rglob("*") if path.name != "lock"}
    train(data, full, ["epochs=4", "save_steps=5", "keep=2"], validation=data)
    assert "already done" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in full.rglob("*") if path.name != "lock"} == before
    with pytest.raises(UsageError, match=r"recipe.learning_rate: 0.003 there, 0.1 now.*--restart"):
        train(data, full, ["epochs=4", "save_steps=5", "keep=2", "learning_rate=0.1"], validation=data)


def test_a_run_killed_in_its_second_epoch_goes_on_with_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, data: Path, lora: Path
) -> None:
    folder = tmp_path / "run"
    kill_after(command(data, folder, LORA), folder / "metrics.jsonl", 10)
    assert not (folder / "final").exists()
    saved = {path.name for path in folder.glob("checkpoint-*")}
    assert "checkpoint-8" in saved
    (folder / ".saving" / "checkpoint-99").mkdir(parents=True, exist_ok=True)
    resumed = losses(train(data, folder, LORA))
    uninterrupted = losses(curves.read(lora / "metrics.jsonl"))
    assert list(resumed) == list(uninterrupted) == list(range(1, 13))
    assert resumed == pytest.approx(uninterrupted, abs=1e-6)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, data: Path) -> None:
    with pytest.raises(StoppedError, match="the loss of step"):
        train(data, tmp_path / "run", ["learning_rate=1e30", "max_grad_norm=1e30", "warmup=0"])


def test_a_folder_of_another_is_never_touched(tmp_path: Path, data: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "data").mkdir()
    for restart in (False, True):
        with pytest.raises(UsageError, match=r"mine\.txt is in it"):
            train(data, tmp_path, [], restart=restart)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "data", "lock"}
    with pytest.raises(UsageError, match="no such file"):
        train(tmp_path / "absent.parquet", tmp_path / "run", [])


def test_the_probe_translates_in_batches_as_it_does_alone(full: Path) -> None:
    from transformers import AutoModelForCausalLM

    from train.probe import translate

    model = models.resolve(str(full / "final"))
    tokenizer = HuggingFace(model.folder)
    loaded = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32)
    texts = ["The one two", "The sky", "The sea car", "A longer sentence, of which it has seen nothing."]
    together = translate(loaded, tokenizer, model.family, texts, Direction.to("ko"))
    alone = [translate(loaded, tokenizer, model.family, [text], Direction.to("ko"))[0] for text in texts]
    assert together == alone
    assert any(answer for answer in together)


def test_a_run_begun_anew_forgets_the_other(tmp_path: Path, data: Path, full: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(full, copy)
    (copy / "checkpoint-20" / "config.json").unlink()
    again = losses(train(data, copy, ["epochs=0.5"], restart=True))
    assert list(again) == [1, 2, 3]
    assert [path.name for path in copy.glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.slow
@pytest.mark.skipif("KOEN_DATA" not in os.environ, reason="KOEN_DATA names no folder of data")
def test_flores_is_scored_at_every_save(tmp_path: Path, data: Path) -> None:
    flores = Path(os.environ["KOEN_DATA"])
    rows = train(data, tmp_path / "run", ["save_steps=3"], flores=flores, flores_sentences=3)
    scored = [row for row in rows if "flores_chrF++_en-ko" in row]
    assert [row["step"] for row in scored] == [3, 6]
    assert all(0 <= row[f"flores_chrF++_{direction}"] <= 100 for row in scored for direction in ("en-ko", "ko-en"))
    assert "sample of FLORES dev, chrF++ en-ko | 6" in (tmp_path / "run" / "final" / "README.md").read_text()
    plain = train(data, tmp_path / "plain", ["save_steps=3"])
    assert losses(rows) == losses(plain), "scoring leaves the training as it is"


@pytest.mark.slow
def test_an_8_bit_optimizer_goes_on_too(tmp_path: Path, data: Path) -> None:
    """The reference's optimizer, which has had bugs there (bitsandbytes#782, #1381); on a CPU it is not paged."""
    settings = ["optimizer=paged_adamw_8bit", "save_steps=2"]
    kill_after(command(data, tmp_path / "killed", settings), tmp_path / "killed" / "metrics.jsonl", 4)
    assert losses(train(data, tmp_path / "killed", settings)) == pytest.approx(
        losses(train(data, tmp_path / "whole", settings)), abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["save_steps=3"], [*LORA, "lora_dropout=0"]], ids=["full", "lora"])
def test_two_ranks_have_the_losses_of_one_also_after_a_kill(tmp_path: Path, data: Path, settings: list[str]) -> None:
    two = tmp_path / "two"
    run = command(data, two, settings, TORCHRUN)
    kill_after(run, two / "metrics.jsonl", 5)
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "48 rows, 2 ranks" in done.stdout and done.stdout.count("done: ") == 1
    assert "going on from" in done.stdout
    one = losses(train(data, tmp_path / "one", settings))
    assert losses(curves.read(two / "metrics.jsonl")) == pytest.approx(one, rel=1e-4)
