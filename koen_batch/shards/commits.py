"""What workers commit: the objects of a shard, and the marker that says which they are.

A part's files are uploaded under names that hold a hash of their content, then the marker is written, whole or not at
all. So two workers at the same shard disturb nobody: equal parts have equal names, other ones other names, and the
last marker says which of them are the shard.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from koen_batch.output import Tally
from koen_batch.shards.manifest import Manifest, Shard, ranges
from koen_batch.shards.storage import Storage
from koen_batch.workdir import file_hash

DONE, PARTS = "done", "parts"
FILES = ("data", "rejects.jsonl", "flagged.jsonl", "models.jsonl")
"""What a part may hold (:mod:`koen_batch.output`)."""


@dataclass(frozen=True, slots=True)
class Object:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """A committed shard. Its parts are what ``part.json`` says of each, and its files by name."""

    job: str
    shard: int
    parts: list[tuple[dict[str, Any], dict[str, Object]]]
    at: float
    """Seconds since 1970."""
    machine: str

    @property
    def tally(self) -> Tally:
        tally = Tally()
        for facts, _ in self.parts:
            tally.add(Tally.load(facts["tally"]))
        return tally

    @property
    def objects(self) -> list[Object]:
        return [one for _, files in self.parts for one in files.values()]

    def wrong(self, shard: Shard) -> str | None:
        """Why this cannot be ``shard``; None if it can."""
        own = f"{PARTS}/{shard.number:06d}/"
        for name, one in ((name, one) for _, files in self.parts for name, one in files.items()):
            if name not in FILES or one.name.rpartition("/")[0] + "/" != own:
                return f"{one.name} is no object of it"
        tally = self.tally
        if not tally.balanced or tally.read != shard.rows:
            return f"{tally.read} of {shard.rows} rows, {tally.written} written and {tally.rejected} rejected"
        if not self.parts or self.parts[-1][0]["next"] != [shard.end.row, shard.end.offset]:
            return "it does not end where the next one begins"
        return None

    def encode(self) -> bytes:
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")

    @classmethod
    def decode(cls, data: bytes) -> Marker | None:
        """The inverse of ``encode``; None where somebody else has written there."""
        try:
            facts = json.loads(data)
            parts = [(told, {name: Object(**one) for name, one in files.items()}) for told, files in facts["parts"]]
            marker = cls(**{**facts, "parts": parts})
            marker.tally  # noqa: B018 (what it is made of must be there)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return marker


def marker_name(shard: int) -> str:
    return f"{DONE}/{shard:06d}.json"


@dataclass(frozen=True, slots=True)
class Survey:
    """What is there of a job: the markers by shard, and the shards that are not there or not whole."""

    markers: dict[int, Marker]
    missing: list[int]
    damaged: dict[int, str]
    """Why, by shard."""

    def complaint(self, job: str) -> str:
        """What is to be done, in one line."""
        told = []
        if self.missing:
            which = ranges(self.missing)
            told.append(f"missing shards: {which}: `koen-batch worker {job} --shard {which}`")
        if self.damaged:
            why = "; ".join(f"{number}: {reason}" for number, reason in list(self.damaged.items())[:3])
            which = ranges(list(self.damaged))
            told.append(f"damaged shards: {which} ({why}): `koen-batch worker {job} --redo --shard {which}`")
        return "; ".join(told)


def survey(storage: Storage, manifest: Manifest) -> Survey:
    """Look at all markers, and at the names and sizes of the objects."""
    there = storage.sizes(DONE)
    names = [name for shard in manifest.shards if (name := marker_name(shard.number)) in there]
    found = storage.read_all(names)
    objects = storage.sizes(PARTS)
    out = Survey({}, [], {})
    for shard in manifest.shards:
        data = found.get(marker_name(shard.number))
        marker = Marker.decode(data) if data is not None else None
        if data is None or (marker and marker.job != manifest.id):
            out.missing.append(shard.number)
        elif reason := _damage(marker, shard, objects):
            out.damaged[shard.number] = reason
        elif marker:
            out.markers[shard.number] = marker
    return out


def _damage(marker: Marker | None, shard: Shard, objects: Mapping[str, int]) -> str | None:
    if marker is None:
        return "its marker is no marker"
    if wrong := marker.wrong(shard):
        return wrong
    for one in marker.objects:
        if objects.get(one.name) != one.size:
            return f"{one.name} has {objects.get(one.name, 'no')} bytes of {one.size}"
    return None


def commit(storage: Storage, manifest: Manifest, shard: int, parts: Sequence[tuple[Path, dict[str, Any]]]) -> Marker:
    """Upload the parts of a shard (each its folder and what its ``part.json`` says), then write the marker."""
    uploaded = []
    for number, (folder, facts) in enumerate(parts):
        files = {}
        for file in (folder / name for name in FILES):
            if file.exists():
                sha256 = file_hash(file)
                name = f"{PARTS}/{shard:06d}/{number:03d}.{file.name}.{sha256[:16]}"
                storage.upload(file, name)
                files[file.name] = Object(name, file.stat().st_size, sha256)
        uploaded.append((facts, files))
    marker = Marker(manifest.id, shard, uploaded, round(time.time(), 3), platform.node())
    storage.write(marker_name(shard), marker.encode())
    return marker


def committed(storage: Storage, manifest: Manifest, shard: Shard) -> Marker | None:
    """The marker of one shard, if it and all its objects are there (in size; ``merge`` compares the hashes)."""
    data = storage.read(marker_name(shard.number))
    marker = Marker.decode(data) if data is not None else None
    if marker is None or marker.job != manifest.id or marker.wrong(shard):
        return None
    return marker if all(storage.size(one.name) == one.size for one in marker.objects) else None
