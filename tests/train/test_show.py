"""From parallel data to translations on `tiny`, by the commands that a user types: two ranks, killed and resumed, the
loss falls, merged, translated by both engines, with the adapter beside its base and merged, in a batch and alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from training import ROOT, TORCHRUN, command, kill_after, losses

from train import curves

pl = pytest.importorskip("polars")
pytest.importorskip("trl")

pytestmark = [pytest.mark.slow, pytest.mark.real]

WORDS = {"one": "하나", "two": "둘", "red": "빨강", "sky": "하늘", "sun": "해", "sea": "바다", "car": "차"}
SETTINGS = ["method=lora", "lora_rank=12", "lora_alpha=48", "learning_rate=5e-3", "epochs=6", "save_steps=5"]


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr[-3000:]
    return done.stderr


def first_answers(source: Path, output: Path, *options: object) -> dict[str, str]:
    """What the engine answered to each segment at its first, greedy attempt."""
    log = output.with_suffix(".log")
    fixed = ["--to", "ko", "--dtype", "float32", "--max-new-tokens", "24", "--max-model-len", "512", "-o", output]
    run("koen_batch.cli", "translate", source, *fixed, "--log-json", log, "--quiet", *options)
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    answers: dict[str, str] = {}
    for event in events:
        if event["event"] == "segment":
            answers.setdefault(event["source"], event["answer"])
    read = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in read] == list(range(len(read))), "every row, in order"
    assert len(read) == len(source.read_text().splitlines())
    return answers


def test_from_data_to_translations(tmp_path: Path) -> None:
    names = list(WORDS)
    pairs = [(f"The {a} {b}", f"{WORDS[a]} {WORDS[b]}", "en-ko") for a in names for b in names if a != b]
    data = tmp_path / "train.parquet"
    pl.DataFrame(pairs, schema=["text", "target", "direction"], orient="row").write_parquet(data)
    folder, merged = tmp_path / "run", tmp_path / "merged"
    training = command(data, folder, SETTINGS, TORCHRUN)
    kill_after(training, folder / "metrics.jsonl", 12)
    assert not (folder / "final").exists()
    assert "going on from" in subprocess.run(training, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    fallen = losses(curves.read(folder / "metrics.jsonl"))
    assert list(fallen) == list(range(1, max(fallen) + 1)), "each step once"
    assert fallen[max(fallen)] < fallen[1] - 1
    run("train", "merge", folder, "-o", merged)

    source = tmp_path / "in.jsonl"
    texts = [f"The {a} {b} and the {c}." for a, b, c in zip(names, names[2:] + names[:2], names[::-1], strict=True)]
    source.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    beside = ["--model", folder / "base", "--adapter", folder]
    whole = ["--model", merged]
    found = {}
    for engine in ("hf", "vllm"):
        if engine == "vllm" and find_spec("vllm") is None:
            continue
        for name, model in (("merged", whole), ("adapter", beside)):
            for rows in (1, 8):
                output = tmp_path / f"{engine}-{name}-{rows}.jsonl"
                how = ["--engine", engine, "--max-num-seqs", rows]
                found[output.stem] = first_answers(source, output, *model, *how)
    print(json.dumps({"loss": [fallen[1], fallen[max(fallen)]], "answers": found}, ensure_ascii=False, indent=1))
    expected = found["hf-merged-8"]
    assert len(expected) == len(texts)
    assert any(expected.values())
    assert all(answers == expected for answers in found.values())
    assert first_answers(source, tmp_path / "base.jsonl", "--model", folder / "base", "--engine", "hf") != expected

    job = json.loads((tmp_path / "hf-adapter-8.jsonl.koen" / "job.json").read_text())
    assert job["fingerprint"]["adapter"]
    run("koen_batch.cli", "retry", tmp_path / "hf-adapter-8.jsonl", "--dtype", "float32", "--engine", "hf")
