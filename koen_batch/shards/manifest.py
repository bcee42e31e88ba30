"""What a sharded job is: settings, model, input files and shards. A pure function of its inputs and settings."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from koen_batch.config import JobConfig, ModelIdentity, job_settings
from koen_batch.errors import InputError, UsageError
from koen_batch.formats.base import Format
from koen_batch.formats.registry import by_name
from koen_batch.job import layout_of, open_format
from koen_batch.records import START, Position
from koen_batch.shards.inputs import Found
from koen_batch.shards.storage import Storage, extents_hash, fetch, filesystem, is_remote, told
from koen_batch.workdir import file_hash

ROWS_PER_SHARD = 10_000
"""As many records as a part of ``translate`` has: seconds of a GPU's work, and a few MB to upload."""

VERSION = 1
MANIFEST, SHARDS = "manifest.json", "shards.jsonl"

Extents = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """An input file."""

    name: str
    """As the user gave it; stands as ``file`` in side files."""
    url: str
    """An absolute path, or a URL."""
    below: str
    """Its path below the folder or glob that named it."""
    format: str
    size: int
    sha256: str
    frame: Extents
    """What the output needs of it beside the shards: a byte order mark, a header, a footer."""
    frame_sha256: str
    first: int
    """Number of its first shard."""
    shards: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of the records of one file."""

    number: int
    file: int
    start: Position
    end: Position
    extents: Extents
    """The bytes of the file that its records are in."""
    sha256: str
    """Of these bytes (:func:`koen_batch.shards.storage.extents_hash`)."""

    @property
    def rows(self) -> int:
        return self.end.row - self.start.row


@dataclass(frozen=True)
class Manifest:
    config: JobConfig
    model: ModelIdentity
    settings: dict[str, Any]
    """All that decides the output, but the inputs (:func:`koen_batch.config.job_settings`)."""
    rows_per_shard: int
    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]

    @cached_property
    def id(self) -> str:
        """16 hex digits of all that is in it."""
        return hashlib.sha256(self._head() + self._lines).hexdigest()[:16]

    def save(self, storage: Storage) -> None:
        """Write it; ``manifest.json`` comes last, and with it the job is there."""
        storage.write(SHARDS, self._lines)
        storage.write(MANIFEST, self._head())

    @classmethod
    def load(cls, storage: Storage) -> Manifest:
        """The manifest of a job's folder; raises UsageError where there is none, or one that is damaged."""
        head = storage.read(MANIFEST)
        if head is None:
            raise UsageError(f"{storage.url}: no {MANIFEST} in it: `koen-batch shard INPUT -o {storage.url}` makes one")
        lines = storage.read(SHARDS) or b""
        try:
            told_ = json.loads(head)
            if told_["version"] != VERSION:
                raise UsageError(f"{storage.url_of(MANIFEST)}: of another version of koen-batch: use that one")
            if told_["shards_sha256"] != hashlib.sha256(lines).hexdigest():
                raise UsageError(f"{storage.url_of(SHARDS)}: damaged: make it again with `koen-batch shard --restart`")
            return cls(
                config=JobConfig.load(told_["config"]),
                model=ModelIdentity(**told_["model"]),
                settings=told_["settings"],
                rows_per_shard=told_["rows_per_shard"],
                sources=tuple(_source(one) for one in told_["files"]),
                shards=tuple(_shard(number, line) for number, line in enumerate(lines.splitlines())),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{storage.url_of(MANIFEST)}: damaged ({error}): make it again with `koen-batch shard --restart`"
            ) from error

    def differences(self, other: Manifest) -> list[str]:
        """What another one says differently, for the user."""
        ours, theirs = self._facts(), other._facts()
        keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        return [f"{key}: {ours.get(key)!r} then, {theirs.get(key)!r} now" for key in keys]

    def format_of(self, source: Source, path: Path) -> Format:
        """The format of ``source``, of which ``path`` holds what is needed."""
        return by_name(source.format)(path, layout_of(self.config))

    def _facts(self) -> dict[str, Any]:
        facts = {**self.settings, "rows per shard": self.rows_per_shard, "inputs": [one.url for one in self.sources]}
        return {**facts, **{f"content of {one.url}": one.sha256[:12] for one in self.sources}}

    def _head(self) -> bytes:
        head = {
            "version": VERSION,
            "config": asdict(self.config),
            "model": asdict(self.model),
            "settings": self.settings,
            "rows_per_shard": self.rows_per_shard,
            "files": [asdict(source) for source in self.sources],
            "shards": len(self.shards),
            "shards_sha256": hashlib.sha256(self._lines).hexdigest(),
        }
        return (json.dumps(head, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")

    @cached_property
    def _lines(self) -> bytes:
        return b"".join(
            json.dumps(
                {
                    "file": shard.file,
                    "start": [shard.start.row, shard.start.offset],
                    "end": [shard.end.row, shard.end.offset],
                    "extents": shard.extents,
                    "sha256": shard.sha256,
                }
            ).encode()
            + b"\n"
            for shard in self.shards
        )


def make(found: Sequence[Found], config: JobConfig, model: ModelIdentity, rows_per_shard: int) -> Manifest:
    """Read the inputs and cut them. A remote one is copied to a temporary file meanwhile, one at a time.

    Raises InputError where an input is refused or cannot be read to its end.
    """
    sources: list[Source] = []
    shards: list[Shard] = []
    for number, one in enumerate(found):
        with tempfile.TemporaryDirectory(prefix="koen-batch-") as folder:
            path = _local(one, Path(folder))
            format = _open(one, path, config)
            mine = list(_cut(format, number, len(shards), rows_per_shard))
            frame = tuple(format.extents(START, START))
            sources.append(
                Source(
                    name=one.name,
                    url=one.url,
                    below=str(one.below),
                    format=format.name,
                    size=path.stat().st_size,
                    sha256=file_hash(path),
                    frame=frame,
                    frame_sha256=extents_hash(path, frame),
                    first=len(shards),
                    shards=len(mine),
                )
            )
            shards += mine
    settings = settings_of(config, model)
    return Manifest(config, model, settings, rows_per_shard, tuple(sources), tuple(shards))


def settings_of(config: JobConfig, model: ModelIdentity) -> dict[str, Any]:
    """All that decides the output, but the input."""
    return job_settings(config, model, input_hash="", format_name=config.format or "by suffix")


def ranges(numbers: Sequence[int]) -> str:
    """``3,5-9``; the inverse of :func:`koen_batch.commands.shards.numbers`."""
    out: list[str] = []
    for begin, end in _runs(sorted(numbers)):
        out.append(str(begin) if begin == end else f"{begin}-{end}")
    return ",".join(out)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    begin = end = None
    for number in numbers:
        if begin is not None and end is not None and number == end + 1:
            end = number
            continue
        if begin is not None and end is not None:
            yield begin, end
        begin = end = number
    if begin is not None and end is not None:
        yield begin, end


def _local(one: Found, folder: Path) -> Path:
    """``one`` on this machine."""
    if not is_remote(one.url):
        return Path(one.url)
    fs, place = filesystem(one.url)
    with told(one.url):
        size = fs.info(place)["size"]
    path = folder / Path(place).name
    fetch(one.url, size, [(0, size)], path)
    return path


def _open(one: Found, path: Path, config: JobConfig) -> Format:
    try:
        return open_format(path, config)
    except InputError as error:
        raise InputError(str(error).replace(str(path), one.name)) from error


def _cut(format: Format, file: int, first: int, rows_per_shard: int) -> Iterator[Shard]:
    """The shards of one file. What is none of the user's records (a blank line) stays with the record before it."""
    hashes: dict[Extents, str] = {}
    for number, (start, end) in enumerate(_stretches(format, rows_per_shard), first):
        extents = tuple(format.extents(start, end))
        if extents not in hashes:
            hashes = {extents: extents_hash(format.path, extents)}  # shards of a compressed file all need all of it
        yield Shard(number, file, start, end, extents, hashes[extents])


def _stretches(format: Format, rows_per_shard: int) -> Iterator[tuple[Position, Position]]:
    start = START
    row = offset = records = 0
    limit = format.layout.limit
    for span, end in format.walk():
        if span and row - start.row >= rows_per_shard and not format.whole:
            yield start, Position(row, offset)
            start, records = Position(row, offset), 0
        row += span
        offset = end
        records += 1
        if limit is not None and row >= limit:
            break
    if records:
        yield start, Position(row, offset)


def _source(facts: dict[str, Any]) -> Source:
    return Source(**{**facts, "frame": _extents(facts["frame"])})


def _shard(number: int, line: bytes) -> Shard:
    facts = json.loads(line)
    return Shard(
        number,
        facts["file"],
        Position(*facts["start"]),
        Position(*facts["end"]),
        _extents(facts["extents"]),
        facts["sha256"],
    )


def _extents(pairs: Sequence[Sequence[int]]) -> Extents:
    return tuple((begin, end) for begin, end in pairs)
