"""The scheduler over engines whose answers are bad, late, out of order, or die with their process."""

from __future__ import annotations

import hashlib
import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koen_batch import prompts
from koen_batch.asking import Asking
from koen_batch.engines.base import Completion, Request
from koen_batch.engines.pool import ReplicaDied
from koen_batch.eventlog import EventLog
from koen_batch.ladder import MOST_RETRIES
from koen_batch.languages import Direction
from koen_batch.scheduler import IDLE, STRAGGLING, Policy, Scheduler
from koen_batch.stages import Stages
from koen_batch.store import Segment, Store
from koen_batch.tokenization import CodePoints

SEQUENTIAL = IDLE - 1
"""A window in which nothing is asked ahead."""
ROOMY = 20 * IDLE
CLIMBING = Policy()

SOURCES = [
    "The first train leaves at 7:15, and the last one, as everybody here knows, at midnight.",
    "Nobody came. The doors were closed at nine, and the lights went out a little later.",
    "Open {file} and press Enter; then wait until the window is closed again by itself.",
    "It rains.",
    "She was born in 1912 in a small town by the sea, where her father had a shop.",
]


class Whimsical:
    """The pool's protocol over an engine of which most answers fail a check. An answer follows from prompt and decoding
    alone; the order of answers, and deaths, from ``seed``."""

    def __init__(
        self, capacity: int, seed: int = 0, deaths: Sequence[int] = (), most: int = 1_000, late: str = ""
    ) -> None:
        self.capacity = capacity
        self.asked: list[Request] = []
        self.cancelled: set[int] = set()
        self.doubled: list[int] = []
        """Places in ``asked`` of what was asked while the same was in flight."""
        self.overtaking: list[int] = []
        """Of these, what was asked again before the first answer had come."""
        self._draw = random.Random(seed)
        self._ids = itertools.count(seed)
        self._deaths = set(deaths)
        self._flight: list[Request] = []
        self._most = most
        self._late = list(map(ord, late))
        """The prompt whose first answer is the last."""
        self._polls = 0

    def new_id(self) -> int:
        return next(self._ids)

    def submit(self, request: Request) -> None:
        assert request.id not in {other.id for other in self.asked}
        if any(other.tokens == request.tokens for other in self._flight):
            self.doubled.append(len(self.asked))
        if any(other.tokens == request.tokens and greedy(other) for other in self._flight):
            self.overtaking.append(len(self.asked))
        self.asked.append(request)
        self._flight.append(request)

    def cancel(self, ids: Sequence[int]) -> None:
        self.cancelled.update(ids)
        self._flight = [request for request in self._flight if request.id not in ids]

    def poll(self) -> list[Completion]:
        self._polls += 1
        if self._polls in self._deaths:  # one of two replicas, of which the other one answers
            self._draw.shuffle(self._flight)
            half = len(self._flight) // 2
            lost, self._flight = self._flight[half:], self._flight[:half]
            raise ReplicaDied(lost, "told to")
        self._draw.shuffle(self._flight)
        self._flight.sort(key=lambda request: request.tokens != self._late or not greedy(request))
        done = [self._flight.pop() for _ in range(min(self._most, len(self._flight)))]
        return [whim(request) for request in done]


def greedy(request: Request) -> bool:
    return request.decoding.temperature == 0 and request.decoding.repetition_penalty == 1


def whim(request: Request) -> Completion:
    source = "".join(map(chr, request.tokens))
    digest = hashlib.sha256(f"{source}{request.decoding.temperature}{request.decoding.repetition_penalty}".encode())
    kind = digest.digest()[0] % 6
    answers = [
        "",
        source,
        "그 사람은 " * 20,
        "역에 왔다.",
        "The same in another way, and longer.",
        "한국어 번역이다. " + source,
    ]
    reason = "length" if kind == 2 else "stop"
    return Completion(request.id, list(map(ord, answers[kind])), reason, logprob=-0.1 - digest.digest()[1] / 100)


class Slot:
    def __init__(self) -> None:
        self.got: list[Segment] = []

    def fill(self, segment: Segment) -> None:
        self.got.append(segment)


def translated(pool: Any, sources: Sequence[str], policy: Policy = CLIMBING) -> tuple[list[Segment], Scheduler]:
    """What each source came to, each exactly once."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "segments.sqlite")
        scheduler = Scheduler(
            pool=pool,
            asking=Asking(prompts.family("plain"), CodePoints(), Direction("en", "ko"), 4096),
            store=store,
            memory=None,
            policy=policy,
            answer=b"answer",
            model="whimsical",
            stages=Stages(),
            log=EventLog(None),
        )
        slots = [Slot() for _ in sources]
        scheduler.want(list(zip(sources, slots, strict=True)))
        scheduler.nothing_follows()
        turns = 0
        while scheduler.busy:
            scheduler.turn()
            turns += 1
            assert turns < 10_000
        assert not store._in_flight
        store.close()
    assert all(len(slot.got) == 1 for slot in slots)
    return [slot.got[0] for slot in slots], scheduler


sources = st.lists(st.builds("{} {}".format, st.sampled_from(SOURCES), st.integers(0, 99)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(sources, st.integers(0, 99), st.integers(1, 9))
def test_asking_ahead_changes_no_verdict(texts: list[str], seed: int, at_once: int) -> None:
    """One after the other, or all that may be needed at once and in any order: the same answers by the same steps."""
    expected, _ = translated(Whimsical(SEQUENTIAL), texts)
    ahead = Whimsical(ROOMY, seed, most=at_once)
    segments, scheduler = translated(ahead, texts)
    assert segments == expected
    assert not scheduler._requests


@settings(max_examples=60, deadline=None)
@given(sources, st.integers(0, 99), st.integers(1, 9), st.frozensets(st.integers(1, 20), max_size=1))
def test_a_death_while_asking_ahead_changes_no_verdict(
    texts: list[str], seed: int, at_once: int, deaths: frozenset[int]
) -> None:
    expected, _ = translated(Whimsical(SEQUENTIAL), texts)
    segments, _ = translated(Whimsical(ROOMY, seed, sorted(deaths), at_once), texts)
    assert segments == expected


def test_what_may_be_needed_is_asked_at_once_and_cancelled_when_it_is_not() -> None:
    ahead, alone = Whimsical(ROOMY, most=1), Whimsical(SEQUENTIAL, most=1)
    texts = [f"{source} {number}" for source in SOURCES for number in range(4)]
    _, scheduler = translated(ahead, texts)
    _, sequential = translated(alone, texts)
    assert len(ahead.asked) > len(alone.asked)
    assert ahead.cancelled and not alone.cancelled
    assert scheduler.counts.cancelled_requests == len(ahead.cancelled) and not sequential.counts.cancelled_requests
    assert scheduler.counts.requests == len(ahead.asked)
    assert sequential.counts.retry_requests < scheduler.counts.retry_requests
    assert max(len(segment.steps.split(",")) for segment in translated(alone, ["It rains."])[0]) <= MOST_RETRIES + 1


def test_nothing_is_asked_ahead_where_new_segments_wait() -> None:
    pool = Whimsical(ROOMY, most=5)
    texts = [f"It rains in {number} towns." for number in range(2 * ROOMY)]
    translated(pool, texts)
    first = {tuple(request.tokens): place for place, request in reversed([*enumerate(pool.asked)])}
    last_new = max(first[tuple(map(ord, text))] for text in texts)
    assert pool.doubled and min(pool.doubled) > last_new


def test_the_last_are_asked_again_before_they_have_answered() -> None:
    texts = [f"It rains in {number} towns." for number in range(5 * STRAGGLING)]
    pool = Whimsical(ROOMY, most=1, late=texts[0])
    segments, scheduler = translated(pool, texts)
    assert pool.overtaking and min(pool.overtaking) >= len(texts)
    assert scheduler.counts.sent == len(texts)
    assert scheduler.counts.retry_requests == len(pool.asked) - len(texts)
    assert segments == translated(Whimsical(SEQUENTIAL), texts)[0]


@pytest.mark.parametrize("policy", [Policy(ladder=False), Policy(accept_all=True)])
def test_nothing_is_asked_ahead_that_cannot_be_needed(policy: Policy) -> None:
    pool = Whimsical(ROOMY, most=1)
    translated(pool, [f"It rains in {number} towns." for number in range(5 * STRAGGLING)], policy)
    assert len(pool.asked) == 5 * STRAGGLING


def test_what_is_too_long_and_has_no_letter_comes_back_as_it_is() -> None:
    pool = Whimsical(ROOMY)
    [segment], _ = translated(pool, ["1234 " * 1000])
    assert segment.text == "1234 " * 1000
    assert not pool.asked
