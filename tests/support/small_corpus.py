"""A corpus of a few rows, one of them bad, and what ``translate`` makes of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import koen_batch


@dataclass(frozen=True)
class SmallCorpus:
    path: Path
    translated: bytes


def make(folder: Path) -> SmallCorpus:
    path, alone = folder / "corpus.jsonl", folder / "alone" / "corpus.jsonl"
    rows = [json.dumps({"id": n, "text": f"Sentence number {n} of the corpus."}) for n in range(25)]
    path.write_text("\n".join([*rows[:7], "no JSON", *rows[7:]]) + "\n")
    koen_batch.translate(str(path), to="ko", engine="echo", output=str(alone))
    return SmallCorpus(path, alone.read_bytes())
