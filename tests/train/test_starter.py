"""The program that makes the starter's adapter: its examples, its loss, its resume, and what comes into the package."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from koen_batch import starter
from koen_batch.languages import Direction
from train import recipe, tiny
from train.starter import fit as program
from train.starter.export import FAMILY, export
from train.starter.publish import publish

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pl = pytest.importorskip("polars")

PAIRS = [(f"The {a} {b}", f"{b} {a}") for a in ("one", "two", "red", "sea") for b in ("하나", "둘", "빨강")] * 3


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter")
    rows = [(en, ko, "en-ko") for en, ko in PAIRS] + [(ko, en, "ko-en") for en, ko in PAIRS]
    pl.DataFrame(rows, schema=["text", "target", "direction"], orient="row").write_parquet(folder / "train.parquet")
    assert export(folder / "train.parquet", folder / "examples.jsonl.gz", seed=1) == len(rows)
    return folder / "examples.jsonl.gz"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "base"
    tiny.make(folder, recipe.load("tiny").config, seed=1)
    return folder


def run(base: Path, examples: Path, output: Path, *, steps: int) -> list[dict[str, float]]:
    arguments = ["--rank", "4", "--batch", "8", "--held-out", "8", "--log", "1", "--learning-rate", "1e-2"]
    program.main(
        ["--model", str(base), "--examples", str(examples), "-o", str(output), "--steps", str(steps), *arguments]
    )
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(base: Path, examples: Path) -> Path:
    output = examples.parent / "run"
    run(base, examples, output, steps=12)
    return output


def test_examples_are_asked_as_they_will_be(examples: Path) -> None:
    with gzip.open(examples, "rt", encoding="utf-8") as file:
        written = {(row["prompt"], row["completion"]) for row in map(json.loads, file)}
    into_korean, into_english = Direction("en", "ko"), Direction("ko", "en")
    asked = {(FAMILY.prompt_text(en, into_korean), FAMILY.completion_text(ko)) for en, ko in PAIRS}
    asked |= {(FAMILY.prompt_text(ko, into_english), FAMILY.completion_text(en)) for en, ko in PAIRS}
    assert written == asked
    assert all(len(prompt) < 60 for prompt, _ in written), "no examples stand in the prompt"


def test_the_loss_is_that_of_transformers_over_the_answers(base: Path, examples: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = program.encoded(examples, AutoTokenizer.from_pretrained(base), 256)[:5]
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, mask, labels = (torch.full((5, longest), value) for value in (0, 0, -100))
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end], mask[row, :end] = torch.tensor(prompt + answer), 1
        labels[row, len(prompt) : end] = torch.tensor(answer)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        whole = program.Vocabulary(adapted, rows, whole=True)
        got = program.answer_loss(adapted, rows, whole) / sum(len(answer) for _, answer in rows)
    assert float(got) == pytest.approx(float(expected), rel=1e-2)  # ours is computed in bfloat16


def test_it_learns_and_goes_on_where_it_stopped(base: Path, examples: Path, trained: Path) -> None:
    losses = [
        row["loss"] for row in map(json.loads, (trained / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert losses[-1] < losses[0] - 0.5
    rows = run(base, examples, trained, steps=14)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 15))
    assert rows[-1]["step"] == 14
    assert rows[-1]["held_out"] < losses[0]


def test_the_learning_rate_is_level_until_it_decays() -> None:
    shares = [program.share_of_rate(step, 1000) for step in range(1, 1001)]
    assert shares[: program.WARMUP_STEPS] == sorted(shares[: program.WARMUP_STEPS])
    assert set(shares[program.WARMUP_STEPS : 700]) == {1.0}
    assert shares[700:] == sorted(shares[700:], reverse=True)
    assert 0 < shares[-1] < 0.01


def test_batches_hold_every_example_once_and_resume_in_their_order() -> None:
    rows = [([0] * (i % 7), [i]) for i in range(24)]
    epoch = program.batches(rows, 4, 1, 0)
    first = [next(epoch) for _ in range(6)]
    assert sorted(answer[0] for batch in first for _, answer in batch) == list(range(24))
    assert next(program.batches(rows, 4, 1, 6)) == next(epoch)


@pytest.mark.skipif(find_spec(starter.PACKAGE) is None, reason="the starter model is not installed")
def test_publishing_writes_a_card_with_scores_and_terms(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "ADAPTER", tmp_path / "adapter")
    (tmp_path / "report.json").write_text(json.dumps({"corpora": {"news": {"license": ["CC0"], "train": 7}}}))
    for name, score in (("before", 8.0), ("after", 12.5)):
        (tmp_path / name).mkdir()
        interval = {"low": score - 1, "high": score + 1}
        scores = [{"name": "chrF++", "score": score, "interval": interval}]
        (tmp_path / name / "run.json").write_text(json.dumps({"direction": "en-ko", "scores": scores}))
    folder = publish(trained, tmp_path / "report.json", [tmp_path / "before"], [tmp_path / "after"])
    card = (folder / "README.md").read_text()
    assert "| en-ko | chrF++ | 8.00 [7.00, 9.00] | 12.50 [11.50, 13.50] |" in card
    assert starter.TERMS in card.replace("\n", " ")
    assert "| news | CC0 | 7 |" in card
    assert str(tmp_path) not in "".join(file.read_text() for file in folder.glob("*.json"))
