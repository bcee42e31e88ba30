"""Parquet: what is not translated is never turned into Python values, and comes out equal in value and type.

A record refers to its Arrow batch and its index there. A part is an Arrow stream; the output is assembled from the
parts in row groups of some 16 MB, with the codec of the source.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

# Read by pyarrow when it is imported. Its own allocator keeps pages of row groups that are long written.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import pyarrow as pa
import pyarrow.parquet as pq

from koen_batch.errors import InputError
from koen_batch.formats.base import Format, Layout, Part
from koen_batch.formats.parquet_parts import ArrowPart, codec, in_lists, row_groups
from koen_batch.formats.parquet_texts import Field, check_dictionaries, records, resolve
from koen_batch.records import START, Position, Record, Rejected

BATCH_BYTES = 8 << 20
BATCH_ROWS = 4096
READ_BUFFER_BYTES = 1 << 20
"""Pages are read through a buffer of this size, so that a row group is never in memory as a whole."""

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file; the last for names of columns."""


class Parquet(Format):
    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self._names = [layout.output_field, f"{layout.output_field}_verdict"]
        self._types = [pa.string(), pa.string()]
        if layout.with_confidence:
            self._names.append(f"{layout.output_field}_confidence")
            self._types.append(pa.float32())

    # --- reading -------------------------------------------------------------------------------------------

    def inspect(self) -> None:
        with self._open() as file:
            schema = file.schema_arrow
            self._fields(schema)
            about = file.metadata
            rows = sum(about.row_group(group).num_rows for group in range(about.num_row_groups))
            if rows != about.num_rows:
                raise InputError(
                    f"{self.path}: no whole Parquet file ({about.num_rows} rows, {rows} in its row groups); "
                    "get the whole file again"
                )
            for name in self._names:
                if name in schema.names:
                    raise InputError(f"{self.path}: there is a column {name} already: --output-field names another")
            for group in range(file.num_row_groups):
                if any(batch.num_rows for batch in self._batches(file, group, 1, only_first=True)):
                    break

    def read(self, start: Position = START) -> Iterator[Record | Rejected]:
        with self._open() as file:
            fields = self._fields(file.schema_arrow)
            row = 0
            for group in range(file.num_row_groups):
                about = file.metadata.row_group(group)
                if row + about.num_rows <= start.row:
                    row += about.num_rows
                    continue
                rows = BATCH_BYTES * about.num_rows // max(about.total_byte_size, 1)
                end = row + about.num_rows
                for batch in self._batches(file, group, min(max(rows, 1), BATCH_ROWS)):
                    if row + batch.num_rows > start.row:
                        yield from records(batch, fields, row, max(start.row - row, 0))
                    row += batch.num_rows
                if row != end:  # pyarrow does not compare
                    raise InputError(
                        f"{self.path} in row group {group + 1} of {file.num_row_groups}: no whole Parquet file (its "
                        f"rows end at {row}, its footer says {end}); get the whole file again"
                    )

    def raw(self, record: Record) -> bytes:
        """The texts of the record, a line each."""
        return b"\n".join((text or "").encode() for text in record.texts)

    def count(self) -> int | None:
        with self._open() as file:
            rows: int = file.metadata.num_rows
            return rows

    def windows(self, count: int, share: float) -> list[tuple[Position, Position]]:
        """At the beginnings of row groups: up to a row inside one, the group must be decoded."""
        with self._open() as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        *begins, rows = accumulate(sizes, initial=0)
        count = min(count, len(begins))
        chosen = [begins[number * len(begins) // count] for number in range(count)]
        return [(Position(row), Position(row + ceil(rows * share / count))) for row in chosen]

    def walk(self) -> Iterator[tuple[int, int]]:
        return ((1, 0) for _ in range(self.count() or 0))

    def extents(self, start: Position, end: Position) -> list[tuple[int, int]]:
        """The footer, and the row groups that the rows are in: neighbours, so one range (Parquet has them in order).

        A file begins with 4 magic bytes and ends with the footer, its length in 4 bytes and 4 magic bytes again
        (https://parquet.apache.org/docs/file-format/).
        """
        size = self.path.stat().st_size
        with self._open() as file:
            about = file.metadata
            wanted: list[tuple[int, int]] = []
            row = 0
            for group in (about.row_group(number) for number in range(about.num_row_groups)):
                if row < end.row and start.row < row + group.num_rows:
                    wanted += [_chunk_extent(group.column(number)) for number in range(group.num_columns)]
                row += group.num_rows
            footer = (size - 8 - about.serialized_size, size)
        rows = [(min(begin for begin, _ in wanted), max(stop for _, stop in wanted))] if wanted else []
        return [(0, 4), *rows, footer]

    def _open(self) -> Any:
        try:
            return pq.ParquetFile(self.path, buffer_size=READ_BUFFER_BYTES)
        except _DAMAGE as error:
            raise self._refuse(error) from error

    def _batches(self, file: Any, group: int, rows: int, only_first: bool = False) -> Iterator[Any]:
        """The batches of one row group. One at a time: nested dictionaries cannot be read across row groups."""
        batches = file.iter_batches(batch_size=rows, row_groups=[group])
        while True:
            try:
                batch = next(batches, None)
                if batch is not None:
                    check_dictionaries(batch)
            except _DAMAGE as error:
                if isinstance(error, OSError) and error.errno:
                    raise  # the machine, not the file
                raise self._refuse(error, f" in row group {group + 1} of {file.num_row_groups}") from error
            if batch is None:
                return
            yield batch
            if only_first:
                return

    def _refuse(self, error: Exception, where: str = "") -> InputError:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "crypt" in told.lower():
            what = "encrypted; decrypt it first"
        elif isinstance(error, pa.ArrowNotImplementedError) or "not supported" in told:
            what = f"what it uses cannot be read ({told}); write it again, e.g. with zstd"
        elif isinstance(error, OSError) and error.errno:
            what = f"cannot be read ({error.strerror}); check the path and its permissions"
        else:
            what = f"no whole Parquet file ({told}); get the whole file again"
        return InputError(f"{self.path}{where}: {what}")

    def _fields(self, schema: Any) -> list[Field]:
        return resolve(schema, self.layout.fields, self.path)

    # --- writing -------------------------------------------------------------------------------------------

    def part(self, path: Path) -> Part:
        with self._open() as file:
            fields = self._fields(file.schema_arrow)
            return ArrowPart(path, self._output_schema(file.schema_arrow, fields), self.layout, fields)

    def assemble(self, parts: Sequence[Path], target: Path) -> None:
        with self._open() as file:
            schema = self._output_schema(file.schema_arrow, self._fields(file.schema_arrow))
            compression = codec(file.metadata)
        with pq.ParquetWriter(target, schema, compression=compression) as writer:
            for batches in row_groups(parts):
                table = pa.Table.from_batches(batches, schema)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                del table, batches
                pa.default_memory_pool().release_unused()

    def _output_schema(self, schema: Any, fields: Sequence[Field]) -> Any:
        for name, type_ in zip(self._names, self._types, strict=True):
            columns = [in_lists(type_, field.depth) for field in fields]
            if len(fields) > 1:
                columns = [pa.struct(list(zip(self.layout.fields, columns, strict=True)))]
            schema = schema.append(pa.field(name, columns[0]))
        return schema


def _chunk_extent(chunk: Any) -> tuple[int, int]:
    """The bytes of a column in a row group: its dictionary, where it has one, and its pages."""
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page:
        begin = min(begin, chunk.dictionary_page_offset)
    return begin, begin + chunk.total_compressed_size
