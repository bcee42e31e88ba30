"""Field paths: ``text``, ``meta.title``, ``messages.*.content``; which texts of an object they name, and how the
translations are put together again.

One field gives a plain value, several give an object keyed by path; a wildcard gives a list in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from koen_batch.errors import UsageError

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
NULL = "null"
"""The shape of a null where a list may stand: nothing to translate, and null again in the output."""

_decode_text = msgspec.json.Decoder(str | None).decode


class MissingField(ValueError):
    """The object has no such field."""


@dataclass(frozen=True, slots=True)
class Path:
    """A field path; ``steps`` are keys, ``*`` for every element of a list."""

    text: str
    steps: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The keys on the way, without wildcards; the first is a member of the record itself."""
        return tuple(step for step in self.steps if step != "*")


def parse(text: str) -> Path:
    """The path that ``text`` writes; raises UsageError where it does not begin with a key."""
    path = Path(text, tuple(text.split(".")))
    if path.steps[0] in ("", "*"):
        raise UsageError(f"--field {text}: a path begins with the name of a field: messages.*.content")
    return path


class Values(msgspec.Struct, frozen=True):
    """The texts that the paths name, flat, and for each path the shape in which they stood: None for a single
    value, ``NULL`` for a list that is null, else a nested list of the number of values."""

    texts: list[str | None]
    shapes: list[Any]
    fields: Sequence[Path]


def collect(members: Mapping[str, msgspec.Raw], fields: Sequence[Path]) -> Values:
    """The values of ``fields`` in an object; what is null on the way to a text is a null.

    Raises MissingField, or TypeError for a value that is no string.
    """
    texts: list[str | None] = []
    return Values(texts, [_descend(members, field.steps, field.text, texts) for field in fields], fields)


def _descend(members: Mapping[str, msgspec.Raw], steps: Sequence[str], name: str, texts: list[str | None]) -> Any:
    raw = members.get(steps[0])
    if raw is None:
        raise MissingField(name)
    return _value(raw, steps[1:], name, texts)


def _value(raw: msgspec.Raw, steps: Sequence[str], name: str, texts: list[str | None]) -> Any:
    if not steps:
        try:
            texts.append(_decode_text(raw))
        except msgspec.ValidationError as error:
            raise TypeError(f"{name} holds no string") from error
        return None
    if bytes(raw) == b"null":
        if "*" in steps:
            return NULL
        texts.append(None)
        return None
    try:
        if steps[0] == "*":
            return [_value(element, steps[1:], name, texts) for element in _decode_list(raw)]
        return _descend(_decode_object(raw), steps, name, texts)
    except msgspec.ValidationError as error:
        raise TypeError(f"{name} does not lead through {'a list' if steps[0] == '*' else 'an object'}") from error


def rebuild(values: Values, column: Sequence[Any]) -> Any:
    """``column``, one value for each text, in the shape in which the texts stood."""
    if len(values.shapes) == 1 and values.shapes[0] is None:
        return column[0]
    flow = iter(column)
    rebuilt = {field.text: _shape(shape, flow) for field, shape in zip(values.fields, values.shapes, strict=True)}
    return rebuilt if len(rebuilt) > 1 else rebuilt[values.fields[0].text]


def _shape(shape: Any, flow: Iterator[Any]) -> Any:
    if shape == NULL:
        return None
    return next(flow) if shape is None else [_shape(element, flow) for element in shape]
