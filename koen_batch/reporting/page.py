"""The page of a run, from its summary and its trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from koen_batch import pages
from koen_batch.config import JobConfig, answer_settings
from koen_batch.engines.start import Prepared
from koen_batch.output import Tally
from koen_batch.progress import printable
from koen_batch.records import ALREADY, NOTHING, OK
from koen_batch.report import Summary
from koen_batch.reporting import charts
from koen_batch.reporting.trace import LONGEST, Course, Sample, Trace

POINTS = 80
"""Of a chart over time: fewer than the trace has, as an engine answers in batches."""

ROWS = 20
"""Of the table beside the charts."""

IDLE = 0.001
"""Seconds; less is the time of a message."""

FILES = 50
"""Of those that are listed."""


@dataclass(frozen=True)
class Run:
    """What is told of a run. Records, segments and verdicts of the ``summary`` are of the whole job, and ``before`` is
    what earlier runs had done of it; the rest is of this run."""

    summary: Summary
    trace: Trace
    before: Tally
    config: JobConfig
    engine: Prepared
    files: Sequence[tuple[str, str]]
    """Inputs and outputs."""
    begun: datetime
    stopped: str = ""
    """What stopped it; empty where it came to its end."""

    @property
    def sequences(self) -> int | None:
        """What the engine computes at once, where it says so."""
        specs = self.engine.plan.specs
        one = specs[0].settings.get("max_num_seqs")
        return one * len(specs) if isinstance(one, int) and specs[0].name == self.summary.engine else None

    @property
    def settings(self) -> dict[str, str]:
        """All that decides the answer and how it is laid out, then how the engine runs."""
        config = {name.replace("_", " "): value for name, value in asdict(self.config).items()}
        answer = answer_settings(self.config, self.engine.identity)
        spec = self.engine.plan.specs[0]
        engine = {name.replace("_", " "): value for name, value in spec.settings.items() if name != "model"}
        shown = {
            **config,
            **answer,
            "fields": ", ".join(self.config.fields),
            "engine": f"{self.summary.engine}, {len(self.engine.plan.specs)} replica(s)",
            "window": f"{self.engine.plan.window} requests for each replica",
            **engine,
        }
        return {name: _value(value) for name, value in shown.items() if value not in (None, "")}


def _value(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def write(path: Path, run: Run) -> str:
    """Write the page; what is to be said where that fails, since by then the job itself is done."""
    try:
        path.write_text(render(run), encoding="utf-8", errors="replace")
    except OSError as error:
        return f"--report {path}: cannot be written ({error.strerror})"
    return ""


def render(run: Run) -> str:
    """The page as HTML. Nothing in it is run or loaded, whatever the data say: all text is escaped."""
    course = run.trace.course(POINTS)
    return pages.render(
        "report.html",
        run=run,
        summary=run.summary,
        trace=run.trace,
        window=run.trace.window,
        figures=_figures(run),
        tokens=_throughput(course, [cell.tokens for cell in course.cells], "output tokens"),
        segments=_throughput(course, [cell.segments for cell in course.cells], "segments"),
        in_flight=_in_flight(run, course),
        lengths=_lengths(run.trace),
        verdicts=_verdicts(run.summary),
        stages=_stages(run.summary),
        moments=_moments(run.trace.course(ROWS)),
        flagged=[_shown(sample) for sample in run.trace.samples("flag")],
        rejected=[_shown(sample) for sample in run.trace.samples("reason")],
        duration=charts.duration,
        files=run.files[:FILES],
        more_files=len(run.files[FILES:]),
        shown=shown,
    )


def shown(text: str) -> str:
    """``text`` as a page can show it: lines stay, control and direction characters become a sign of their own."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _shown(sample: Sample) -> Sample:
    return replace(
        sample,
        file=shown(sample.file),
        why=shown(sample.why),
        source=shown(sample.source),
        translation=shown(sample.translation),
    )


def _figures(run: Run) -> list[tuple[str, str]]:
    """Name and value of what stands at the top."""
    summary = run.summary
    figures = [
        ("records read", f"{summary.records_read:,}"),
        ("written", f"{summary.records_written:,}"),
        ("rejected", f"{summary.records_rejected:,}"),
        ("flags", f"{sum(count for name, count, kind in _kinds(summary) if kind == 'flag'):,}"),
        ("segments", f"{summary.segments:,}"),
        ("sent to the engine", f"{summary.segments_sent:,}"),
        ("output tokens", f"{summary.output_tokens:,}"),
        ("time", charts.duration(summary.seconds)),
    ]
    rates = (
        ("output tokens/s", summary.output_tokens_per_second),
        ("segments/s", summary.segments_per_second),
        ("answers/s, steady", summary.steady_segments_per_second),
    )
    return figures + [(name, f"{value:,.1f}") for name, value in rates if value is not None]


def _kinds(summary: Summary) -> list[tuple[str, int, str]]:
    """Verdict, count, and ``ok``, ``kept`` or ``flag``; the most frequent first."""
    kept = {*NOTHING, *ALREADY}
    found = [
        (name, count, "ok" if name in OK else "kept" if name in kept else "flag")
        for name, count in summary.verdicts.items()
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def _verdicts(summary: Summary) -> list[dict[str, object]]:
    kinds = _kinds(summary)
    if summary.records_rejected:
        kinds.append(("rejected", summary.records_rejected, "flag"))
    return [
        {"name": name.replace("_", " "), "count": count, "kind": kind, "share": count / max(summary.records_read, 1)}
        for name, count, kind in kinds
    ]


def _stages(summary: Summary) -> list[dict[str, object]]:
    """The stages of this process, the longest first, and what none of them accounts for."""
    stages = dict(summary.seconds_by_stage)
    stages["starting, reading, splitting, writing"] = max(0.0, summary.seconds - sum(stages.values()))
    longest_first = sorted(stages.items(), key=lambda one: (-one[1], one[0]))
    whole = max(summary.seconds, 1e-9)
    return [{"name": name, "seconds": seconds, "share": seconds / whole} for name, seconds in longest_first]


def _marks(course: Course) -> list[tuple[str, float]]:
    """Where parts were committed and where the engine was idle, in units of the box."""
    middles = [(charts.BOX * (index + 0.5) / len(course.cells), cell) for index, cell in enumerate(course.cells)]
    return [("mark", at) for at, cell in middles if cell.parts] + [
        ("mark idle", at) for at, cell in middles if cell.idle > IDLE
    ]


def _when(course: Course, index: int) -> str:
    return f"{charts.duration(index * course.width)} to {charts.duration((index + 1) * course.width)}"


def _throughput(course: Course, counts: Sequence[int], what: str) -> charts.Chart:
    rates = [count / course.width for count in counts]
    return charts.over_time(
        rates,
        course.width,
        label=f"{what} a second over time: at most {max(rates, default=0.0):,.0f}",
        tip=lambda index: f"{_when(course, index)}: {rates[index]:,.1f} {what}/s",
    )


def _in_flight(run: Run, course: Course) -> charts.Chart:
    window = run.trace.window
    rules = [("window", float(window.capacity))]
    if run.sequences and run.sequences < window.capacity:
        rules.append(("at-once", float(run.sequences)))

    def tip(index: int) -> str:
        cell = course.cells[index]
        return f"{_when(course, index)}: {cell.least:,} to {cell.most:,} in flight"

    return charts.band_over_time(
        [(cell.least, cell.most) for cell in course.cells],
        course.width,
        rules=rules,
        label=f"requests in flight over time, of a window of {window.capacity:,}",
        tip=tip,
        marks=_marks(course),
    )


def _lengths(trace: Trace) -> list[dict[str, object]]:
    """The histograms, each with its middle."""
    found = []
    for name, unit, counts in (
        ("Source", "characters of a segment", trace.source_chars),
        ("Translation", "characters of a segment", trace.translation_chars),
        ("Answer", "output tokens of a request", trace.answer_tokens),
    ):
        half, most = (_at_most(charts.percentile(counts, percent)) for percent in (50, 95))
        words = f"half have {half} or fewer, 95% {most} or fewer"
        label = f"{name}, {unit}: {words}"
        chart = charts.histogram(counts, label=label, x_name=unit)
        found.append({"name": name, "words": words, "chart": chart, "count": sum(counts)})
    return found


def _at_most(length: int) -> str:
    return f"{LONGEST:,} (and longer)" if length == LONGEST else f"{length:,}"


def _moments(course: Course) -> list[dict[str, object]]:
    """The course of the run, for those who read it as a table."""
    return [
        {
            "when": _when(course, index),
            "tokens": cell.tokens / course.width,
            "segments": cell.segments / course.width,
            "least": cell.least,
            "most": cell.most,
            "parts": cell.parts,
            "idle": cell.idle,
        }
        for index, cell in enumerate(course.cells)
    ]
