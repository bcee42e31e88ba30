"""What a format is: it reads records from a file, writes parts, and assembles the parts into the output.

A format knows no engine and no job. Most formats are streams of bytes: they derive from :class:`ByteFormat` and
say how a record is read and how it is rendered; the rest (parts, assembly, compression) is here.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from koen_batch.formats import compression
from koen_batch.languages import Direction
from koen_batch.records import START, Position, Record, Rejected, Translation


@dataclass(frozen=True, slots=True)
class Layout:
    """What the user asked of the records: which fields, under which name the translation goes, what to do with
    bad rows. A format takes from it what concerns it.

    Of subtitles alone: ``unit`` is ``sentence`` (a sentence over several cues is one text) or ``cue``; ``bilingual``
    keeps the source under the translation; ``encoding`` of the output is ``utf-8`` or ``same`` (as the input's).
    """

    direction: Direction
    fields: tuple[str, ...] = ("text",)
    output_field: str = "translation"
    on_bad_row: str = "reject"
    with_confidence: bool = False
    unit: str = "sentence"
    bilingual: bool = False
    encoding: str = "utf-8"
    limit: int | None = None
    """Only the first records: a format whose records belong together must know where it is to end."""


class Part(Protocol):
    """A part being written. The caller syncs and renames what stands at its path after ``close``."""

    def write(self, record: Record, translations: Sequence[Translation]) -> None:
        """Append ``record`` with one translation for each of its texts."""

    def keep(self, rejected: Rejected) -> None:
        """Append a rejected record in its place (``--on-bad-row keep``; always, in text and subtitles)."""

    def close(self) -> None: ...


class Format(ABC):
    """One input file, read in a given layout, and the parts and the output that it becomes."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    keeps_place: ClassVar[bool] = False
    """Whether a rejected record always keeps its place with its source (text, subtitles)."""
    has_verdict_column: ClassVar[bool] = True
    """Whether verdicts stand in the output; where not, flagged records are listed in a side file."""
    whole: ClassVar[bool] = False
    """Whether the records of a file belong together, so that it is never cut into shards."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self.layout = layout

    @abstractmethod
    def inspect(self) -> None:
        """Look at the head of the file; raise InputError where it is refused as a whole."""

    @abstractmethod
    def read(self, start: Position = START) -> Iterator[Record | Rejected]:
        """Yield the records from ``start`` on, in order; raise InputError where the file cannot be read on."""

    def count(self) -> int | None:
        """About how many records there are, for the progress bar; None where that takes reading it all."""
        return None

    def windows(self, count: int, share: float) -> list[tuple[Position, Position]]:
        """Up to ``count`` windows, spread evenly, that hold ``share`` of the file together: where reading begins, and
        the row or offset from which on a record begins behind the window. Every record is in one with the same chance,
        however long it is. None where records can only be told from the beginning on. Rows may be wrong."""
        return []

    def walk(self) -> Iterator[tuple[int, int]]:
        """The span of each record and the offset behind it, in order: where the file can be cut into shards.

        A record's row is the sum of the spans before it. Where a format finds the ends of its records without reading
        what is in them, it does so here. Raises InputError as ``read`` does.
        """
        return ((record.span, record.next.offset) for record in self.read())

    def extents(self, start: Position, end: Position) -> list[tuple[int, int]]:
        """What must be there of the file (first byte, byte behind the last) to read the records from ``start`` to
        ``end``, and to write their parts and the output; from START to START, for the last two alone."""
        return [(0, self.path.stat().st_size)]

    def notes(self, record: Record, translations: Sequence[Translation]) -> list[dict[str, object]]:
        """What the user should know of how the translations were laid out, for the side file; never a flag.

        Each note has at least ``row`` (counted from 0, as ``Record.row``) and ``note`` (a snake_case name).
        """
        return []

    def raw(self, record: Record) -> bytes:
        """The record's own bytes, for the rejects file, where a format has them."""
        return b""

    @abstractmethod
    def part(self, path: Path) -> Part:
        """Begin a part at ``path``."""

    @abstractmethod
    def assemble(self, parts: Sequence[Path], target: Path) -> None:
        """Write the whole output to ``target`` from its parts, in order."""


class ByteFormat(Format):
    """A format whose output is its parts' bytes, one after the other, behind a prologue."""

    line_by_line: ClassVar[bool] = False
    """Whether a record is known without looking beyond the line on which it ends."""

    def open(self) -> BinaryIO:
        """The input's bytes, decompressed by its suffix."""
        return compression.open_for_reading(self.path)

    def count(self) -> int | None:
        """Its lines, unless it is compressed."""
        if compression.strip(self.path) != self.path:
            return None
        with self.open() as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))

    def windows(self, count: int, share: float) -> list[tuple[Position, Position]]:
        if not self.line_by_line or compression.strip(self.path) != self.path:
            return super().windows(count, share)
        size = self.path.stat().st_size
        found = []
        with self.open() as file:
            for place in (number * size // count for number in range(count)):
                file.seek(max(0, place - 1))
                if place:
                    file.readline()
                found.append((Position(0, file.tell()), Position(0, place + ceil(size * share / count))))
        return found

    def extents(self, start: Position, end: Position) -> list[tuple[int, int]]:
        if not self.line_by_line or compression.strip(self.path) != self.path:
            return super().extents(start, end)
        # The byte before the first says whether that one begins a line, the first three may be a byte order mark.
        bom = min(3, self.path.stat().st_size)
        return [(0, bom), *([(max(start.offset - 1, 0), end.offset)] if end.offset else [])]

    def prologue(self) -> bytes:
        """What stands before the first record of the output (a BOM, a header row)."""
        return b""

    @abstractmethod
    def render(self, record: Record, translations: Sequence[Translation]) -> bytes: ...

    @abstractmethod
    def render_rejected(self, rejected: Rejected) -> bytes: ...

    def part(self, path: Path) -> Part:
        return _BytePart(self, path)

    def assemble(self, parts: Sequence[Path], target: Path) -> None:
        with compression.open_for_writing(target) as out:
            out.write(self.prologue())
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)


class _BytePart:
    def __init__(self, format: ByteFormat, path: Path) -> None:
        self._format = format
        self._file = path.open("wb")

    def write(self, record: Record, translations: Sequence[Translation]) -> None:
        self._file.write(self._format.render(record, translations))

    def keep(self, rejected: Rejected) -> None:
        self._file.write(self._format.render_rejected(rejected))

    def close(self) -> None:
        self._file.close()
