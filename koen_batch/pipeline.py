"""The one loop: read, split, translate, join, write, with the engine always supplied.

It knows no format and no engine. Memory is bounded by what may wait: segments for the engine, and records, by
number and by size, for an earlier one to be finished.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from koen_batch.errors import InputError
from koen_batch.output import Output
from koen_batch.records import OK, Piece, Record, Rejected, Translation
from koen_batch.scheduler import LOST, Scheduler
from koen_batch.store import Segment
from koen_batch.treatment import Treatment

READ_AT_ONCE = 256
"""Records read between two looks at the engine; their segments are looked up and tokenised together."""

AHEAD = 4
"""Windows of segments that wait for the engine. At the end the longest of them go first, so that the last answers, and
the last that are asked again, are short."""

REORDER = 16_384
"""Records read and not yet written, at most: those that wait for an earlier one to be finished."""

REORDER_BYTES = 32 << 20
"""What they hold at most, as read and as text; one record may exceed it, alone."""


class BadRow(InputError):
    """A record cannot be read, and the user asked to stop there (``--on-bad-row stop``)."""


class Interrupted(Exception):
    """The user asked to stop; ``signal`` is the number of the signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class _Text(msgspec.Struct):
    """A text on its way: its pieces, and the segments that have come back for them."""

    source: str | None
    pieces: Sequence[Piece] = ()
    verdict: tuple[str, ...] = OK
    segments: dict[int, Segment] = {}


class _Entry(msgspec.Struct):
    """A record in the reorder buffer, how many segments it has, and how many of them are missing."""

    output: Output
    record: Record | Rejected
    size: int
    """Bytes of the record as it was read, and characters of its texts."""
    texts: list[_Text] = []
    segments: int = 0
    missing: int = 0
    lost: str = ""
    """Why it cannot be translated, where one of its segments says so."""


class _Slot(msgspec.Struct):
    """The place of one segment in an entry."""

    entry: _Entry
    text: _Text
    index: int

    def fill(self, segment: Segment) -> None:
        self.text.segments[self.index] = segment
        self.entry.missing -= 1
        if segment.flags in LOST:
            self.entry.lost = min(self.entry.lost or segment.flags, segment.flags)


class Pipeline:
    """Runs the outputs of a job, one after the other, without draining the engine between them."""

    def __init__(
        self,
        outputs: Iterable[Output],
        scheduler: Scheduler,
        treatment: Treatment,
        *,
        window: int,
        limit: int | None,
        on_turn: Callable[[], None],
        on_finished: Callable[[Output], None],
    ) -> None:
        self.begun: list[Output] = []
        """The outputs under way: the next one is asked for when all records of the one before are read, and one that is
        finished is let go, with all that its format holds."""
        self._outputs = outputs
        self._scheduler = scheduler
        self._treatment = treatment
        self._window = window
        self._limit = limit
        self._on_turn = on_turn
        self._on_finished = on_finished
        self._buffer: deque[_Entry | Output] = deque()
        self._held = 0
        """Sum of the sizes of what is in the buffer."""
        self._refused: list[InputError] = []

    def run(self) -> None:
        """Until every record of every output is written. ``on_turn`` is called at each turn, and may raise.

        Raises InputError, once all else is done, where an input could not be read to its end.
        """
        source = self._entries()
        exhausted = False
        while self._buffer or not exhausted:
            while not exhausted and self._hungry():
                exhausted = self._admit(source)
            self._scheduler.turn()
            self._retire()
            self._on_turn()
        if self._refused:
            self.flush()
            raise self._refused[0]

    def flush(self) -> None:
        """Write what is ready, and commit it as a short part."""
        self._retire()
        for output in self.begun:
            output.commit()

    # --- in ------------------------------------------------------------------------------------------------

    def _hungry(self) -> bool:
        roomy = len(self._buffer) < REORDER and self._held < REORDER_BYTES
        return roomy and self._scheduler.backlog < AHEAD * self._window

    def _entries(self) -> Iterator[_Entry | Output]:
        """The records of all outputs, and each output itself behind its last record."""
        for output in self._outputs:
            self.begun.append(output)
            left = None if self._limit is None else self._limit - output.total.read
            try:
                yield from self._records(output, left)
            except InputError as error:  # what was read so far is written; the other inputs go on
                self._refused.append(error)
                output.mark_damaged()
                if isinstance(error, BadRow):
                    return
            else:
                yield output

    @staticmethod
    def _records(output: Output, left: int | None) -> Iterator[_Entry]:
        """The records of one output from where it stands, ``left`` of them at most."""
        begin, end = output.position, output.end
        if (left is not None and left <= 0) or begin == end:
            return
        for record in output.format.read(begin):
            if isinstance(record, Rejected) and output.format.layout.on_bad_row == "stop":
                raise BadRow(
                    f"{output.format.path}: row {record.row}, byte {record.offset}: {record.reason}: mend it and run "
                    "the same command, or choose --on-bad-row reject"
                )
            yield _Entry(output, record, _size(record))
            if left is not None:
                left -= record.span
                if left <= 0:
                    return
            if record.next == end:
                return

    def _admit(self, source: Iterator[_Entry | Output]) -> bool:
        """Read some records and ask for their segments; True at the end of the input."""
        wanted: list[tuple[str, _Slot]] = []
        exhausted = True
        for count, entry in enumerate(source, 1):
            self._buffer.append(entry)
            if isinstance(entry, _Entry):
                if isinstance(entry.record, Record):
                    wanted += self._segment(entry, entry.record)
                self._held += entry.size
            if count == READ_AT_ONCE or len(wanted) >= READ_AT_ONCE or self._held >= REORDER_BYTES:
                exhausted = False
                break
        self._scheduler.want(wanted)
        if exhausted:
            self._scheduler.nothing_follows()
        return exhausted

    def _segment(self, entry: _Entry, record: Record) -> list[tuple[str, _Slot]]:
        """Split the record's texts; what its entry waits for. A record that makes this raise costs only itself."""
        try:
            entry.texts = [self._text(value) for value in record.texts]
        except Exception as error:
            entry.record = _raised(entry.output, record, error)
            return []
        wanted = [
            (piece.text, _Slot(entry, text, index))
            for text in entry.texts
            for index, piece in enumerate(text.pieces)
            if piece.translate
        ]
        entry.segments = entry.missing = len(wanted)
        return wanted

    def _text(self, value: str | None) -> _Text:
        verdict, pieces = self._treatment.cut(value)
        return _Text(value, pieces, verdict)

    # --- out -----------------------------------------------------------------------------------------------

    def _retire(self) -> None:
        """Write, in order, every record at the head of the buffer of which nothing is missing."""
        while self._buffer:
            entry = self._buffer[0]
            if isinstance(entry, Output):
                self._on_finished(entry)
                self.begun.remove(entry)
            elif entry.missing:
                return
            else:
                self._write(entry)
                self._held -= entry.size
            self._buffer.popleft()

    def _write(self, entry: _Entry) -> None:
        record = entry.record
        if isinstance(record, Rejected):
            entry.output.reject(record)
        elif entry.lost:
            entry.output.reject(_rejected(entry.output, record, entry.lost))
        else:
            translations = [self._join(text) for text in entry.texts]
            try:
                entry.output.write(record, translations, entry.segments)
            except (ValueError, LookupError, TypeError) as error:
                entry.output.reject(_raised(entry.output, record, error))

    def _join(self, text: _Text) -> Translation:
        if not text.segments:
            return Translation(text.source, text.verdict)
        if len(text.pieces) == 1:
            (segment,) = text.segments.values()
            verdict = tuple(segment.flags.split(",")) if segment.flags else OK
            return Translation(self._stands_for(text.pieces[0], segment), verdict, segment.confidence, (segment.model,))
        flags = {flag for segment in text.segments.values() if segment.flags for flag in segment.flags.split(",")}
        joined = "".join(
            self._stands_for(piece, text.segments[index]) if piece.translate else piece.text
            for index, piece in enumerate(text.pieces)
        )
        models = tuple(sorted({segment.model for segment in text.segments.values()}))
        return Translation(joined, tuple(sorted(flags)) or OK, _mean_confidence(text), models)

    def _stands_for(self, piece: Piece, segment: Segment) -> str:
        if not segment.flags or self._treatment.on_fail == "flag":
            return segment.text
        return piece.text if self._treatment.on_fail == "source" else ""


def _size(record: Record | Rejected) -> int:
    carried = record.next.offset - record.offset
    if isinstance(record, Rejected):
        return carried
    return (record.size or carried) + sum([len(text) for text in record.texts if text])


def _rejected(output: Output, record: Record, reason: str) -> Rejected:
    """A record that was read and yet cannot be translated."""
    raw = output.format.raw(record)
    return Rejected(record.row, record.offset, reason, raw, record.next, record.payload, record.span)


def _raised(output: Output, record: Record, error: Exception) -> Rejected:
    return _rejected(output, record, f"raised: {type(error).__name__}: {error}")


def _mean_confidence(text: _Text) -> float | None:
    """Mean of the segments' mean log-probabilities, each weighted by its length in characters."""
    known = [(s.confidence, len(s.text)) for s in text.segments.values() if s.confidence is not None]
    weight = sum(length for _, length in known)
    return sum(confidence * length for confidence, length in known) / weight if weight else None
