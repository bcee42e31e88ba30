"""The trace of a run: bounded, in order, nothing lost, and true at every moment."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from koen_batch.engines.base import Completion
from koen_batch.reporting import trace as traces
from koen_batch.reporting.trace import CELLS, FIRST_WIDTH, LONGEST, SAMPLES_OF_EACH, Trace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(tokens: int) -> Completion:
    return Completion(0, [1] * tokens, "stop")


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 4000).map(lambda n: n * FIRST_WIDTH / 4),
        st.sampled_from(("sent", "received", "finished", "committed")),
        st.integers(0, 9),
    ),
    max_size=60,
)


@given(EVENTS)
def test_cells_are_bounded_lose_nothing_and_hold_what_was_in_flight(events: list[tuple[float, str, int]]) -> None:
    clock = Clock()
    trace = Trace(clock)
    changes = [(0.0, 0)]
    counted: Counter[str] = Counter()
    for wait, kind, number in events:
        clock.now += wait
        if kind == "sent":
            trace.sent(number, 9)
        elif kind == "received":
            trace.received(number, [answer(number), answer(1)], clock.now / 8)
            counted["tokens"] += number + 1
        elif kind == "finished":
            trace.finished([(number, 2 * number)] * number)
            counted["segments"] += number
        else:
            trace.committed()
            counted["parts"] += 1
        if kind in ("sent", "received"):
            changes.append((clock.now - 1000, number))
    for points in (CELLS, 24, 1):
        course = trace.course(points)
        assert len(course.cells) <= points
        assert course.width in (FIRST_WIDTH * 2**n for n in range(20))
        assert sum(cell.tokens for cell in course.cells) == counted["tokens"]
        assert sum(cell.segments for cell in course.cells) == counted["segments"]
        assert sum(cell.parts for cell in course.cells) == counted["parts"]
        assert sum(cell.idle for cell in course.cells) == trace.idle
        held: dict[int, set[int]] = {}
        for (begin, in_flight), (end, _) in itertools.pairwise([*changes, (clock.now - 1000, 0)]):
            for index in range(int(begin / course.width), int(end / course.width) + 1):
                held.setdefault(index, set()).add(in_flight)
        for index, cell in enumerate(course.cells):
            assert (cell.least, cell.most) == (min(held[index]), max(held[index]))


def test_the_window_knows_the_least_between_full_and_full() -> None:
    clock = Clock()
    trace = Trace(clock)
    for kind, number in (
        ("sent", 3), ("sent", 8), ("received", 5), ("sent", 8), ("received", 2), ("sent", 4), ("received", 1),
    ):  # fmt: skip
        clock.now += 1
        if kind == "sent":
            trace.sent(number, 8)
        else:
            trace.received(number, [answer(1)], 0.0)
    assert (trace.window.first, trace.window.last, trace.window.least) == (2.0, 4.0, 5)
    assert trace.window.after == 2


def test_a_window_that_was_never_full_says_so() -> None:
    trace = Trace(Clock())
    trace.sent(3, 8)
    assert trace.window.first is None


def test_histograms_hold_every_length() -> None:
    trace = Trace(Clock())
    trace.finished([(0, 5), (LONGEST, 10**7)])
    trace.received(0, [answer(7)], 0.0)
    assert (trace.source_chars[0], trace.source_chars[LONGEST]) == (1, 1)
    assert (trace.translation_chars[5], trace.translation_chars[LONGEST]) == (1, 1)
    assert trace.answer_tokens[7] == 1


def flagged(row: int, verdict: str) -> dict[str, object]:
    return {"file": "a", "row": row, "verdict": verdict, "source": "x" * 10_000, "translation": None}


def test_samples_are_bounded_and_from_the_whole_run() -> None:
    trace = Trace(Clock())
    for row in range(1000):
        trace.flagged(flagged(row, "copied,lost_number" if row % 100 == 0 else "copied"))
        trace.rejected({"file": "a", "row": row, "reason": f"invalid_json: at byte {row}"})
    assert trace.flags == {"copied": 1000, "lost_number": 10}
    assert trace.reasons == {"invalid_json": 1000}
    samples = trace.samples("flag")
    assert len(samples) <= 2 * SAMPLES_OF_EACH
    assert [sample.row for sample in samples] == sorted(sample.row for sample in samples)
    assert samples[-1].row > 300
    assert all(len(sample.source) == traces.SAMPLE_CHARS + 1 for sample in samples)
    assert len(trace.samples("reason")) == SAMPLES_OF_EACH
