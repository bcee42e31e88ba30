"""``koen-batch retry``."""

from __future__ import annotations

import argparse
from pathlib import Path

from koen_batch.commands.arguments import add_engine_options, add_report_options, finish, wishes


def add(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ask again for the flagged and the readable rejected records of a finished output, and put them back in "
        "their places. The better of the two answers is kept; OUT.koen/models.jsonl says which model made which record."
    )
    command.set_defaults(command=_retry)
    command.add_argument("output", type=Path, help="what `koen-batch translate` wrote")
    command.add_argument("--only", nargs="+", default=[], metavar="VERDICT", help="only records with these flags")
    command.add_argument("--force", action="store_true", help="also where the output has been changed since")
    engine = command.add_argument_group("model and engine")
    engine.add_argument("--model", help="the model that is asked (default: the job's own)")
    add_engine_options(engine)
    add_report_options(command.add_argument_group("the run"))


def _retry(arguments: argparse.Namespace) -> int:
    from koen_batch import second_pass
    from koen_batch.errors import UsageError
    from koen_batch.session import RunOptions

    if not arguments.output.name:
        raise UsageError(f"{arguments.output}: a folder; name one output file in it")
    options = RunOptions(
        part_size=arguments.part_size,
        log_json=arguments.log_json,
        summary=arguments.summary,
        report=arguments.report,
        quiet=arguments.quiet,
        wishes=wishes(arguments),
    )
    return finish(
        arguments,
        lambda: second_pass.run(
            arguments.output, only=arguments.only, model=arguments.model, force=arguments.force, options=options
        ),
    )
