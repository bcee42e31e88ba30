"""What records come to: segments, tokens of their prompts, what is known already. As `translate` counts it."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from koen_batch.asking import Asking
from koen_batch.memory import Memory
from koen_batch.records import ALREADY, NOTHING, Record, Rejected
from koen_batch.store import segment_key
from koen_batch.treatment import Treatment
from koen_batch.work import Attempt, ask


@dataclass(slots=True)
class Amounts:
    """What some records come to. Texts are those of the fields that are translated, subtitles by their sentences."""

    records: float = 0
    unreadable: float = 0
    nothing: float = 0
    """Texts with nothing to translate."""
    already: float = 0
    """Texts in the target language."""
    segments: float = 0
    unique: float = 0
    """Segments that were not met before in what was read."""
    remembered: float = 0
    """Of these, those that the translation memory has."""
    prompt_tokens: float = 0
    """Of the rest, which is sent, each at its first attempt."""
    source_tokens: float = 0
    """Of these, without what frames the source."""
    source_chars: float = 0
    """Of what is sent."""

    def add(self, other: Amounts, weight: float = 1) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + weight * getattr(other, one.name))

    @property
    def sent(self) -> float:
        return self.unique - self.remembered


class Seen:
    """The keys that have been met, in a temporary file: exact, and no larger in memory for more of them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="koen-batch-plan-")
        self._db = sqlite3.connect(Path(self._folder.name) / "seen.sqlite")
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE seen(key BLOB PRIMARY KEY) WITHOUT ROWID")

    def new(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of ``keys`` that are met for the first time, each once."""
        fresh = []
        for key in dict.fromkeys(keys):
            if self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
                fresh.append(key)
        return fresh

    def close(self) -> None:
        self._db.close()
        self._folder.cleanup()


@dataclass
class Meter:
    """Measures records one block after the other. ``answer`` digests what decides a translation, as in a job.

    ``watch`` is given the source of every segment that would be sent.
    """

    asking: Asking
    treatment: Treatment
    answer: bytes
    memory: Memory | None = None
    watch: Callable[[str], None] = lambda source: None
    _seen: Seen = field(default_factory=Seen, init=False)

    def measure(self, records: Sequence[Record | Rejected]) -> Amounts:
        amounts = Amounts()
        sources: list[str] = []
        for record in records:
            amounts.records += record.span
            if isinstance(record, Rejected):
                amounts.unreadable += record.span
                continue
            try:
                sources += self._segments(record, amounts)
            except Exception:  # as in a job, a record that makes this raise costs only itself
                amounts.unreadable += record.span
        self._count(sources, amounts)
        return amounts

    def close(self) -> None:
        self._seen.close()

    def _segments(self, record: Record, amounts: Amounts) -> list[str]:
        found = []
        for text in record.texts:
            verdict, pieces = self.treatment.cut(text)
            amounts.nothing += verdict == NOTHING
            amounts.already += verdict == ALREADY
            found += [piece.text for piece in pieces if piece.translate]
        return found

    def _count(self, sources: Sequence[str], amounts: Amounts) -> None:
        amounts.segments += len(sources)
        by_key = {segment_key(self.answer, source): source for source in sources}
        fresh = self._seen.new(list(by_key))
        amounts.unique += len(fresh)
        known = self.memory.get(fresh) if self.memory else {}
        amounts.remembered += len(known)
        attempts = [Attempt(by_key[key]) for key in fresh if key not in known]
        frame = self.asking.frame_tokens("default")
        for attempt, questions in zip(attempts, ask(attempts, self.asking), strict=True):
            self.watch(attempt.source)
            amounts.source_chars += len(attempt.source)
            for _, question in questions:
                amounts.prompt_tokens += len(question.tokens)
                amounts.source_tokens += len(question.tokens) - frame
