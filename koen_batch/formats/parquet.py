"""Parquet: what is not translated is never turned into Python values, and comes out equal in value and type.

A record refers to its Arrow batch and its index there. A part is an Arrow stream; the output is assembled from the
parts in row groups of some 16 MB, with the codec of the source.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

# Read by pyarrow when it is imported. Its own allocator keeps pages of row groups that are long written.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from koen_batch.errors import InputError
from koen_batch.formats.base import Format, Layout, Part
from koen_batch.records import START, Position, Record, Rejected, Translation

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 1 << 20
BATCH_BYTES = 8 << 20
BATCH_ROWS = 4096
READ_BUFFER_BYTES = 1 << 20
"""Pages are read through a buffer of this size, so that a row group is never in memory as a whole."""

_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file; the last for names of columns."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Into the child of a struct by index, or into every element of a list (None)."""

    child: int | None


@dataclass(frozen=True, slots=True)
class _Field:
    """Where the texts of a field path stand: a column, and the steps from there."""

    column: int
    steps: tuple[_Step, ...]

    @property
    def depth(self) -> int:
        """How many lists lie on the way."""
        return sum(step.child is None for step in self.steps)


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
            self._resolve(schema)
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
            fields = self._resolve(file.schema_arrow)
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
                        yield from _records(batch, fields, row, max(start.row - row, 0))
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
                    _check_dictionaries(batch)
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

    def _resolve(self, schema: Any) -> list[_Field]:
        return [self._find(schema, name) for name in self.layout.fields]

    def _find(self, schema: Any, name: str) -> _Field:
        names: list[str] = schema.names
        column, *rest = [name] if name in names else name.split(".")
        if names.count(column) > 1:
            raise InputError(f"{self.path}: more than one column is called {column}: rename one of them")
        if column not in names:
            raise self._no_field(schema, name)
        steps = []
        type_ = schema.field(column).type
        for key in rest:
            child = type_.get_field_index(key) if types.is_struct(type_) else -1
            if key == "*" and _is_list(type_):
                steps.append(_Step(None))
                type_ = type_.value_type
            elif child >= 0:
                steps.append(_Step(child))
                type_ = type_.field(child).type
            else:
                raise self._no_field(schema, name)
        if not _is_text(type_):
            raise InputError(f"{self.path}: {name} holds {type_}, not strings: --field names {_choice(schema)}")
        return _Field(names.index(column), tuple(steps))

    def _no_field(self, schema: Any, name: str) -> InputError:
        return InputError(f"{self.path}: no field {name}: --field names {_choice(schema)}")

    # --- writing -------------------------------------------------------------------------------------------

    def part(self, path: Path) -> Part:
        with self._open() as file:
            fields = self._resolve(file.schema_arrow)
            return _ParquetPart(path, self._output_schema(file.schema_arrow, fields), self.layout, fields)

    def assemble(self, parts: Sequence[Path], target: Path) -> None:
        with self._open() as file:
            schema = self._output_schema(file.schema_arrow, self._resolve(file.schema_arrow))
            codec = _codec(file.metadata)
        with pq.ParquetWriter(target, schema, compression=codec) as writer:
            for batches in _row_groups(parts):
                table = pa.Table.from_batches(batches, schema)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                del table, batches
                pa.default_memory_pool().release_unused()

    def _output_schema(self, schema: Any, fields: Sequence[_Field]) -> Any:
        for name, type_ in zip(self._names, self._types, strict=True):
            columns = [_in_lists(type_, field.depth) for field in fields]
            if len(fields) > 1:
                columns = [pa.struct(list(zip(self.layout.fields, columns, strict=True)))]
            schema = schema.append(pa.field(name, columns[0]))
        return schema


class _ParquetPart:
    """An Arrow stream: unlike Parquet and the Arrow file format it takes batches with different dictionaries."""

    def __init__(self, path: Path, schema: Any, layout: Layout, fields: Sequence[_Field]) -> None:
        self._schema = schema
        self._layout = layout
        self._fields = fields
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, schema)
        self._batch: Any = None
        self._runs: list[tuple[int, int]] = []
        self._new: list[tuple[Any, ...]] = []

    def write(self, record: Record, translations: Sequence[Translation]) -> None:
        batch, index, nested = record.payload
        columns: list[list[Any]] = [
            [translation.text for translation in translations],
            [",".join(translation.verdict) for translation in translations],
        ]
        if self._layout.with_confidence:
            columns.append([translation.confidence for translation in translations])
        if nested is not None:
            columns = [[self._nest(column, nested)] for column in columns]
        self._add(batch, index, tuple(column[0] for column in columns))

    def keep(self, rejected: Rejected) -> None:
        batch, index, _ = rejected.payload
        reason = rejected.reason.partition(":")[0]
        verdicts = [_wrapped(reason, field.depth) for field in self._fields]
        verdict = verdicts[0] if len(verdicts) == 1 else dict(zip(self._layout.fields, verdicts, strict=True))
        self._add(batch, index, (None, verdict, None)[: 2 + self._layout.with_confidence])

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def _nest(self, column: Sequence[Any], nested: Sequence[Any]) -> Any:
        """``column``, one value for each text, in the shape of the record's nested values."""
        flow = iter(column)
        values = [_reshape(value, field.depth, flow) for value, field in zip(nested, self._fields, strict=True)]
        return values[0] if len(values) == 1 else dict(zip(self._layout.fields, values, strict=True))

    def _add(self, batch: Any, index: int, new: tuple[Any, ...]) -> None:
        if batch is not self._batch:
            self._flush()
            self._batch = batch
        if self._runs and self._runs[-1][1] == index:
            self._runs[-1] = (self._runs[-1][0], index + 1)
        else:
            self._runs.append((index, index + 1))
        self._new.append(new)

    def _flush(self) -> None:
        if not self._new:
            return
        slices = [self._batch.slice(begin, end - begin) for begin, end in self._runs]
        rows = slices[0] if len(slices) == 1 else pa.concat_batches(slices)  # take() does not know every type
        fields = list(self._schema)[len(rows.columns) :]
        new = [pa.array(values, field.type) for values, field in zip(zip(*self._new, strict=True), fields, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays([*rows.columns, *new], schema=self._schema))
        self._batch, self._runs, self._new = None, [], []


# --- texts of a batch --------------------------------------------------------------------------------------


def _check_dictionaries(batch: Any) -> None:
    """Raise ArrowInvalid where an index points beyond its dictionary, which nothing else checks."""
    for column in batch.columns:
        if types.is_dictionary(column.type):
            highest = pc.max(column.indices).as_py()
            if highest is not None and highest >= len(column.dictionary):
                raise pa.ArrowInvalid(f"an index of {highest} into a dictionary of {len(column.dictionary)} values")


def _records(batch: Any, fields: Sequence[_Field], row: int, first: int) -> Iterator[Record | Rejected]:
    """The records of ``batch`` from index ``first`` on; its first row is row ``row`` of the file."""
    flat = len(fields) == 1 and not fields[0].depth
    size = batch.nbytes // max(batch.num_rows, 1)
    try:
        columns = [_values(batch.column(field.column), field.steps, _strings) for field in fields]
        readable = True
    except UnicodeDecodeError:
        columns = [_values(batch.column(field.column), field.steps, _binary) for field in fields]
        readable = False
    for index in range(first, batch.num_rows):
        after = Position(row + index + 1)
        nested = None if flat else [column[index] for column in columns]
        texts = [columns[0][index]] if nested is None else _texts(nested, fields)
        if not readable:
            cells = texts
            try:
                texts = [None if cell is None else cell.decode() for cell in cells]
            except UnicodeDecodeError as error:
                raw = b"\n".join(cell or b"" for cell in cells)
                reason = f"invalid_utf8: byte {error.start}"
                yield Rejected(row + index, 0, reason, raw, after, payload=(batch, index, nested))
                continue
        yield Record(row + index, 0, texts, (batch, index, nested), after, size=size)


def _values(array: Any, steps: Sequence[_Step], leaf: Callable[[Any], list[Any]]) -> list[Any]:
    """What the steps lead to, for each row of ``array``: a text or None, in as many lists as lie on the way."""
    if not steps:
        return leaf(array)
    if steps[0].child is not None:
        return _values(pc.struct_field(array, [steps[0].child]), steps[1:], leaf)
    flow = iter(_values(array.flatten(), steps[1:], leaf))
    sizes = pc.list_value_length(array).to_pylist()
    return [None if size is None else [next(flow) for _ in range(size)] for size in sizes]


def _strings(array: Any) -> list[str | None]:
    values: list[str | None] = (array.dictionary_decode() if types.is_dictionary(array.type) else array).to_pylist()
    return values


def _binary(array: Any) -> list[bytes | None]:
    plain = array.dictionary_decode() if types.is_dictionary(array.type) else array
    values: list[bytes | None] = plain.cast(pa.large_binary()).to_pylist()
    return values


def _texts(nested: Sequence[Any], fields: Sequence[_Field]) -> list[Any]:
    texts: list[Any] = []
    for value, field in zip(nested, fields, strict=True):
        level = [value]
        for _ in range(field.depth):
            level = list(chain.from_iterable(inner for inner in level if inner is not None))
        texts += level
    return texts


def _reshape(value: Any, depth: int, flow: Iterator[Any]) -> Any:
    if depth == 0:
        return next(flow)
    return None if value is None else [_reshape(inner, depth - 1, flow) for inner in value]


def _wrapped(value: Any, depth: int) -> Any:
    return [_wrapped(value, depth - 1)] if depth else value


# --- types and row groups ----------------------------------------------------------------------------------


def _is_text(type_: Any) -> bool:
    plain = type_.value_type if types.is_dictionary(type_) else type_
    return any(is_one(plain) for is_one in (types.is_string, types.is_large_string, types.is_string_view)) or bool(
        types.is_null(type_)
    )


def _is_list(type_: Any) -> bool:
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_one(type_) for is_one in kinds)


def _in_lists(type_: Any, depth: int) -> Any:
    return pa.list_(_in_lists(type_, depth - 1)) if depth else type_


def _choice(schema: Any) -> str:
    """The fields of ``schema`` that hold strings, for a message."""
    paths = [path for field in schema for path in _text_paths(field.type, field.name)]
    if not paths:
        return "a string field, of which there is none here"
    return "one of " + ", ".join(paths[:50]) + (", …" if len(paths) > 50 else "")


def _text_paths(type_: Any, path: str) -> Iterator[str]:
    if types.is_struct(type_):
        for child in type_:
            yield from _text_paths(child.type, f"{path}.{child.name}")
    elif _is_list(type_):
        yield from _text_paths(type_.value_type, f"{path}.*")
    elif _is_text(type_):
        yield path


def _chunk_extent(chunk: Any) -> tuple[int, int]:
    """The bytes of a column in a row group: its dictionary, where it has one, and its pages."""
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page:
        begin = min(begin, chunk.dictionary_page_offset)
    return begin, begin + chunk.total_compressed_size


def _codec(metadata: Any) -> str:
    """The codec of most of the source's bytes."""
    sizes: Counter[str] = Counter()
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            sizes[chunk.compression] += chunk.total_compressed_size + 1
    codec = sizes.most_common(1)[0][0] if sizes else "SNAPPY"
    return "NONE" if codec == "UNCOMPRESSED" else codec


def _row_groups(parts: Sequence[Path]) -> Iterator[list[Any]]:
    """The batches of the parts, gathered by size."""
    gathered: list[Any] = []
    size = rows = 0
    for part in parts:
        with pa.OSFile(str(part), "rb") as file:
            for batch in pa.ipc.open_stream(file):
                gathered.append(batch)
                size += sum(_bytes(column) for column in batch.columns)
                rows += batch.num_rows
                if size >= ROW_GROUP_BYTES or rows >= ROW_GROUP_ROWS:
                    yield gathered
                    gathered, size, rows = [], 0, 0
    if gathered:
        yield gathered


def _bytes(column: Any) -> int:
    """Bytes of a column; a dictionary is shared by many batches and does not count."""
    size: int = (column.indices if types.is_dictionary(column.type) else column).nbytes
    return size
