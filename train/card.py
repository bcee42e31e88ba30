"""The model card of a run: base, data and their licences, settings, curve, scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from koen_batch import catalog, starter
from train.curves import read


def text(facts: dict[str, Any], data_report: dict[str, Any] | None, metrics: Path) -> str:
    """Markdown. ``facts`` is the run's ``run.json``; ``data_report`` is what `prepare` wrote beside the data."""
    recipe, plan = facts["fingerprint"]["recipe"], facts["plan"]
    entry = catalog.load().get(recipe["model"])
    base = (entry.hub or entry.title) if entry else recipe["model"] or "a random model, for tests"
    licence = entry.licence if entry else "see there"
    kind = {"full": "all weights trained", "lora": "a LoRA adapter", "qlora": "a LoRA adapter, trained over 4-bit"}
    rows = read(metrics)
    lines = [
        f"# {recipe['name']}: English and Korean",
        "",
        f"{base[0].upper()}{base[1:]}, fine-tuned to translate ({kind[recipe['method']]}), by `python -m train sft`.",
        f"Licence of the base model: {licence}.",
        f"It is asked with the prompts of the family `{recipe['family']}`.",
        "",
        *([f"{starter.TERMS}.", ""] if "Gemma" in licence else []),
        "## Data",
        "",
        f"{facts['encoded']['rows']:,} examples of {facts['fingerprint']['data']['name']} "
        f"({facts['encoded']['tokens']:,} tokens, {facts['encoded']['learned']:,} of them learned), "
        f"{facts['encoded']['too_long']:,} left out as longer than {recipe['max_length']} tokens.",
        "",
        *corpora(data_report),
        "",
        "## Training",
        "",
        f"{plan['steps']:,} steps of {recipe['global_batch']} examples on {plan['ranks']} x {plan['device']}, "
        f"{plan['trainable_parameters']:,} of {plan['parameters']:,} parameters.",
        "",
        *(f"- {decision['name']}: {decision['value']} ({decision['why']})" for decision in plan["decisions"]),
        "",
        "```json",
        json.dumps({k: v for k, v in recipe.items() if k != "config"}, ensure_ascii=False, indent=1),
        "```",
        "",
        "![loss and learning rate over the steps](curve.png)",
        "",
        "## Scores",
        "",
        *_scores(rows),
    ]
    return "\n".join(lines) + "\n"


def corpora(report: dict[str, Any] | None) -> list[str]:
    """The table of corpora of `prepare`'s report, with licences."""
    if report is None:
        return ["No report of `python -m train prepare` lies beside the data: their sources and licences are unknown."]
    head = ["| corpus | licence | pairs |", "|---|---|---|"]
    return head + [
        f"| {name} | {', '.join(told['license'])} | {told['train']:,} |"
        for name, told in report["corpora"].items()
        if told["train"]
    ]


def _scores(rows: list[dict[str, Any]]) -> list[str]:
    names = [name for row in rows for name in row if name in ("loss", "eval_loss") or name.startswith("flores_")]
    last = {name: row for name in dict.fromkeys(names) for row in rows if name in row}
    if not last:
        return ["None yet."]
    shown = {"loss": "training loss (nats a token)", "eval_loss": "validation loss (nats a token)"}
    return ["| figure | at step | value |", "|---|---|---|"] + [
        f"| {shown.get(name, name.replace('flores_', 'sample of FLORES dev, ').replace('_', ' '))} "
        f"| {row['step']:,} | {row[name]:.4g} |"
        for name, row in last.items()
    ]
