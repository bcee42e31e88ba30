"""The page of a run: golden, well formed, closed to what stands in the data."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koen_batch.config import JobConfig
from koen_batch.engines.base import Completion
from koen_batch.engines.start import Wishes, prepare
from koen_batch.languages import Direction
from koen_batch.output import Tally
from koen_batch.report import Summary
from koen_batch.reporting import charts, page
from koen_batch.reporting.trace import Trace

GOLDEN = Path(__file__).parents[1] / "golden" / "reporting" / "report.html"
KO = Direction("en", "ko")
VOID = {"meta", "link", "br", "input"}


class Checker(HTMLParser):
    """Every element is closed where it was opened; ids are unique, and what refers to them finds them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.refers: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))
        assert self.refers <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.refers |= {str(value) for name, value in attrs if name == "aria-labelledby"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def job(source: str = "The <b>first</b> row.", *, stopped: str = "", before: int = 0) -> page.Run:
    """A fixed job: 12 s, a window of 8, one row flagged and one rejected."""
    now = 0.0

    def clock() -> float:
        return now

    trace = Trace(clock)
    now = 1.0
    trace.sent(8, 8)
    now = 2.0
    trace.engine_ready()
    for turn in range(20):
        now += 0.5
        trace.received(4, [Completion(n, [1] * (10 + turn), "stop") for n in range(4)], turn * 0.01)
        trace.finished([(40 + turn, 30 + turn)] * 4)
        if turn < 18:
            trace.sent(8, 8)
        if turn % 5 == 4:
            trace.committed()
    trace.flagged(
        {"file": "in.jsonl", "row": 7, "verdict": "copied,lost_number", "source": source, "translation": source}
    )
    trace.rejected({"file": "in.jsonl", "row": 9, "reason": f"invalid_json: {source}"})
    summary = Summary(
        records_read=90, records_written=89, records_rejected=1, segments=89, segments_unique=80, segments_sent=80,
        verdicts={"copied": 1, "lost_number": 1, "nothing_to_translate": 3, "ok": 85}, seconds=12.25,
        seconds_by_stage={"checks": 0.5, "waiting for the engine": 10.0}, prompt_tokens=5000, output_tokens=1560,
        output_tokens_per_second=127.347, segments_per_second=6.531, steady_segments_per_second=8.0,
        retries={"requests": 3, "cancelled": 1, "output_tokens": 40, "sample": 3}, engine="echo", model="echo",
        outputs=["out.jsonl"], status=3,
    )  # fmt: skip
    return page.Run(
        summary=summary,
        trace=trace,
        before=Tally(read=before),
        config=JobConfig(KO),
        engine=prepare(KO, Wishes(engine="echo", max_num_seqs=4)),
        files=[(source, "out.jsonl")],
        begun=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        stopped=stopped,
    )


def test_the_page_of_a_fixed_job_is_the_golden_one() -> None:
    """``KOEN_GOLDEN=write pytest tests/reporting`` writes the file anew; look at it in a browser before you commit."""
    html = page.render(job())
    if os.environ.get("KOEN_GOLDEN") == "write":
        GOLDEN.write_text(html, encoding="utf-8")
    assert html == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("run", [job(), job(stopped="by SIGINT", before=30)], ids=["finished", "stopped"])
def test_the_page_is_well_formed_and_needs_nothing_else(run: page.Run) -> None:
    html = page.render(run)
    found = Checker(html)
    assert {"svg", "table", "details"} <= found.tags
    assert not {"img", "iframe", "object", "base", "form"} & found.tags
    assert "src" not in found.attributes
    assert not re.search(r"https?://", html)
    assert "default-src 'none'" in html
    assert html.count("<script") == 1


def test_a_stopped_and_resumed_run_says_what_it_has_done() -> None:
    text = "".join(Checker(page.render(job(stopped="by SIGTERM", before=30))).text)
    assert "by SIGTERM" in text
    assert "done 60 of the 90 records" in text
    assert "done" not in "".join(Checker(page.render(job())).text).split("Verdicts")[0]


@pytest.mark.parametrize(
    "hostile",
    [
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "<!--",
        "]]>",
        "{{ 7 * 7 }}{% raw %}",
        "\x00\x1b[2J\u202eevil",
        "lone \ud800 surrogate",
    ],
)
def test_hostile_text_is_shown_and_never_obeyed(hostile: str) -> None:
    html = page.render(job(hostile))
    html.encode("utf-8")
    found = Checker(html)
    assert "img" not in found.tags
    assert not any(name.startswith("on") for name in found.attributes)
    assert html.count("<script") == 1
    shown = page.shown(hostile)
    assert "".join(found.text).count(shown) >= 4
    assert not re.search(r"[\x00\x1b\u202e]", html)


def test_nothing_to_show_is_no_error(tmp_path: Path) -> None:
    run = job()
    empty = page.Run(
        summary=Summary(0, 0, 0, 0, 0, 0, {}, 0.0, {}, 0, 0, None, None, None, {"requests": 0}, "echo", "echo", []),
        trace=Trace(lambda: 0.0),
        before=Tally(),
        config=run.config,
        engine=run.engine,
        files=[],
        begun=run.begun,
    )
    Checker(page.render(empty))
    assert page.write(tmp_path / "a.html", empty) == ""
    assert "cannot be written" in page.write(tmp_path, empty)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_a_histogram_counts_everything_once(counts: list[int]) -> None:
    width, heights = charts.bins(counts)
    assert sum(heights) == sum(counts)
    assert 1 <= len(heights) <= charts.BINS
    assert heights[0] == sum(counts[:width]) or len(heights) == 1


@given(st.lists(st.integers(0, 50), max_size=300), st.integers(0, 100))
def test_a_percentile_is_the_least_size_that_is_enough(counts: list[int], percent: int) -> None:
    size = charts.percentile(counts, percent)
    total = sum(counts)
    if total:
        assert sum(counts[: size + 1]) >= total * percent / 100
        assert size == 0 or sum(counts[:size]) < total * percent / 100 or not sum(counts[:size])


@given(st.floats(0, 1e7))
def test_times_have_a_handful_of_round_ticks(total: float) -> None:
    ticks = charts.time_ticks(total)
    assert 1 <= len(ticks) <= 7
    assert all(0 <= tick.at <= 100 for tick in ticks)
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.5, "0.5 s"), (45, "45 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min"),
     (86400, "1 d"), (273600, "3 d 4 h"), (59.7, "60 s")],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert charts.duration(seconds) == words
