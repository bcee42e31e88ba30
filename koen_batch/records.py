"""The only things that flow through the pipeline, from a format's reader to its writer.

They are msgspec structs because there are thousands of them a second: one is made in half the time of a dataclass,
a frozen one in a sixth.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Position(msgspec.Struct, frozen=True):
    """Where reading goes on: the number of records already read, and a byte offset where the format has one."""

    row: int = 0
    offset: int = 0


START = Position()


class Record(msgspec.Struct):
    """One record of an input: a row, a line, or the cues of a subtitle file that share sentences.

    ``texts`` are the values to translate, in the order of the fields (None stays None); ``payload`` is what the
    format needs to write the record again, and nobody else looks at it. ``span`` is how many of the user's
    records this one stands for: 1, or the number of its cues. ``next`` is where reading goes on after it.
    """

    row: int
    offset: int
    texts: list[str | None]
    payload: Any
    next: Position
    span: int = 1
    size: int = 0
    """Bytes that it keeps in memory, where they are not those from ``offset`` to ``next.offset``."""


class Rejected(msgspec.Struct):
    """A record that cannot be translated; it goes into the rejects file with its raw bytes.

    ``reason`` is a snake_case name, optionally followed by ``: detail``. ``payload`` serves formats in which a
    rejected record keeps its place (text, subtitles).
    """

    row: int
    offset: int
    reason: str
    raw: bytes
    next: Position
    payload: Any = None
    span: int = 1


OK = ("ok",)
NOTHING = ("nothing_to_translate",)
ALREADY = ("already_target",)
UNFLAGGED = (OK, NOTHING, ALREADY)


class Translation(msgspec.Struct, frozen=True):
    """The translation of one text of a record: ``verdict`` is ``OK``, ``NOTHING``, ``ALREADY`` or sorted flags."""

    text: str | None
    verdict: tuple[str, ...] = OK
    confidence: float | None = None
    models: tuple[str, ...] = ()
    """Who made it; empty where nothing was sent."""

    @property
    def flagged(self) -> bool:
        return self.verdict not in UNFLAGGED


class Piece(msgspec.Struct, frozen=True):
    """A stretch of a text: a segment for the model, or glue that is kept as it is.

    The pieces of a text, joined, are the text.
    """

    text: str
    translate: bool
