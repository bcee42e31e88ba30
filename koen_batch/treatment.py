"""How a record's texts become segments: the one place, for `translate` and for what plans it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koen_batch import checks, documents
from koen_batch.config import MAX_CHARS, JobConfig
from koen_batch.languages import Direction
from koen_batch.records import ALREADY, NOTHING, OK, Piece


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a record's texts become segments, and what stands for one that failed."""

    direction: Direction
    max_chars: int
    """Longest segment, in characters."""
    split: bool = True
    """Whether a text is split into sentences. If not, every text is one segment and is sent, whatever it holds
    (FLORES)."""
    splitter: str = "sentencex"
    force: bool = False
    on_fail: str = "flag"

    @classmethod
    def of(cls, config: JobConfig) -> Treatment:
        """What the settings of a job say of it."""
        return cls(
            direction=config.direction,
            max_chars=MAX_CHARS,
            split=config.split,
            splitter=config.splitter,
            force=config.force,
            on_fail=config.on_fail,
        )

    def cut(self, text: str | None) -> tuple[tuple[str, ...], Sequence[Piece]]:
        """The verdict that ``text`` has before anything is sent (``OK`` where there is something to send), and its
        pieces."""
        if text is None:
            return NOTHING, ()
        if not self.split:
            return OK, [Piece(text, translate=True)]
        kind = checks.classify(text, self.direction)
        if kind == "nothing_to_translate":
            return NOTHING, ()
        if kind == "already_target" and not self.force:
            return ALREADY, ()
        pieces = documents.split(text, self.direction, self.max_chars, self.splitter)
        return OK if any(piece.translate for piece in pieces) else NOTHING, pieces
