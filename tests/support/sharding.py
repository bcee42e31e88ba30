"""A sharded job in the tests: cut, translated and merged in this process, with one echo engine for all of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koen_batch import job as job_module
from koen_batch import report
from koen_batch.config import JobConfig
from koen_batch.engines.pool import Pool
from koen_batch.engines.start import Prepared, Wishes, identity, prepare
from koen_batch.languages import Direction
from koen_batch.session import RunOptions
from koen_batch.shards import cutting, merge, worker
from koen_batch.shards.manifest import Manifest
from koen_batch.shards.storage import Storage

ECHO = Wishes(engine="echo", max_num_seqs=4)
OPTIONS = RunOptions(quiet=True, wishes=ECHO)
CONFIG = JobConfig(Direction("en", "ko"))


@contextlib.contextmanager
def echoing(log: Path) -> Iterator[Prepared]:
    """An echo engine in its child process that goes on running from job to job."""
    prepared = prepare(CONFIG.direction, ECHO)
    pool = Pool(prepared.plan, log, lambda line: None)
    try:
        yield dataclasses.replace(prepared, running=pool)
    finally:
        pool.close()


@dataclass(frozen=True)
class Sharding:
    """A folder to work in, and an engine that runs."""

    engine: Prepared
    folder: Path

    def cut(
        self, inputs: Sequence[str], job: str, rows: int, config: JobConfig = CONFIG, *, restart: bool = False
    ) -> Manifest:
        model = identity(config.direction, ECHO)
        cutting.run(inputs, job, config, model, rows_per_shard=rows, restart=restart)
        return Manifest.load(Storage(job))

    def work(self, job: str, shards: Sequence[int], *, name: str = "work", redo: bool = False) -> report.Summary:
        return worker.run(job, list(shards), OPTIONS, work=self.folder / name, engine=self.engine, redo=redo)

    def merge(self, job: str, output: str | None = None) -> report.Summary:
        return merge.run(job, output, work=self.folder / "merging")

    def translated(self, inputs: Sequence[str], config: JobConfig = CONFIG, *, into: str = "expected") -> Path:
        """The folder of what ``translate`` makes of the same."""
        folder = self.folder / into
        folder.mkdir(exist_ok=True)
        job_module.run(inputs, f"{folder}/", config, OPTIONS, engine=self.engine)
        return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """The outputs and side files in a folder, without working folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.endswith(".koen") for part in path.parts)
    }
