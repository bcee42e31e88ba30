"""What becomes of shards whose workers die, without a cluster: a class in Ray's place whose actors do as they are told.

The same with a real cluster, where a node is killed: test_ray.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_corpus

from koen_batch.config import JobConfig
from koen_batch.engines.start import Wishes, identity
from koen_batch.errors import StoppedError, UsageError
from koen_batch.eventlog import EventLog
from koen_batch.languages import Direction
from koen_batch.output import Tally
from koen_batch.progress import Progress
from koen_batch.session import RunOptions
from koen_batch.shards import cutting
from koen_batch.shards.commits import Marker
from koen_batch.shards.manifest import Manifest
from koen_batch.shards.ray_crew import DEATHS, FRUITLESS, Crew
from koen_batch.shards.ray_worker import News
from koen_batch.shards.storage import Storage

Behaviour = Callable[[int, int], News]
"""From the number of the worker and that of the shard it begins to what it tells."""


class Died(Exception):
    """In the place of Ray's errors."""


class Actor:
    """Tells in one answer that it begins with a shard, and in the next what has become of it."""

    def __init__(self, number: int, behaviour: Behaviour) -> None:
        self.news, self.give, self.stop = (
            SimpleNamespace(remote=method) for method in (self._news, self._give, self._stop)
        )
        self._number = number
        self._behaviour = behaviour
        self._given: list[int] = []
        self._begun: int | None = None
        self._ready = self._ended = False

    def answer(self) -> News:
        if not self._ready:
            self._ready = True
            return News(ready=True)
        if self._begun is not None:
            shard, self._begun = self._begun, None
            return self._behaviour(self._number, shard)
        if self._given:
            self._begun = self._given.pop(0)
            return News(begun=[self._begun])
        return News(ended=self._ended)

    def _news(self) -> Any:
        return Answer(self)

    def _give(self, shard: int) -> None:
        self._given.append(shard)

    def _stop(self, *, at_once: bool) -> None:
        self._ended = True


@dataclass(eq=False)
class Answer:
    actor: Actor


class Ray:
    """Two places for workers."""

    exceptions = SimpleNamespace(RayError=Died)

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.hired = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}] * 2 + [{"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, **resources: float) -> Callable[[type], Any]:
        return lambda worker: SimpleNamespace(remote=self._hire)

    def _hire(self, *terms: object) -> Actor:
        self.hired += 1
        return Actor(self.hired - 1, self.behaviour)

    def wait(self, answers: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return answers[:num_returns], answers[num_returns:]

    def get(self, answer: Answer) -> News:
        return answer.actor.answer()

    def kill(self, actor: Actor) -> None:
        pass


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A job of six shards."""
    config = JobConfig(direction=Direction.to("ko"))
    corpus = small_corpus.make(tmp_path).path
    model = identity(config.direction, Wishes(engine="echo"))
    job = str(tmp_path / "job")
    cutting.run([str(corpus)], job, config, model, rows_per_shard=5, restart=False)
    return Manifest.load(Storage(job))


def commit(manifest: Manifest, shard: int) -> News:
    tally = Tally(read=manifest.shards[shard].rows, written=manifest.shards[shard].rows)
    return News(committed=[Marker(manifest.id, shard, [({"tally": tally.facts(), "next": [0, 0]}, {})], 0.0, "here")])


def crew_of(ray: Ray, manifest: Manifest) -> Crew:
    return Crew(
        ray,
        "job",
        manifest,
        todo=range(len(manifest.shards)),
        done=Tally(),
        options=RunOptions(wishes=Wishes(engine="echo")),
        progress=Progress(quiet=True),
        log=EventLog(None),
    )


def test_a_shard_that_kills_its_workers_is_given_up_and_all_others_are_made(manifest: Manifest) -> None:
    begun: list[int] = []

    def behaviour(worker: int, shard: int) -> News:
        begun.append(shard)
        if shard == 2:
            raise Died("The actor died: its node was killed\nand more")
        return commit(manifest, shard)

    crew = crew_of(Ray(behaviour), manifest)
    with pytest.raises(StoppedError, match="given up") as stop:
        crew.run([])
    assert begun.count(2) == DEATHS
    assert sorted(set(begun)) == list(range(6))
    assert "2 (" in str(stop.value) and "rows 10 to 14): The actor died: its node was killed" in str(stop.value)
    assert "\n" not in str(stop.value)


def test_workers_that_always_die_are_not_hired_for_ever(manifest: Manifest) -> None:
    def behaviour(worker: int, shard: int) -> News:
        raise Died("no such device")

    ray = Ray(behaviour)
    with pytest.raises(StoppedError, match="workers were lost without one shard: no such device"):
        crew_of(ray, manifest).run([])
    assert ray.hired <= FRUITLESS + 5


def test_a_worker_that_cannot_go_on_hands_its_shards_to_another(manifest: Manifest) -> None:
    committed: set[int] = set()

    def behaviour(worker: int, shard: int) -> News:
        if worker == 0:
            return News(ended=True, error=StoppedError("No space left on device"))
        committed.add(shard)
        return commit(manifest, shard)

    ray = Ray(behaviour)
    crew_of(ray, manifest).run([])
    assert committed == set(range(6))
    assert ray.hired >= 2


def test_what_no_worker_could_do_ends_the_job_at_once(manifest: Manifest) -> None:
    def behaviour(worker: int, shard: int) -> News:
        return News(ended=True, error=UsageError("job: not seen from a node of the cluster"))

    ray = Ray(behaviour)
    with pytest.raises(UsageError, match="not seen from a node"):
        crew_of(ray, manifest).run([])
    assert ray.hired <= 2
