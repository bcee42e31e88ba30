"""The workers of a job on Ray, and what becomes of its shards: who has which, who was lost, what was given up."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from koen_batch import report
from koen_batch.counts import Clock
from koen_batch.errors import StoppedError, UsageError
from koen_batch.eventlog import EventLog
from koen_batch.output import Tally
from koen_batch.pipeline import Interrupted
from koen_batch.progress import Progress
from koen_batch.session import RunOptions
from koen_batch.shards.commits import Marker
from koen_batch.shards.manifest import Manifest
from koen_batch.shards.ray_worker import Facts, News, Worker

DEATHS = 3
"""A shard that was being translated when this many workers were lost is given up."""

FRUITLESS = 5
"""Workers lost one after the other without a commit in between, beyond one of each place, after which the job stops."""

GOODBYE_SECONDS = 15
"""How long workers may take to end when they are told to."""

PATIENCE_SECONDS = 30
"""After this long without a worker, the user is told what is being waited for."""


@dataclass(frozen=True)
class Placement:
    """How many workers there are to be, and what Ray is asked for each of them."""

    workers: int
    num_cpus: int
    num_gpus: int

    def __str__(self) -> str:
        return f"{self.num_gpus} GPU(s)" if self.num_gpus else f"{self.num_cpus} CPU(s)"


def place(nodes: Sequence[Mapping[str, float]], *, gpus: bool, ranks: int, wanted: int | None) -> Placement:
    """A worker for each GPU (for ``ranks`` of them on one node, with tensor parallelism). Where there is none, or where
    none is needed (``gpus``), a worker for all CPUs of the smallest node, and as many of that size on the others.

    ``nodes`` are the resources of each node, ``wanted`` a number of workers that was asked for: without GPUs they share
    the CPUs, and on a cluster that grows on demand there may be more of them than now have a place.

    Raises UsageError where there is no place for a worker at all.
    """
    if gpus and any(node.get("GPU", 0) >= 1 for node in nodes):
        places = sum(int(node.get("GPU", 0)) // ranks for node in nodes)
        if not places and not wanted:
            raise UsageError(f"--tensor-parallel {ranks}: no node of the cluster has that many GPUs")
        return Placement(wanted or places, 1, ranks)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise UsageError("--ray: the cluster has neither GPUs nor CPUs to work with; add nodes")
    fitting = (share for share in range(max(cpus), 1, -1) if sum(cpu // share for cpu in cpus) >= (wanted or 0))
    share = min(cpus) if wanted is None else next(fitting, 1)
    return Placement(wanted or sum(cpu // share for cpu in cpus), share, 0)


@dataclass(eq=False)
class _Member:
    """A worker, as far as the driver knows."""

    number: int
    actor: Any
    ready: bool = False
    kept: list[int] = field(default_factory=list)
    given: set[int] = field(default_factory=set)
    """Shards that it has and has not begun to read."""
    begun: set[int] = field(default_factory=set)
    facts: Facts = (0, 0, 0.0, 0)
    committed: int = 0
    """Records that it has committed of those in ``facts``."""


class Crew:
    """Translates the shards ``todo`` of a job; ``done`` are the records that are committed already."""

    def __init__(
        self,
        ray: Any,
        job: str,
        manifest: Manifest,
        *,
        todo: Sequence[int],
        done: Tally,
        options: RunOptions,
        progress: Progress,
        log: EventLog,
    ) -> None:
        self._ray = ray
        self._manifest = manifest
        self._progress = progress
        self._log = log
        self._todo = deque(todo)
        """Shards that no worker has."""
        self._open = set(todo)
        """Shards that are neither committed nor given up."""
        self._done = done
        self._deaths: dict[int, int] = {}
        self._given_up: dict[int, str] = {}
        self._fruitless = 0
        self._hired = 0
        self._asked: dict[Any, _Member] = {}
        """By the news that it was asked for."""
        self._said: set[str] = set()
        self._clock = Clock()
        self._summaries: list[report.Summary] = []
        wishes = options.wishes
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.placement = place(
            nodes,
            gpus=manifest.model.name != "echo",
            ranks=wishes.tensor_parallel or 1,
            wanted=wishes.replicas,
        )
        resources = {"num_cpus": self.placement.num_cpus, "num_gpus": self.placement.num_gpus}
        self._kind = ray.remote(max_concurrency=2, **resources)(Worker)
        self._terms = job, manifest.id, RunOptions(quiet=True, wishes=replace(wishes, replicas=None))

    def run(self, signals: Sequence[int]) -> None:
        """Until every shard is committed.

        Raises StoppedError where shards or all workers were given up, UsageError where a worker finds that the job
        cannot be done so, and Interrupted on a signal.
        """
        rows = sum(shard.rows for shard in self._manifest.shards)
        self._progress.say(f"{self.placement.workers} worker(s) with {self.placement} each, {len(self._open)} shards")
        self._progress.start(lambda: rows, self._done.read)
        begin = time.monotonic()
        try:
            while self._open:
                if signals:
                    raise Interrupted(signals[0])
                self._hire()
                self._listen(1.0)
                self._feed()
                self._progress.update(self._facts)
                if time.monotonic() - begin > PATIENCE_SECONDS and not any(m.ready for m in self._asked.values()):
                    self._say_once(f"no worker is ready: waiting for {self.placement} on a node, or for its model")
        except Interrupted:
            self._dismiss(at_once=True)
            raise
        except BaseException:
            self._dismiss(at_once=True, patience=0.0)
            raise
        self._dismiss(at_once=False)
        if self._given_up:
            raise StoppedError(
                f"{len(self._given_up)} shard(s) given up, each after {DEATHS} workers were lost over it: "
                + "; ".join(f"{self._describe(shard)}: {why}" for shard, why in list(self._given_up.items())[:3])
                + "; all others are committed, and the same command tries again"
            )

    def count(self, summary: report.Summary) -> None:
        """Add what the workers did in this run to the ``summary`` of the outputs."""
        for one in self._summaries:
            summary.engine = one.engine
            summary.segments_unique += one.segments_unique
            summary.segments_sent += one.segments_sent
            summary.prompt_tokens += one.prompt_tokens
            summary.output_tokens += one.output_tokens
            for name, value in one.retries.items():
                summary.retries[name] = summary.retries.get(name, 0) + value
        seconds = self._clock.seconds
        summary.output_tokens_per_second = round(summary.output_tokens / seconds, 3) if seconds else None
        summary.segments_per_second = round(summary.segments_sent / seconds, 3) if seconds else None
        rate = self._clock.steady_rate
        summary.steady_segments_per_second = None if rate is None else round(rate, 3)

    # --- workers ---------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """As many workers as there are places, and no more than there are shards left."""
        while self._todo and len(self._asked) < min(self.placement.workers, len(self._open)):
            member = _Member(self._hired, self._kind.remote(*self._terms))
            self._hired += 1
            self._ask(member)

    def _ask(self, member: _Member) -> Any:
        answer = member.actor.news.remote()
        self._asked[answer] = member
        return answer

    def _listen(self, seconds: float) -> None:
        """Hear all workers that have something to tell; wait that long for the first."""
        ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for answer in {*ready, *more}:
            member = self._asked.pop(answer)
            try:
                news = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                self._lost(member, str(error))
            else:
                self._hear(member, news)

    def _hear(self, member: _Member, news: News) -> None:
        for line in news.lines:
            self._say_once(line)
        member.ready = member.ready or news.ready
        member.kept += news.kept
        member.given.difference_update(news.begun)
        member.begun.update(news.begun)
        for marker in news.committed:
            self._commit(member, marker)
        if news.facts:
            member.facts = news.facts
        if news.summaries:
            self._summaries += news.summaries
            member.facts, member.committed = (0, 0, 0.0, 0), 0
        if isinstance(news.error, UsageError):
            raise news.error
        if news.ended:
            self._lost(member, str(news.error or "it ended"))
        else:
            self._ask(member)

    def _commit(self, member: _Member, marker: Marker) -> None:
        member.begun.discard(marker.shard)
        member.committed += marker.tally.read
        self._fruitless = 0
        if marker.shard in self._open:
            self._open.remove(marker.shard)
            self._done.add(marker.tally)
            self._clock.note(marker.tally.segments)
            self._log.write("shard", number=marker.shard, machine=marker.machine, worker=member.number)

    def _lost(self, member: _Member, why: str) -> None:
        """Its shards go to others, but not for ever."""
        with contextlib.suppress(Exception):
            self._ray.kill(member.actor)
        why = (why.strip() or "no reason given").splitlines()[0]
        back = [shard for shard in sorted(member.begun | member.given, reverse=True) if shard in self._open]
        for shard in back:
            self._deaths[shard] = self._deaths.get(shard, 0) + (shard in member.begun)
            if self._deaths[shard] >= DEATHS:
                self._given_up[shard] = why
                self._open.remove(shard)
            elif shard not in self._todo:
                self._todo.appendleft(shard)
        self._log.write("worker lost", worker=member.number, reason=why, shards=back)
        self._progress.say(f"worker {member.number} is lost ({why}); {len(back)} shard(s) go to others")
        self._fruitless += 1
        if self._fruitless > FRUITLESS + self.placement.workers:
            raise StoppedError(
                f"{self._fruitless} workers were lost without one shard: {why}; the same command resumes"
            )

    def _dismiss(self, *, at_once: bool, patience: float = GOODBYE_SECONDS) -> None:
        """End all workers. What they tell meanwhile still counts."""
        deadline = time.monotonic() + patience
        members = list(self._asked.values())
        for member in members:
            if member.ready:
                member.actor.stop.remote(at_once=at_once)
        waiting = {answer for answer, member in self._asked.items() if member.ready}
        while waiting and time.monotonic() < deadline:
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=1.0)
            for answer in ready:
                waiting.remove(answer)
                member = self._asked.pop(answer)
                with contextlib.suppress(self._ray.exceptions.RayError):
                    news = self._ray.get(answer)
                    self._summaries += news.summaries
                    for marker in news.committed:
                        self._commit(member, marker)
                    if not news.ended:
                        waiting.add(self._ask(member))
        for member in members:
            with contextlib.suppress(Exception):
                self._ray.kill(member.actor)

    # --- shards ----------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Each worker has one shard ahead of those that it reads."""
        for member in self._asked.values():
            if member.ready and not member.given and self._todo:
                shard = next((shard for shard in member.kept if shard in self._todo), self._todo[0])
                self._todo.remove(shard)
                member.given.add(shard)
                member.actor.give.remote(shard)

    def _describe(self, shard: int) -> str:
        one = self._manifest.shards[shard]
        return f"{shard} ({self._manifest.sources[one.file].name}, rows {one.start.row} to {one.end.row - 1})"

    # --- what the user sees ----------------------------------------------------------------------------------

    def _say_once(self, line: str) -> None:
        """What every worker says is said once."""
        if line not in self._said:
            self._said.add(line)
            self._progress.say(line)

    def _facts(self) -> Facts:
        members = self._asked.values()
        under_way = sum(max(0, member.facts[0] - member.committed) for member in members)
        segments = sum(one.segments_sent for one in self._summaries) + sum(member.facts[1] for member in members)
        rate = sum(member.facts[2] for member in members)
        return self._done.read + under_way, segments, rate, self._done.flagged + self._done.rejected
