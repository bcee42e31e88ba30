"""The catalogue on FLORES-200: each model that can be had, one after the other, and then the leaderboard.

    python jobs/leaderboard/run.py --data flores/ -o runs/ --board board/ [--direction en-ko,ko-en …]

Options that are not known here go to `koen-batch flores`. A model that fails is named at the end and costs nobody else
their turn; the same command again skips the runs that are finished.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from koen_batch import catalog

FLAGGED = 3
"""Status of `koen-batch flores` where some sentences are flagged: a finished run."""


def runnable() -> list[str]:
    """The models of the catalogue that can be fetched and run; the others are scored from their output."""
    return [entry.name for entry in catalog.load().values() if entry.engine != "none" and (entry.hub or entry.package)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with FLORES-200")
    parser.add_argument("-o", "--output", default="runs", help="folder of the runs (default: runs)")
    parser.add_argument("--board", default="board", help="folder of the leaderboard (default: board)")
    parser.add_argument("--model", action="append", help="only this one; repeatable (default: all that can be run)")
    arguments, options = parser.parse_known_args()
    failed = []
    for model in arguments.model or runnable():
        command = ["flores", "--model", model, "--data", arguments.data, "-o", arguments.output, *options]
        # A process of its own: what a model leaves on the GPU ends with it.
        status = subprocess.run([sys.executable, "-m", "koen_batch.cli", *command], check=False).returncode
        if status >= 128:
            return status
        if status not in (0, FLAGGED):
            failed.append(model)
    board = [sys.executable, "-m", "koen_batch.cli", "leaderboard", arguments.output, "-o", arguments.board]
    status = subprocess.run(board, check=False).returncode
    if failed:
        print(f"not on the board: {', '.join(failed)} (their reasons stand above)", file=sys.stderr)
    return status or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
