"""What a job writes: the parts, the output and the segment store of a few records, written for once and weighed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from koen_batch.formats.base import Format
from koen_batch.records import OK, Record, Rejected, Translation
from koen_batch.store import Segment, Store, segment_key

MOST_RECORDS = 1000
"""Weighed of each file."""

MOST_SEGMENTS = 5000

UTF8_RATIO = {"ko": 1.20, "en": 0.83}
"""Bytes of a translation for each of its source, by the target's language, in UTF-8: measured on human translations,
FLORES-200 dev (1.205 to Korean, 997 sentences) and 20,000 pairs of technical and general text (1.194)."""


@dataclass(slots=True)
class Weight:
    """Bytes of ``records`` records of one file."""

    records: int = 0
    part: int = 0
    output: int = 0


@dataclass(slots=True)
class Scales:
    """Keeps the first records and segments that it is shown; weighs them in the end."""

    target: str
    kept: dict[Path, list[Record]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def show(self, format: Format, records: Sequence[Record | Rejected]) -> None:
        kept = self.kept.setdefault(format.path, [])
        readable = [record for record in records if isinstance(record, Record)]
        kept += readable[: MOST_RECORDS - len(kept)]

    def show_segment(self, source: str) -> None:
        if len(self.sources) < MOST_SEGMENTS:
            self.sources.append(source)

    def weigh(self, format: Format) -> Weight:
        """By the format's own writer, with stand-ins for the translations."""
        weight = Weight()
        with tempfile.TemporaryDirectory(prefix="koen-batch-plan-") as folder:
            data, target = Path(folder) / "data", Path(folder) / f"output{''.join(format.path.suffixes[-2:])}"
            part = format.part(data)
            for record in self.kept.get(format.path, []):
                try:
                    part.write(record, [self._translation(text) for text in record.texts])
                except (ValueError, LookupError, TypeError):  # a job rejects it
                    continue
                weight.records += record.span
            part.close()
            format.assemble([data], target)
            weight.part, weight.output = data.stat().st_size, target.stat().st_size
        return weight

    def store_bytes(self) -> float:
        """Bytes of the segment store for each segment."""
        if not self.sources:
            return 0.0
        with tempfile.TemporaryDirectory(prefix="koen-batch-plan-") as folder:
            path = Path(folder) / "store.sqlite"
            store = Store(path)
            rows = [
                Segment(segment_key(b"", source), self._stand_in(source), "", -0.5, "greedy", "a model's name")
                for source in self.sources
            ]
            store.commit(rows, [])
            store.close()
            return path.stat().st_size / len(rows)

    def _translation(self, text: str | None) -> Translation:
        return Translation(None if text is None else self._stand_in(text), OK)

    def _stand_in(self, text: str) -> str:
        """As many bytes as a translation may have: the text backwards, so that what compresses does not find it."""
        size = round(len(text) * UTF8_RATIO[self.target])
        return (text[::-1] * 2)[:size]


def free_bytes(path: Path) -> int:
    """What is free where ``path`` would be written."""
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
