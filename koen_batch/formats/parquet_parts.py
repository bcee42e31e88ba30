"""Parts of a Parquet output, as Arrow streams, and the row groups that are made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import types

from koen_batch.formats.base import Layout
from koen_batch.formats.parquet_texts import Field
from koen_batch.records import Record, Rejected, Translation

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 1 << 20


class ArrowPart:
    """An Arrow stream: unlike Parquet and the Arrow file format it takes batches with different dictionaries."""

    def __init__(self, path: Path, schema: Any, layout: Layout, fields: Sequence[Field]) -> None:
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


def _reshape(value: Any, depth: int, flow: Iterator[Any]) -> Any:
    if depth == 0:
        return next(flow)
    return None if value is None else [_reshape(inner, depth - 1, flow) for inner in value]


def _wrapped(value: Any, depth: int) -> Any:
    return [_wrapped(value, depth - 1)] if depth else value


def in_lists(type_: Any, depth: int) -> Any:
    return pa.list_(in_lists(type_, depth - 1)) if depth else type_


def codec(metadata: Any) -> str:
    """The codec of most of the source's bytes."""
    sizes: Counter[str] = Counter()
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            sizes[chunk.compression] += chunk.total_compressed_size + 1
    codec = sizes.most_common(1)[0][0] if sizes else "SNAPPY"
    return "NONE" if codec == "UNCOMPRESSED" else codec


def row_groups(parts: Sequence[Path]) -> Iterator[list[Any]]:
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
