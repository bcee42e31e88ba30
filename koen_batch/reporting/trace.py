"""What happens during a run, noted in bounded memory: throughput and requests in flight over time, lengths, samples.

Only a run with ``--report`` has a trace. It costs a segment some 0.5 µs, and its size does not depend on the job's:
when its cells of time are full, neighbours are put together, and a cell stands for twice the time.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from koen_batch.engines.base import Completion

CELLS = 240
"""Cells of time at most. A chart of 1,000 pixels does not show more."""

FIRST_WIDTH = 1 / 16
"""Seconds of a cell at first: 240 of them are 15 s."""

LONGEST = 2048
"""Lengths from here on are counted together."""

SAMPLES_OF_EACH = 5
"""Samples of each flag, and of each reason to reject a record."""

SAMPLE_CHARS = 600


@dataclass(slots=True)
class Cell:
    """What happened in a stretch of time. ``least`` and ``most`` bound the requests in flight at every moment of it."""

    least: int
    most: int
    segments: int = 0
    """Finished."""
    tokens: int = 0
    """Generated."""
    parts: int = 0
    """Committed."""
    idle: float = 0.0
    """Seconds in which a replica of the engine had nothing to do, by its own account, noted when it told."""

    def join(self, later: Cell) -> None:
        self.least = min(self.least, later.least)
        self.most = max(self.most, later.most)
        self.segments += later.segments
        self.tokens += later.tokens
        self.parts += later.parts
        self.idle += later.idle


@dataclass(frozen=True, slots=True)
class Course:
    """Cells of ``width`` seconds each, from the begin on."""

    width: float
    cells: list[Cell]

    def halved(self) -> Course:
        """Each two neighbours as one."""
        joined = [replace(cell) for cell in self.cells[::2]]
        for one, later in zip(joined, self.cells[1::2], strict=False):
            one.join(later)
        return Course(2 * self.width, joined)


@dataclass(frozen=True, slots=True)
class Sample:
    """A record that was flagged (``why`` are its flags) or rejected (``why`` is the reason); texts are cut short."""

    file: str
    row: int
    why: str
    source: str = ""
    translation: str = ""


@dataclass
class Window:
    """The requests in flight from the first time that the window was full to the last."""

    capacity: int = 0
    first: float | None = None
    """Seconds since the begin."""
    last: float = 0.0
    least: int = 0
    after: int = 0
    """Answers that came after the last time: less than twice the window, where nothing was missing before the end."""
    _since: int = field(default=0, repr=False)
    """Least in flight since it was last full."""

    def change(self, in_flight: int) -> None:
        self._since = min(self._since, in_flight)

    def fill(self, in_flight: int, capacity: int, at: float) -> None:
        """So many are in flight now that the window was refilled."""
        self.capacity = capacity
        if in_flight < capacity:
            return
        self.least = capacity if self.first is None else min(self.least, self._since)
        self.first = at if self.first is None else self.first
        self.last, self.after, self._since = at, 0, capacity


class Trace:
    """Begins when it is made. ``clock`` gives seconds, and never less than before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = clock()
        self._course = Course(FIRST_WIDTH, [])
        self.window = Window()
        self.ready: float | None = None
        """Seconds until an engine was up."""
        self.source_chars = [0] * (LONGEST + 1)
        """How many segments have so many characters; the last is :data:`LONGEST` or more."""
        self.translation_chars = [0] * (LONGEST + 1)
        self.answer_tokens = [0] * (LONGEST + 1)
        self.flags: Counter[str] = Counter()
        """Records of this run by flag."""
        self.reasons: Counter[str] = Counter()
        """Records that this run rejected, by reason."""
        self._in_flight = 0
        self.idle = 0.0
        """Seconds in which a replica of the engine had nothing to do between two requests."""
        self._noted = 0.0
        """When the number in flight was last noted."""
        self._samples: dict[str, list[Sample]] = {}
        self._random = random.Random(0)

    def course(self, points: int = CELLS) -> Course:
        """What happened over time, in at most so many cells."""
        course = self._course
        while len(course.cells) > points:
            course = course.halved()
        return course

    # --- the engine's side, once a turn --------------------------------------------------------------------

    def engine_ready(self) -> None:
        if self.ready is None:
            self.ready = self._clock() - self._begin

    def sent(self, in_flight: int, capacity: int) -> None:
        """The window was refilled as far as there was anything to send."""
        self._change(in_flight)
        self.window.fill(in_flight, capacity, self._noted)

    def received(self, in_flight: int, completions: Sequence[Completion], idle: float) -> None:
        """Some answers came back; so many are still out. ``idle`` as in :attr:`koen_batch.engines.pool.Pool.idle`."""
        cell = self._change(in_flight)
        self.window.after += len(completions)
        cell.idle += idle - self.idle
        self.idle = idle
        for completion in completions:
            tokens = len(completion.tokens)
            cell.tokens += tokens
            self.answer_tokens[tokens if tokens < LONGEST else LONGEST] += 1

    def _change(self, in_flight: int) -> Cell:
        """The cell of this moment; until now, as many were in flight as when that was last noted."""
        now = self._clock() - self._begin
        cell = self._cell(now)
        cell.least, cell.most = min(cell.least, in_flight), max(cell.most, in_flight)
        self._noted, self._in_flight = now, in_flight
        self.window.change(in_flight)
        return cell

    def _cell(self, now: float) -> Cell:
        index = int(now / self._course.width)
        while index >= CELLS:
            self._course = self._course.halved()
            index //= 2
        cells = self._course.cells
        while len(cells) <= index:
            cells.append(Cell(self._in_flight, self._in_flight))
        return cells[-1]

    # --- segments and records ------------------------------------------------------------------------------

    def finished(self, lengths: Sequence[tuple[int, int]]) -> None:
        """Segments that are done: characters of each source and of its translation."""
        self._cell(self._clock() - self._begin).segments += len(lengths)
        for source, translation in lengths:
            self.source_chars[source if source < LONGEST else LONGEST] += 1
            self.translation_chars[translation if translation < LONGEST else LONGEST] += 1

    def committed(self) -> None:
        """A part is durable."""
        self._cell(self._clock() - self._begin).parts += 1

    def flagged(self, fact: dict[str, Any]) -> None:
        """A line of ``OUT.flagged.jsonl``."""
        sample = Sample(fact["file"], fact["row"], fact["verdict"], _short(fact["source"]), _short(fact["translation"]))
        for flag in sample.why.split(","):
            self.flags[flag] += 1
            self._keep(f"flag {flag}", sample, self.flags[flag])

    def rejected(self, fact: dict[str, Any]) -> None:
        """A line of ``OUT.rejects.jsonl``."""
        name = str(fact["reason"]).partition(":")[0]
        self.reasons[name] += 1
        self._keep(f"reason {name}", Sample(fact["file"], fact["row"], _short(fact["reason"])), self.reasons[name])

    def samples(self, kind: str) -> list[Sample]:
        """Of one kind (``flag`` or ``reason``), each once, in the order of files and rows."""
        found = {s for name, samples in self._samples.items() if name.startswith(f"{kind} ") for s in samples}
        return sorted(found, key=lambda sample: (sample.file, sample.row, sample.why))

    def _keep(self, name: str, sample: Sample, seen: int) -> None:
        """Each of ``seen`` samples is kept with the same chance (Vitter's algorithm R, 1985)."""
        kept = self._samples.setdefault(name, [])
        if len(kept) < SAMPLES_OF_EACH:
            kept.append(sample)
        elif (place := self._random.randrange(seen)) < SAMPLES_OF_EACH:
            kept[place] = sample


def _short(text: str | list[str | None] | None) -> str:
    """A text, or those of several fields a line each, cut to :data:`SAMPLE_CHARS`."""
    whole = "\n".join(one or "" for one in text) if isinstance(text, list) else text or ""
    return whole if len(whole) <= SAMPLE_CHARS else whole[:SAMPLE_CHARS] + "…"
