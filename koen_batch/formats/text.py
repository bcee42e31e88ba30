"""Plain text: a record a line, cut at ``\\n`` only.

Line ends, blank lines, a byte order mark and a missing last newline stay as they were. A line that cannot be read
keeps its place with its own bytes, so that line N of the output is always the translation of line N of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from koen_batch.errors import InputError
from koen_batch.formats.base import ByteFormat
from koen_batch.records import START, Position, Record, Rejected, Translation

BOM = b"\xef\xbb\xbf"

MAX_LINE = 64 << 20
"""Bytes of one line beyond which it is rejected; it passes through in pieces of this size."""

HEAD_BYTES = 1 << 16

_MAGIC = {
    b"\x1f\x8b": "gzip data (name it .gz)",
    b"\x28\xb5\x2f\xfd": "zstd data (name it .zst)",
    b"\xfd7zXZ": "xz data (unpack it first)",
    b"BZh": "bzip2 data (unpack it first)",
    b"PK\x03\x04": "a zip archive (unpack it first)",
    b"PAR1": "a Parquet file (name it .parquet)",
    b"%PDF-": "a PDF file (extract its text first)",
    b"\xff\xfe": "UTF-16 text (convert it: iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16 text (convert it: iconv -f UTF-16 -t UTF-8)",
}


def refuse_binary(format: ByteFormat) -> None:
    """Raise InputError where the head of the file is not text in UTF-8 or another superset of ASCII."""
    with format.open() as file:
        head = file.read(HEAD_BYTES)
    what = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if what is None and b"\0" in head:
        what = f"binary data (a NUL at byte {head.index(0)}; UTF-16 text must be converted to UTF-8 first)"
    if what:
        raise InputError(f"{format.path}: not the {format.name} file that its name says, but {what}")


class Text(ByteFormat):
    name: ClassVar[str] = "txt"
    line_by_line: ClassVar[bool] = True
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)
    keeps_place: ClassVar[bool] = True
    has_verdict_column: ClassVar[bool] = False

    def inspect(self) -> None:
        refuse_binary(self)

    def read(self, start: Position = START) -> Iterator[Record | Rejected]:
        with self.open() as file:
            inside_long_line = False
            if start.offset:
                file.seek(start.offset - 1)
                inside_long_line = file.read(1) != b"\n"
            elif file.read(len(BOM)) != BOM:
                file.seek(0)
            row, offset = start.row, file.tell()
            while line := file.readline(MAX_LINE):
                begin, offset = offset, offset + len(line)
                begins, ends = not inside_long_line, line.endswith(b"\n") or len(line) < MAX_LINE
                after = Position(row + begins, offset)
                if begins and ends:
                    yield _record(row, begin, line, after)
                else:
                    reason = f"too_large: a line of {MAX_LINE} bytes or more"
                    line_row = row if begins else row - 1
                    yield Rejected(line_row, begin, reason, line[:1024], after, payload=line, span=int(begins))
                row, inside_long_line = after.row, not ends

    def prologue(self) -> bytes:
        with self.open() as file:
            return BOM if file.read(len(BOM)) == BOM else b""

    def raw(self, record: Record) -> bytes:
        line: bytes = record.payload
        return line

    def render(self, record: Record, translations: Sequence[Translation]) -> bytes:
        line = self.raw(record)
        text = (translations[0].text or "").replace("\r\n", "\n").replace("\n", " ")
        if b"\r" not in line[: _size(line)]:
            text = text.replace("\r", " ")
        return text.encode() + line[_size(line) :]

    def render_rejected(self, rejected: Rejected) -> bytes:
        line: bytes = rejected.payload
        return line


def _record(row: int, offset: int, line: bytes, after: Position) -> Record | Rejected:
    try:
        return Record(row, offset, [line[: _size(line)].decode()], line, after)
    except UnicodeDecodeError as error:
        return Rejected(row, offset, f"invalid_utf8: byte {error.start}", line, after, payload=line)


def _size(line: bytes) -> int:
    """Bytes of ``line`` without its end."""
    return len(line) - (2 if line.endswith(b"\r\n") else 1 if line.endswith(b"\n") else 0)
