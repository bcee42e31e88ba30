"""What a run says of itself in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from koen_batch import report
from koen_batch.counts import Clock, Counts
from koen_batch.output import Tally


def summary(tally: Tally, counts: Counts) -> report.Summary:
    return report.summarise(
        tally,
        counts,
        Clock(),
        segments_now=tally.segments,
        seconds=2.0,
        stages={},
        engine="echo",
        model="echo",
        outputs=[Path("out.jsonl")],
    )


def test_the_summary_counts_every_record() -> None:
    tally = Tally(read=3, written=2, rejected=1, segments=4, verdicts={"ok": 1, "copied": 1})
    lines = report.render(summary(tally, Counts(sent=4, output_tokens=40))).splitlines()
    assert lines == [
        "3 records read = 2 written + 1 rejected",
        "verdicts: copied 1, ok 1",
        "4 segments, 4 sent to echo (echo), 40 output tokens in 2.0 s",
        "→ out.jsonl",
    ]


@pytest.mark.parametrize(
    ("cancelled", "line"),
    [
        (0, "retries: 5 requests, 60 output tokens"),
        (3, "retries: 5 requests (3 of them asked ahead, not needed and cancelled), 60 output tokens"),
    ],
)
def test_what_was_asked_ahead_and_not_needed_is_told_from_what_failed(cancelled: int, line: str) -> None:
    counts = Counts(retry_requests=5, cancelled_requests=cancelled, retry_tokens=60)
    assert line in report.render(summary(Tally(), counts)).splitlines()
