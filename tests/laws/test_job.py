"""A job over random rows that is killed, stopped and robbed of its engine at random, and then goes on.

After every step: what is committed is a prefix of what must come out, read = written + rejected, and no committed
segment is asked for again. In the end: every row once, in order.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from koen_batch import failpoints, job, session
from koen_batch.config import JobConfig
from koen_batch.engines.base import Completion, Request
from koen_batch.engines.echo import MARK
from koen_batch.engines.pool import PoolPlan, ReplicaDied
from koen_batch.engines.start import Wishes
from koen_batch.languages import Direction
from koen_batch.pipeline import Interrupted
from koen_batch.session import RunOptions

DEADLY = "This one is deadly."
TEXTS = ["One is here.", "Two is here.", "Three is here.", "Four is here. Five is here.", "Two is here.", DEADLY]
ROWS = {
    **{f"text {n}": json.dumps({"text": text}).encode() for n, text in enumerate(TEXTS)},
    "null": b'{"text": null}',
    "number": b'{"text": "42"}',
    "blank": b"",
    "cut off": b'{"text": "One',
    "missing": b'{"other": 1}',
    "not UTF-8": b'{"text": "\xff"}',
}
REASONS = {"cut off": "truncated_json", "missing": "missing_field", "not UTF-8": "invalid_utf8"}


class Killed(BaseException):
    """Stands for SIGKILL (real ones: tests/crash): nothing catches it but the test."""


class Faults:
    """When to die, counted in polls and steps, and what the engine has been asked."""

    def __init__(self, kill_at: int = 0, stop_at: int = 0, deaths: frozenset[int] = frozenset()) -> None:
        self.kill_at, self.stop_at, self.deaths = kill_at, stop_at, deaths
        self.asked: list[str] = []
        self.died_alone: Counter[str] = Counter()
        self._steps = 0

    def step(self, _: str) -> None:
        self._steps += 1
        if self._steps == self.kill_at:
            raise Killed


class InProcessPool:
    """The pool's protocol over one replica that echoes, answers out of order, and dies when it is told to."""

    engine = "echo"

    ready = False

    def __init__(self, faults: Faults, window: int, at_once: int) -> None:
        self.capacity = 2 * window
        self._faults, self._window, self._at_once = faults, window, at_once
        self._ids = itertools.count()
        self._queue: deque[Request] = deque()
        self._flight: list[Request] = []
        self._polls = 0

    def start(self) -> None:
        pass

    def new_id(self) -> int:
        return next(self._ids)

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def cancel(self, ids: Sequence[int]) -> None:
        self._queue = deque(request for request in self._queue if request.id not in ids)
        self._flight = [request for request in self._flight if request.id not in ids]

    def poll(self) -> list[Completion]:
        self._polls += 1
        if self._polls == self._faults.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        while self._queue and len(self._flight) < self._window:
            self._flight.append(self._queue.popleft())
            self._faults.asked.append(text_of(self._flight[-1]))
        if self._polls in self._faults.deaths or any(text_of(request) == DEADLY for request in self._flight):
            lost, self._flight = self._flight, []
            if len(lost) == 1:
                self._faults.died_alone[text_of(lost[0])] += 1
            raise ReplicaDied(lost, "told to")
        done = [self._flight.pop() for _ in range(min(self._at_once, len(self._flight)))]  # the last comes first
        return [Completion(r.id, [*map(ord, MARK), *r.tokens], "stop", logprob=0.0) for r in done]

    def close(self) -> None:
        pass


def text_of(request: Request) -> str:
    return "".join(map(chr, request.tokens))


class Job(RuleBasedStateMachine):
    @initialize(
        rows=st.lists(st.sampled_from(list(ROWS)), max_size=25),
        part_size=st.integers(1, 7),
        window=st.integers(1, 5),
        at_once=st.integers(1, 5),
        last_newline=st.booleans(),
    )
    def begin(self, rows: list[str], part_size: int, window: int, at_once: int, last_newline: bool) -> None:
        # The first row has the field: without one the file would be refused.
        self.rows = ["text 0", *rows]
        self.part_size, self.window, self.at_once = part_size, window, at_once
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "in.jsonl"
        data = b"\n".join(ROWS[row] for row in self.rows) + (b"\n" if last_newline else b"")
        self.path.write_bytes(data)
        self.working = self.path.with_name("in.ko.jsonl.koen")
        self.died_alone: Counter[str] = Counter()

    @rule(kill_at=st.integers(1, 60))
    def killed(self, kill_at: int) -> None:
        self.run(Faults(kill_at=kill_at))

    @rule(stop_at=st.integers(1, 8))
    def stopped(self, stop_at: int) -> None:
        self.run(Faults(stop_at=stop_at))

    @rule(deaths=st.frozensets(st.integers(1, 12), max_size=4), kill_at=st.integers(0, 90))
    def robbed(self, deaths: frozenset[int], kill_at: int) -> None:
        self.run(Faults(kill_at=kill_at, deaths=deaths))

    @invariant()
    def committed_is_a_prefix(self) -> None:
        if not hasattr(self, "rows"):
            return
        parts = sorted(self.working.glob("parts/[0-9]*[0-9]"))
        facts = [json.loads((part / "part.json").read_text())["tally"] for part in parts]
        read, written, rejected = (sum(fact[name] for fact in facts) for name in ("read", "written", "rejected"))
        assert read == written + rejected
        assert read <= len([row for row in self.rows if row != "blank"])
        data = b"".join((part / "data").read_bytes() for part in parts)
        assert self.without_rejected(data.splitlines(), self.expected())[: len(data.splitlines())] == data.splitlines()

    def teardown(self) -> None:
        if not hasattr(self, "rows"):
            return
        self.run(Faults())
        output = self.path.with_name("in.ko.jsonl")
        lines = output.read_bytes().splitlines()
        rejects = self.path.with_name("in.ko.jsonl.rejects.jsonl")
        rejected = {
            fact["row"]: fact["reason"].partition(":")[0]
            for fact in map(json.loads, rejects.read_bytes().splitlines() if rejects.exists() else [])
        }
        real = [row for row in self.rows if row != "blank"]
        for number, row in enumerate(real):
            reason = rejected.get(number)
            if row in REASONS:
                assert reason == REASONS[row]
            elif row == f"text {TEXTS.index(DEADLY)}":
                assert reason == "killed_engine"
            elif reason is not None:  # it was alone in flight at two deaths that were not its fault
                assert reason == "killed_engine"
                text = json.loads(ROWS[row])["text"]
                assert any(deaths >= 2 and part in text for part, deaths in self.died_alone.items())
        kept = iter(n for n in range(len(real)) if n not in rejected)
        expected = [self.line(row) for row in self.rows if row == "blank" or row not in REASONS]
        assert self.without_rejected(lines, expected) == lines
        assert len([line for line in lines if line]) == len(list(kept))
        assert not (self.working / "parts").exists()
        self.folder.cleanup()

    # --- ----------------------------------------------------------------------------------------------------

    def run(self, faults: Faults) -> None:
        committed = self.committed()
        options = RunOptions(part_size=self.part_size, quiet=True, wishes=Wishes(engine="echo", max_num_seqs=2))
        with in_process(faults, self.window, self.at_once), contextlib.suppress(Killed, Interrupted):
            summary = job.run([str(self.path)], None, JobConfig(Direction("en", "ko")), options)
            assert summary.records_read == summary.records_written + summary.records_rejected
            assert summary.records_read == len([row for row in self.rows if row != "blank"])
        self.died_alone += faults.died_alone
        assert not committed.intersection(faults.asked), "a committed segment was sent again"

    def committed(self) -> set[str]:
        if not (self.working / "segments.sqlite").exists():
            return set()
        with contextlib.closing(sqlite3.connect(self.working / "segments.sqlite")) as store:
            try:
                return {text.removeprefix(MARK) for (text,) in store.execute("SELECT text FROM segments")}
            except sqlite3.OperationalError:  # killed before the table was made
                return set()

    def expected(self) -> list[bytes]:
        return [self.line(row) for row in self.rows if row not in REASONS]

    @staticmethod
    def line(row: str) -> bytes:
        """What must come out for a row that is not rejected."""
        if row == "blank":
            return b""
        text = json.loads(ROWS[row])["text"]
        verdict = "ok" if row.startswith("text") else "nothing_to_translate"
        translation = text
        if verdict == "ok":
            translation = ". ".join(MARK + sentence for sentence in text.split(". "))
        added = f',"translation":{json.dumps(translation, ensure_ascii=False)},"translation_verdict":"{verdict}"}}'
        return ROWS[row][:-1] + added.encode()

    @staticmethod
    def without_rejected(lines: list[bytes], expected: list[bytes]) -> list[bytes]:
        """``expected`` without those lines, killed ones, that ``lines`` leaves out; order is kept."""
        out: list[bytes] = []
        at = 0
        for line in expected:
            if at < len(lines) and lines[at] == line:
                out.append(line)
                at += 1
        return out


@contextlib.contextmanager
def in_process(faults: Faults, window: int, at_once: int) -> Iterator[None]:
    def pool(plan: PoolPlan, log: Path, say: Callable[[str], None], **_: Any) -> InProcessPool:
        return InProcessPool(faults, window, at_once)

    with (
        mock.patch.object(session, "Pool", pool),
        mock.patch.object(failpoints, "_active", bool(faults.kill_at)),
        mock.patch.object(failpoints, "_reach", faults.step),
    ):
        yield


TestJob = Job.TestCase
TestJob.settings = settings(max_examples=40, stateful_step_count=5, deadline=None)
