"""What lives in an actor, without Ray: it is given shards, and asked for news."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import small_corpus

from koen_batch.config import JobConfig
from koen_batch.engines.start import Wishes, identity
from koen_batch.errors import UsageError
from koen_batch.languages import Direction
from koen_batch.session import RunOptions
from koen_batch.shards import cutting, worker
from koen_batch.shards.manifest import Manifest
from koen_batch.shards.ray_worker import News, Worker
from koen_batch.shards.storage import Storage, private_folder

OPTIONS = RunOptions(quiet=True, wishes=Wishes(engine="echo"))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Six shards; what is under way lies in a folder of the test's own."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = JobConfig(direction=Direction.to("ko"))
    corpus = small_corpus.make(tmp_path).path
    model = identity(config.direction, Wishes(engine="echo"))
    cutting.run([str(corpus)], str(tmp_path / "job"), config, model, rows_per_shard=5, restart=False)
    return str(tmp_path / "job")


def heard(actor: Worker, until: Any) -> News:
    """All news until something is among them."""
    deadline = time.monotonic() + 60
    everything = News()
    while not until(everything):
        assert time.monotonic() < deadline, everything
        news = actor.news()
        for name in ("kept", "begun", "committed", "lines", "summaries"):
            getattr(everything, name).extend(getattr(news, name))
        everything.ready |= news.ready
        everything.ended |= news.ended
        everything.error = news.error or everything.error
    return everything


def test_it_commits_what_it_is_given_with_one_engine_and_ends_when_told(job: str) -> None:
    manifest = Manifest.load(Storage(job))
    actor = Worker(job, manifest.id, OPTIONS)
    for shard in (3, 1):
        actor.give(shard)
    first = heard(actor, lambda news: news.summaries)
    assert (first.ready, first.begun, sorted(marker.shard for marker in first.committed)) == (True, [3, 1], [1, 3])
    actor.give(5)
    again = heard(actor, lambda news: news.summaries)
    assert ([marker.shard for marker in again.committed], again.summaries[0].records_read) == ([5], 1)
    actor.stop(at_once=False)
    last = heard(actor, lambda news: news.ended)
    assert last.error is None
    assert not list(private_folder(manifest.id).iterdir()), "nothing is left on the machine"


def test_a_shard_that_another_worker_has_committed_meanwhile_is_told_as_committed(job: str, tmp_path: Path) -> None:
    """Else the driver would wait for it for ever."""
    manifest = Manifest.load(Storage(job))
    worker.run(job, [2], OPTIONS, work=tmp_path / "other")
    actor = Worker(job, manifest.id, OPTIONS)
    actor.give(2)
    news = heard(actor, lambda news: news.summaries)
    assert [marker.shard for marker in news.committed] == [2]
    assert news.summaries[0].segments_sent == 0
    actor.stop(at_once=False)
    heard(actor, lambda news: news.ended)


def test_a_node_that_does_not_see_the_job_says_so(job: str, tmp_path: Path) -> None:
    actor = Worker(str(tmp_path / "elsewhere"), "0" * 16, OPTIONS)
    error = heard(actor, lambda news: news.ended).error
    assert isinstance(error, UsageError)
    assert "must be on a file system that all nodes share" in str(error)


def test_two_workers_of_one_machine_use_two_folders_and_leftovers_are_told(job: str) -> None:
    manifest = Manifest.load(Storage(job))
    (private_folder(manifest.id, "ray-0", "work") / "000004.koen").mkdir()
    actors = [Worker(job, manifest.id, OPTIONS) for _ in range(2)]
    ready = [heard(actor, lambda news: news.ready) for actor in actors]
    assert sorted(news.kept for news in ready) == [[], [4]]
    for actor in actors:
        actor.stop(at_once=True)
        heard(actor, lambda news: news.ended)
