"""``python -m train.starter.export``: the examples for ``fit.py``, rendered by the program's own prompt module."""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path

from koen_batch.languages import Direction
from koen_batch.prompts import FAMILIES

FAMILY = FAMILIES["starter"]


def export(data: Path, output: Path, seed: int) -> int:
    """Write ``{"prompt", "completion"}`` lines of the examples that `train prepare` wrote, in an order that ``seed``
    fixes; returns their number."""
    import polars as pl

    rows = pl.read_parquet(data, columns=["text", "target", "direction"]).rows()
    random.Random(seed).shuffle(rows)
    with gzip.open(output, "wt", encoding="utf-8", compresslevel=6) as file:
        for text, target, name in rows:
            prompt = FAMILY.prompt_text(text, Direction(*name.split("-")))
            line = {"prompt": prompt, "completion": FAMILY.completion_text(target)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.starter.export", description=__doc__)
    parser.add_argument("data", type=Path, help="train.parquet, of `python -m train prepare`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="examples.jsonl.gz")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{export(arguments.data, arguments.output, arguments.seed):,} examples: {arguments.output}")


if __name__ == "__main__":
    main()
