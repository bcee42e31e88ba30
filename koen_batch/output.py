"""One output of a job: records come in order, are written into parts, and the parts become the file."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from koen_batch.errors import StoppedError
from koen_batch.failpoints import failpoint
from koen_batch.formats.base import Format, Part
from koen_batch.records import ALREADY, NOTHING, OK, START, UNFLAGGED, Position, Record, Rejected, Translation
from koen_batch.reporting.trace import Trace
from koen_batch.workdir import Workdir

CLEAN, FLAGGED = 0, 3
"""Exit status of a finished output: nothing to complain of; flagged or rejected records."""


@dataclass
class Tally:
    """The accounting law of an output: ``read == written + rejected``, all three counted on their own."""

    read: int = 0
    written: int = 0
    rejected: int = 0
    segments: int = 0
    """Segments of the records read, repeated ones counted each time."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Records by verdict; one with two flags counts for both."""

    def add(self, other: Tally) -> None:
        self.read += other.read
        self.written += other.written
        self.rejected += other.rejected
        self.segments += other.segments
        self.verdicts.update(other.verdicts)

    @property
    def flagged(self) -> int:
        """Records with a flag, counted once for each flag."""
        return sum(count for name, count in self.verdicts.items() if name not in {*OK, *NOTHING, *ALREADY})

    @property
    def status(self) -> int:
        return FLAGGED if self.flagged or self.rejected else CLEAN

    @property
    def balanced(self) -> bool:
        return self.read == self.written + self.rejected

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it; ``load`` is its inverse."""
        return {**vars(self), "verdicts": dict(self.verdicts)}

    @classmethod
    def load(cls, facts: dict[str, Any]) -> Tally:
        return cls(**{**facts, "verdicts": Counter(facts["verdicts"])})


@dataclass(frozen=True, slots=True)
class Stretch:
    """What an output is made of: a file, as the user calls it, from one position to another (None: to its end)."""

    file: str
    start: Position = START
    end: Position | None = None


class Output:
    """Writes the records of one input, in order, under its working folder."""

    def __init__(
        self, format: Format, workdir: Workdir, *, part_size: int, model: str, stretch: Stretch | None = None
    ) -> None:
        self.format = format
        self.workdir = workdir
        self.path = workdir.output
        self.tally = self._committed()
        """What stands in committed parts."""
        self._part_size = part_size
        self._model = model
        self._stretch = stretch or Stretch(str(format.path))
        self._part: _OpenPart | None = None
        self.finished = False
        self.trace: Trace | None = None

    @property
    def position(self) -> Position:
        """Where reading goes on."""
        return self.workdir.resume_position(self._stretch.start)

    @property
    def file(self) -> str:
        """What is read, as the user calls it."""
        return self._stretch.file

    @property
    def end(self) -> Position | None:
        """Where reading ends; None at the end of the file."""
        return self._stretch.end

    def mark_damaged(self) -> None:
        """The input could not be read to its end."""
        self.workdir.mark_damaged()

    @property
    def total(self) -> Tally:
        """Committed and in the open part."""
        total = Tally()
        total.add(self.tally)
        if self._part:
            total.add(self._part.tally)
        return total

    def write(self, record: Record, translations: Sequence[Translation], segments: int) -> None:
        self._open_part().write(record, translations, segments)
        self._commit_if_full()

    def reject(self, rejected: Rejected) -> None:
        self._open_part().reject(rejected)
        self._commit_if_full()

    def commit(self) -> None:
        """Commit the open part, also a short one."""
        if self._part:
            part, self._part = self._part, None
            part.close()
            self.workdir.commit_part(part.folder, {"tally": part.tally.facts(), "next": part.next_position})
            self.tally.add(part.tally)
            if self.trace:
                self.trace.committed()

    def finalise(self, summary: dict[str, Any]) -> None:
        """Assemble the output and bring it into place; ``summary`` is kept in ``done.json``."""
        self.commit()
        assert self.tally.balanced, f"{self.path}: {self.tally}"
        if self._committed() != self.tally:
            raise StoppedError(f"{self.workdir.parts_folder}: somebody has taken parts away: --restart starts over")

        def assemble(target: Path) -> None:
            self.format.assemble([part / "data" for part in self.workdir.parts()], target)

        facts = {"status": self.tally.status, "tally": self.tally.facts(), **summary}
        self.workdir.finalise(assemble, facts, verdict_column=self.format.has_verdict_column)
        self.finished = True

    def _committed(self) -> Tally:
        tally = Tally()
        for facts in self.workdir.part_facts():
            tally.add(Tally.load(facts["tally"]))
        return tally

    def _open_part(self) -> _OpenPart:
        if not self._part:
            self._part = _OpenPart(self.format, self.workdir.new_part(), self._model, self._stretch.file, self.trace)
        return self._part

    def _commit_if_full(self) -> None:
        if self._part and self._part.tally.read >= self._part_size:
            self.commit()


class _OpenPart:
    """A part being written: its data, and side files once there is something to say."""

    def __init__(self, format: Format, folder: Path, model: str, file: str, trace: Trace | None) -> None:
        self.folder = folder
        self._expected = ((), (model,))
        """Who makes a translation, where nothing has to be said of it."""
        self._file = file
        self._trace = trace
        self.tally = Tally()
        self.next_position: tuple[int, int] = (0, 0)
        self._format = format
        self._data: Part = format.part(folder / "data")
        self._side_files: dict[str, IO[str]] = {}

    def write(self, record: Record, translations: Sequence[Translation], segments: int) -> None:
        self._data.write(record, translations)  # first, since it alone can fail on account of this record
        verdict = record_verdict(translations)
        self._count(record, segments)
        self.tally.written += record.span
        if record.span:  # a blank line is none of the user's records
            for name in verdict:
                self.tally.verdicts[name] += record.span
            if verdict not in UNFLAGGED:
                fact = self._flagged(record, translations, verdict)
                self._note("flagged.jsonl", fact)
                if self._trace:
                    self._trace.flagged(fact)
        if any(translation.models not in self._expected for translation in translations):
            models = {model for translation in translations for model in translation.models}
            self._note("models.jsonl", {"row": record.row, "models": sorted(models)})
        for note in self._format.notes(record, translations):
            self._note("flagged.jsonl", {"file": self._file, **note})

    def reject(self, rejected: Rejected) -> None:
        self._count(rejected, 0)
        self.tally.rejected += rejected.span
        keep = self._format.keeps_place or self._format.layout.on_bad_row == "keep"
        if keep:
            self._data.keep(rejected)
        if not rejected.span:  # a further piece of a record that is listed already
            return
        fact = {
            "file": self._file,
            "row": rejected.row,
            "offset": rejected.offset,
            "reason": rejected.reason,
            "raw": base64.b64encode(rejected.raw).decode("ascii"),
        }
        self._note("rejects.jsonl", fact)
        if self._trace:
            self._trace.rejected(fact)

    def close(self) -> None:
        failpoint("close part")
        self._data.close()
        for file in self._side_files.values():
            file.close()

    def _count(self, record: Record | Rejected, segments: int) -> None:
        self.tally.read += record.span
        self.tally.segments += segments
        self.next_position = (record.next.row, record.next.offset)

    def _flagged(self, record: Record, translations: Sequence[Translation], verdict: Sequence[str]) -> dict[str, Any]:
        return {
            "file": self._file,
            "row": record.row,
            "verdict": ",".join(verdict),
            "source": record.texts if len(record.texts) > 1 else record.texts[0],
            "translation": [t.text for t in translations] if len(translations) > 1 else translations[0].text,
        }

    def _note(self, name: str, fact: dict[str, Any]) -> None:
        if name not in self._side_files:
            self._side_files[name] = (self.folder / name).open("w", encoding="utf-8", errors="backslashreplace")
        self._side_files[name].write(json.dumps(fact, ensure_ascii=False) + "\n")


def record_verdict(translations: Sequence[Translation]) -> tuple[str, ...]:
    """The sorted union of the flags of a record's texts; without flags, ``ok`` if anything was translated."""
    if len(translations) == 1:
        return translations[0].verdict
    flags = sorted({flag for translation in translations if translation.flagged for flag in translation.verdict})
    if flags:
        return tuple(flags)
    for verdict in (OK, ALREADY):
        if any(translation.verdict == verdict for translation in translations):
            return verdict
    return NOTHING
