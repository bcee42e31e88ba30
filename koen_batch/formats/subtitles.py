"""Subtitles: SRT and WebVTT. Only the text of translated cues changes; every other character comes out as it was.

A record is a group of cues that share sentences (``--unit cue``: a cue). Its translations are laid back over the
cues by their share of the source text, and broken into lines for the target language. A cue whose translation equals
its source, or was not asked for, stays as it stands, line breaks included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from koen_batch.errors import InputError, UsageError
from koen_batch.formats.base import ByteFormat, Layout
from koen_batch.formats.cue_groups import Group, Sentence, Slot, groups
from koen_batch.formats.cue_text import Unit, balance, escape, raw
from koen_batch.formats.cues import Cue, Scan, scan_srt, scan_vtt
from koen_batch.formats.encoding import STRAY_BYTE, Encoding, decode
from koen_batch.formats.layback import LINE_WIDTH, LINES, break_lines, share_out, width
from koen_batch.records import START, Position, Record, Rejected, Translation

_LINE_END = re.compile(r"\r\n|\r|\n")
_POSITION = re.compile(r"\{\\an?\d+\}")
_SAMPLE = {"ko": "한글", "en": "text"}


@dataclass(frozen=True, slots=True)
class _File:
    scan: Scan
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class _Laid:
    """A cue's new text, and whether it needs more than two lines or a line that is too wide."""

    body: str
    is_long: bool = False


@dataclass(slots=True)
class _Words:
    """What is said in each slot after translation, and which slots say something new."""

    said: dict[Slot, list[str]] = field(default_factory=dict)
    changed: set[Slot] = field(default_factory=set)


class _Subtitles(ByteFormat):
    keeps_place: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    has_verdict_column: ClassVar[bool] = False
    escaped: ClassVar[bool]
    """Whether the format is always written with HTML entities."""

    _file: _File | None = None
    _laid: tuple[Group, Sequence[Translation], list[_Laid]] | None = None

    def scan(self, text: str) -> Scan:
        raise NotImplementedError

    def has_nothing(self, scan: Scan) -> bool:
        """Whether a file without cues is an empty file of this format (and not some other file)."""
        return not scan.tail.strip()

    def inspect(self) -> None:
        self._load()

    def count(self) -> int | None:
        return len(self._load().scan.cues)

    def read(self, start: Position = START) -> Iterator[Record | Rejected]:
        file = self._load()
        offset = len(file.encoding.bom)
        layout = self.layout
        found = groups(file.scan.cues[: layout.limit], layout.direction.source, layout.unit, self.escaped)
        for group in found:
            data = file.encoding.encode(self._source(group))
            after = Position(group.first + len(group.cues), offset + len(data))
            if group.first >= start.row:
                yield _record(group, offset, data, after)
            offset = after.offset

    def prologue(self) -> bytes:
        file = self._load()
        bom = file.encoding.bom and self._output().bom
        return bom if file.scan.cues else bom + self._encode(file.scan.tail)

    def raw(self, record: Record) -> bytes:
        """The record's cues as they stand in the file."""
        return self._load().encoding.encode(self._source(record.payload))

    def render(self, record: Record, translations: Sequence[Translation]) -> bytes:
        group: Group = record.payload
        laid = self._lay(group, translations)
        text = "".join(cue.lead + new.body + cue.trail for cue, new in zip(group.cues, laid, strict=True))
        return self._encode(text + self._tail(group))

    def render_rejected(self, rejected: Rejected) -> bytes:
        encoding = self._load().encoding
        return self._encode(rejected.raw.decode(encoding.name, encoding.errors))

    def notes(self, record: Record, translations: Sequence[Translation]) -> list[dict[str, object]]:
        group: Group = record.payload
        return [
            {"row": group.first + i, "note": "long_cue", "time": group.cues[i].timing}
            for i, laid in enumerate(self._lay(group, translations))
            if laid.is_long
        ]

    def _load(self) -> _File:
        if self._file is None:
            with self.open() as stream:
                data = stream.read()
            text, encoding = decode(data, str(self.path))
            scan = self.scan(text)
            if not scan.cues and not self.has_nothing(scan):
                raise InputError(
                    f"{self.path}: no cue in it: no line like `00:00:01,000 --> 00:00:02,000` in {len(data)} bytes; "
                    f"is it a subtitle file ({self.name})?"
                )
            self._file = _File(scan, encoding)
            self._check_encoding(encoding)
        return self._file

    def _check_encoding(self, encoding: Encoding) -> None:
        sample = _SAMPLE[self.layout.direction.target]
        if self.layout.encoding == "same" and encoding.name == "cp1252" and not sample.isascii():
            raise UsageError(
                f"{self.path}: --encoding same: Windows-1252 cannot hold {sample}; leave it out to get UTF-8"
            )

    def _output(self) -> Encoding:
        source = self._load().encoding
        if self.layout.encoding == "same":
            return source
        return Encoding("utf-8", b"\xef\xbb\xbf" if source.bom else b"")

    def _encode(self, text: str) -> bytes:
        """``text`` in the output's encoding; what that cannot hold becomes a character reference (``&#8212;``)."""
        output = self._output()
        return text.encode(output.name, "surrogateescape" if output.name == "utf-8" else "xmlcharrefreplace")

    def _source(self, group: Group) -> str:
        return "".join(cue.lead + cue.body + cue.trail for cue in group.cues) + self._tail(group)

    def _tail(self, group: Group) -> str:
        scan = self._load().scan
        return scan.tail if group.first + len(group.cues) == len(scan.cues) else ""

    def _lay(self, group: Group, translations: Sequence[Translation]) -> list[_Laid]:
        """The new texts of the cues of a group, one for each; what was laid last is at hand, for its notes."""
        if self._laid is not None and self._laid[0] is group and self._laid[1] is translations:
            return self._laid[2]
        words = _Words()
        for sentence, translation in zip(group.sentences, translations, strict=False):
            text = " ".join((translation.text or "").split())
            same = not width(text) or text == sentence.text
            held = bool(words.said.get(sentence.slots[0]))
            pieces = sentence.pieces if same else _pieces(sentence, text, self.layout.direction.target, held)
            for slot, piece in zip(sentence.slots, pieces, strict=True):
                words.said.setdefault(slot, []).append(piece)
                if not same:
                    words.changed.add(slot)
        laid = [_lay_cue(cue, c, group.parts[c], words, self.layout) for c, cue in enumerate(group.cues)]
        self._laid = (group, translations, laid)
        return laid


class Srt(_Subtitles):
    name: ClassVar[str] = "srt"
    suffixes: ClassVar[tuple[str, ...]] = (".srt",)
    escaped: ClassVar[bool] = False

    def scan(self, text: str) -> Scan:
        return scan_srt(text)


class Vtt(_Subtitles):
    name: ClassVar[str] = "vtt"
    suffixes: ClassVar[tuple[str, ...]] = (".vtt",)
    escaped: ClassVar[bool] = True

    def scan(self, text: str) -> Scan:
        return scan_vtt(text)

    def has_nothing(self, scan: Scan) -> bool:
        return not scan.tail.strip() or scan.tail.startswith("WEBVTT")


def _record(group: Group, offset: int, data: bytes, after: Position) -> Record | Rejected:
    span = len(group.cues)
    body = group.cues[0].body
    if span == 1 and (stray := STRAY_BYTE.search(body)):
        byte = ord(stray[0]) - 0xDC00
        return Rejected(group.first, offset, f"invalid_utf8: byte 0x{byte:02x}", data, after, span=span)
    texts: list[str | None] = [sentence.text for sentence in group.sentences]
    return Record(group.first, offset, texts or [body], group, after, span)


def _pieces(sentence: Sentence, text: str, target: str, held: bool) -> list[str]:
    """The translation of a sentence cut over its slots.

    ``held`` says that the first of them holds the end of another sentence: then none of this one need stand there.
    """
    shares = [float(len(piece)) for piece in sentence.pieces]
    return balance(share_out(text, shares, target, skip_first=held), sentence.text)


def _lay_cue(cue: Cue, number: int, parts: Sequence[str | Unit], words: _Words, layout: Layout) -> _Laid:
    slots = [Slot(number, p) for p in range(len(parts))]
    if not words.changed.intersection(slots):
        return _Laid(cue.body)
    target = layout.direction.target
    body = ""
    for slot, part in zip(slots, parts, strict=True):
        if isinstance(part, str) or slot not in words.changed:
            body += raw(part)
        else:
            body += _lay_unit(part, " ".join(filter(None, words.said[slot])), body, target, cue.newline)
    lines = [line for line in _LINE_END.split(body) if line.strip()]
    is_long = len(lines) > LINES or any(width(line) > LINE_WIDTH[target] for line in lines)
    if layout.bilingual:
        body += cue.newline + _POSITION.sub("", cue.body)
    return _Laid(body, is_long)


def _lay_unit(unit: Unit, text: str, above: str, target: str, newline: str) -> str:
    """``text`` in the place of the unit's, broken into lines; ``above`` is what stands before it in the cue."""
    before = width(_LINE_END.split(above + unit.open)[-1])
    lines = break_lines(text, target, before, width(unit.close))
    opening, closing = unit.each
    return unit.open + newline.join(opening + escape(line, unit) + closing for line in lines) + unit.close
