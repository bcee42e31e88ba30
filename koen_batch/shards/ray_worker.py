"""A worker of a job on Ray: what lives in an actor, translates the shards that the driver gives, and tells of them.

The pipeline runs in a thread of its own, with one engine that stays up between two calls of it, so that the driver can
speak with the actor meanwhile. The driver asks for news, and the answer waits until there are some.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from threading import Condition, Thread

from koen_batch.engines.pool import Pool
from koen_batch.errors import KoenError, StoppedError, UsageError
from koen_batch.pipeline import Interrupted
from koen_batch.progress import Progress
from koen_batch.report import Summary
from koen_batch.session import RunOptions
from koen_batch.shards import worker
from koen_batch.shards.commits import Marker
from koen_batch.shards.manifest import MANIFEST, Manifest
from koen_batch.shards.storage import Storage, private_folder
from koen_batch.workdir import Lock

NEWS_SECONDS = 1.0
"""How long an answer waits for news at most."""

NEXT_SECONDS = 0.2
"""How long the pipeline waits for the next shard, where it has read all it was given, before it finishes those."""


WORK = "work"
"""What of a worker's folder the pipeline uses."""

Facts = tuple[int, int, float, int]
"""Records done, segments finished, tokens a second, records flagged or rejected (:meth:`Progress.update`)."""


@dataclass
class News:
    """What has happened since the driver last asked."""

    ready: bool = False
    """The worker has found the job, the model and a folder to work in, and can be given shards."""
    kept: list[int] = field(default_factory=list)
    """Shards of which an earlier worker has left something in that folder."""
    begun: list[int] = field(default_factory=list)
    """Shards of which the reading has begun."""
    committed: list[Marker] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """For the user."""
    facts: Facts | None = None
    """Of the call of the pipeline that is under way."""
    summaries: list[Summary] = field(default_factory=list)
    """Of the calls that have ended."""
    ended: bool = False
    """The worker does nothing more: it was asked to stop, or there is an ``error``."""
    error: KoenError | None = None


class Worker:
    """The class of the actors. ``job`` is the folder of the job, ``id`` that of its manifest."""

    def __init__(self, job: str, id: str, options: RunOptions) -> None:
        self._job = job
        self._id = id
        self._options = options
        self._given: deque[int] = deque()
        self._stopping = self._at_once = False
        self._news = News()
        self._changed = Condition()
        """Guards what stands above."""
        Thread(target=self._run, name="pipeline", daemon=True).start()

    # --- what the driver calls -------------------------------------------------------------------------------

    def give(self, shard: int) -> None:
        with self._changed:
            self._given.append(shard)
            self._changed.notify_all()

    def news(self) -> News:
        """What has happened; waits a moment for something to happen."""
        with self._changed:
            self._changed.wait_for(lambda: self._news != News(), NEWS_SECONDS)
            news, self._news = self._news, News()
            return news

    def stop(self, *, at_once: bool) -> None:
        """The worker ends, with the shards that it has, or ``at_once``: what is finished is kept on its machine."""
        with self._changed:
            self._stopping = True
            self._at_once = at_once
            self._changed.notify_all()

    # --- what the thread does --------------------------------------------------------------------------------

    def _run(self) -> None:
        error: KoenError | None = None
        try:
            self._translate()
        except Interrupted:
            pass
        except KoenError as raised:
            error = raised
        except BaseException as raised:  # whatever it is, the driver must hear of it
            error = StoppedError(f"{type(raised).__name__}: {raised}")
        with self._telling() as news:
            news.ended, news.error = True, error

    def _translate(self) -> None:
        manifest = self._manifest()
        engine = worker.pinned(manifest, self._job, self._options.wishes)
        relay = _Relay(self._telling, lambda: self._at_once)
        for line in engine.reasons:
            relay.say(line)
        with _claimed(manifest.id) as folder, contextlib.ExitStack() as stack:
            pool = Pool(engine.plan, folder / "engine.log", relay.say)
            stack.callback(pool.close)
            engine = replace(engine, reasons=(), running=pool)
            work = folder / WORK
            with self._telling() as news:
                news.ready, news.kept = True, [int(path.stem) for path in work.glob("*.koen")]
            while (first := self._next(None)) is not None:
                shards = chain([first], iter(lambda: self._next(NEXT_SECONDS), None))
                summary = worker.run(
                    self._job,
                    shards,
                    self._options,
                    work=work,
                    engine=engine,
                    on_commit=self._committed,
                    progress=relay,
                )
                with self._telling() as news:
                    news.summaries.append(summary)

    def _manifest(self) -> Manifest:
        storage = Storage(self._job)
        if storage.read(MANIFEST) is None:
            raise UsageError(
                f"{self._job}: not seen from a node of the cluster: -o must be on a file system that all nodes share, "
                "or a URL"
            )
        manifest = Manifest.load(storage)
        if manifest.id != self._id:
            raise UsageError(
                f"{self._job}: another job's on a node of the cluster: is that folder the same everywhere?"
            )
        return manifest

    def _next(self, seconds: float | None) -> int | None:
        """The next shard that was given; None where none came in time, or the worker is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._given or self._stopping, seconds)
            if self._stopping or not self._given:
                return None
            shard = self._given.popleft()
            self._news.begun.append(shard)
            self._changed.notify_all()
            return shard

    def _committed(self, marker: Marker) -> None:
        with self._telling() as news:
            news.committed.append(marker)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[News]:
        with self._changed:
            yield self._news
            self._changed.notify_all()


class _Relay(Progress):
    """Takes what a session shows to the driver, and the driver's wish to stop to the session."""

    def __init__(
        self, telling: Callable[[], contextlib.AbstractContextManager[News]], stopped: Callable[[], bool]
    ) -> None:
        super().__init__(quiet=True)
        self._telling = telling
        self._stopped = stopped
        self._told = 0.0

    def say(self, line: str) -> None:
        with self._telling() as news:
            news.lines.append(line)

    def update(self, facts: Callable[[], Facts]) -> None:
        if self._stopped():
            raise Interrupted(signal.SIGTERM)
        if time.monotonic() - self._told >= NEWS_SECONDS:
            self._told = time.monotonic()
            with self._telling() as news:
                news.facts = facts()


@contextlib.contextmanager
def _claimed(id: str) -> Iterator[Path]:
    """A folder on this machine that no other actor uses: what an actor before has left there, a later one resumes.

    It goes at the end, unless there was an error, of which the engine's log there may tell, or work is left.
    """
    for number in count():
        folder = private_folder(id, f"ray-{number}")
        with contextlib.suppress(UsageError):
            lock = Lock(folder)
            break
    try:
        yield folder
        if not (folder / WORK).exists():
            shutil.rmtree(folder)
    finally:
        lock.release()
