"""What a sharded job costs beside the translation: ``python benchmarks/shards.py [--shards 1000] [--rows 1000]``.

Cuts SHARDS × ROWS rows of JSONL, lets one worker make all shards with the echo engine, and merges them, each as a
command of its own. A worker's bookkeeping is what many shards cost it beyond one shard of the same rows: the time of
SHARDS shards of one row, less that of one shard of SHARDS rows, by SHARDS - 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

KOEN = (sys.executable, "-m", "koen_batch.cli")
ECHO = ("--to", "ko", "--engine", "echo")


@dataclass(frozen=True)
class Cost:
    """Seconds of a command from its start to its end, and of a processor, its children included."""

    seconds: float
    processor: float


def timed(folder: Path, *arguments: str) -> Cost:
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run([*KOEN, *arguments], cwd=folder, check=False, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}")
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def corpus(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for number in range(rows):
            file.write(
                json.dumps({"id": number, "text": f"This is sentence number {number}. It has two parts."}) + "\n"
            )


def job(folder: Path, rows: int, rows_per_shard: int) -> dict[str, Cost]:
    """What the commands cost over a corpus of ``rows`` rows."""
    name = f"{rows}-{rows_per_shard}"
    corpus(folder / "in.jsonl", rows)
    out = ("-o", f"{name}.jsonl", "--quiet")
    return {
        "shard": timed(
            folder, "shard", "in.jsonl", "-o", name, "--rows-per-shard", str(rows_per_shard), "--quiet", *ECHO
        ),
        "worker": timed(folder, "worker", name, "--shard", "0", "--of", "1", "--quiet"),
        "status": timed(folder, "status", name, "--json"),
        "merge": timed(folder, "merge", name, *out),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000, help="of each shard")
    arguments = parser.parse_args()
    shards, rows = arguments.shards, arguments.rows
    with tempfile.TemporaryDirectory(prefix="koen-bench-") as name:
        many, one = (job(Path(name), shards, rows_per_shard)["worker"] for rows_per_shard in (1, shards))
        for what in ("seconds", "processor"):
            cost = 1000 * (getattr(many, what) - getattr(one, what)) / (shards - 1)
            print(f"bookkeeping of a shard: {cost:.1f} ms ({what})", flush=True)
        print(f"{shards} shards of {rows} rows (load {os.getloadavg()[0]:.1f}):", flush=True)
        for command, cost in job(Path(name), shards * rows, rows).items():
            print(f"  {command}: {cost.seconds:.1f} s, processor {cost.processor:.1f} s")


if __name__ == "__main__":
    main()
