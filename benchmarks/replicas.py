"""Does the rate grow with the replicas? An engine of a fixed latency, so that only the pipeline can stand in the way.

    python benchmarks/replicas.py [--replicas 1 2 4 8] [--seconds 8] [--rounds 3] [--latency 0.05] [--sequences 4]

A corpus of distinct one-sentence rows is translated with ``--engine echo``: each request takes ``--latency`` seconds,
``--sequences`` run at once in a replica, so a replica answers at most ``sequences / latency`` a second. Every run has
work for about ``--seconds``; the numbers of replicas take turns in each round. Printed is the median of
``steady_segments_per_second`` (from the first completion to the last, start-up of the other replicas included), what
of the engine's own rate that is, and how it compares with the first number of replicas.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median


def write(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            file.write(json.dumps({"id": n, "text": f"Ship number {n} sailed from harbour {n % 1013} with grain."}) + "\n")


def steady_rate(rows: int, replicas: int, latency: float, sequences: int) -> float:
    """Segments a second; raises where the command fails or leaves rows out."""
    with tempfile.TemporaryDirectory(prefix="koen-replicas-") as folder:
        path, summary = Path(folder, "corpus.jsonl"), Path(folder, "summary.json")
        write(path, rows)
        command = [sys.executable, "-m", "koen_batch.cli", "translate", str(path), "--to", "ko", "--engine", "echo"]
        command += ["--echo-latency", str(latency), "--max-num-seqs", str(sequences), "--replicas", str(replicas)]
        subprocess.run([*command, "--quiet", "--summary", str(summary)], check=True)
        facts = json.loads(summary.read_text())
        assert facts["records_written"] == rows, facts
        return float(facts["steady_segments_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--replicas", nargs="+", type=int, default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--sequences", type=int, default=4)
    arguments = parser.parse_args()
    each = arguments.sequences / arguments.latency
    rates: dict[int, list[float]] = {count: [] for count in arguments.replicas}
    for _ in range(arguments.rounds):
        for count, found in rates.items():
            rows = int(arguments.seconds * each * count)
            found.append(steady_rate(rows, count, arguments.latency, arguments.sequences))
    print("| replicas | segments/s, median | least | most | of the engines' own rate | times the first |")
    print("|--:|--:|--:|--:|--:|--:|")
    first = median(rates[arguments.replicas[0]])
    for count, found in rates.items():
        rate = median(found)
        figures = f"{rate:.1f} | {min(found):.1f} | {max(found):.1f} | {rate / (each * count):.1%} | {rate / first:.2f}"
        print(f"| {count} | {figures} |")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"\n{arguments.rounds} rounds of {arguments.seconds:g} s; load at the end {load} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
