"""Where the texts of a Parquet file stand in its columns, and the records of an Arrow batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from koen_batch.errors import InputError
from koen_batch.records import Position, Record, Rejected


@dataclass(frozen=True, slots=True)
class Step:
    """Into the child of a struct by index, or into every element of a list (None)."""

    child: int | None


@dataclass(frozen=True, slots=True)
class Field:
    """Where the texts of a field path stand: a column, and the steps from there."""

    column: int
    steps: tuple[Step, ...]

    @property
    def depth(self) -> int:
        """How many lists lie on the way."""
        return sum(step.child is None for step in self.steps)


def resolve(schema: Any, names: Sequence[str], path: Path) -> list[Field]:
    """Where the fields ``names`` stand; raises InputError for ``path`` where one is none, or holds no strings."""
    return [_find(schema, name, path) for name in names]


def _find(schema: Any, name: str, path: Path) -> Field:
    names: list[str] = schema.names
    column, *rest = [name] if name in names else name.split(".")
    if names.count(column) > 1:
        raise InputError(f"{path}: more than one column is called {column}: rename one of them")
    if column not in names:
        raise _no_field(schema, name, path)
    steps = []
    type_ = schema.field(column).type
    for key in rest:
        child = type_.get_field_index(key) if types.is_struct(type_) else -1
        if key == "*" and _is_list(type_):
            steps.append(Step(None))
            type_ = type_.value_type
        elif child >= 0:
            steps.append(Step(child))
            type_ = type_.field(child).type
        else:
            raise _no_field(schema, name, path)
    if not _is_text(type_):
        raise InputError(f"{path}: {name} holds {type_}, not strings: --field names {_choice(schema)}")
    return Field(names.index(column), tuple(steps))


def _no_field(schema: Any, name: str, path: Path) -> InputError:
    return InputError(f"{path}: no field {name}: --field names {_choice(schema)}")


def check_dictionaries(batch: Any) -> None:
    """Raise ArrowInvalid where an index points beyond its dictionary, which nothing else checks."""
    for column in batch.columns:
        if types.is_dictionary(column.type):
            highest = pc.max(column.indices).as_py()
            if highest is not None and highest >= len(column.dictionary):
                raise pa.ArrowInvalid(f"an index of {highest} into a dictionary of {len(column.dictionary)} values")


def records(batch: Any, fields: Sequence[Field], row: int, first: int) -> Iterator[Record | Rejected]:
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


def _values(array: Any, steps: Sequence[Step], leaf: Callable[[Any], list[Any]]) -> list[Any]:
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


def _texts(nested: Sequence[Any], fields: Sequence[Field]) -> list[Any]:
    texts: list[Any] = []
    for value, field in zip(nested, fields, strict=True):
        level = [value]
        for _ in range(field.depth):
            level = list(chain.from_iterable(inner for inner in level if inner is not None))
        texts += level
    return texts


def _is_text(type_: Any) -> bool:
    plain = type_.value_type if types.is_dictionary(type_) else type_
    return any(is_one(plain) for is_one in (types.is_string, types.is_large_string, types.is_string_view)) or bool(
        types.is_null(type_)
    )


def _is_list(type_: Any) -> bool:
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_one(type_) for is_one in kinds)


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
