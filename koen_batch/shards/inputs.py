"""The input files of a sharded job: found on this machine or behind a URL, and as much of them as a shard needs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from koen_batch import discovery
from koen_batch.discovery import SIDE_SUFFIXES, WORK_SUFFIX
from koen_batch.errors import InputError
from koen_batch.formats import registry
from koen_batch.shards.storage import Storage, filesystem, is_remote, told


@dataclass(frozen=True, slots=True)
class Found:
    """An input file: ``name`` as the user gave it, ``url`` for every machine, ``below`` below what named it."""

    name: str
    url: str
    below: Path


def search(
    inputs: Sequence[str], job: Storage | None, target: str, format_name: str | None
) -> tuple[list[Found], list[str]]:
    """The files that ``inputs`` stand for, those of this machine first, without those of the ``job`` itself, and what
    to tell the user about files left out. Raises InputError where there are none, or one is of no known format."""
    found: list[Found] = []
    notes: list[str] = []
    if local := [given for given in inputs if not is_remote(given)]:
        files, notes = discovery.search(local, None, target, format_name=format_name)
        found += [Found(str(one.path), str(one.path.absolute()), one.below) for one in files]
    for given in inputs:
        if is_remote(given):
            found += _search_remote(given, format_name)
    own = f"{job.local or job.url}/" if job else None
    files_by_url = {one.url: one for one in found if own is None or not one.url.startswith(own)}
    if not files_by_url:
        raise InputError(f"{' '.join(inputs)}: nothing to translate but the job itself")
    return list(files_by_url.values()), notes


def _search_remote(given: str, format_name: str | None) -> list[Found]:
    """A file, or the supported files of a folder or glob, by their names."""
    fs, path = filesystem(given)
    with told(given):
        if glob.has_magic(path):
            base = path[: min(path.index(sign) for sign in "*?[" if sign in path)].rpartition("/")[0]
            names = [name for name in sorted(fs.glob(path)) if _supported(name, format_name)]
        elif fs.isfile(path):
            names, base = [path], path.rpartition("/")[0]
        else:
            base = path.rstrip("/")
            there = sorted(fs.find(path))
            made = {name.partition(f"{WORK_SUFFIX}/")[0] for name in there if f"{WORK_SUFFIX}/" in name}
            names = [name for name in there if _supported(name, format_name) and name not in made]
    if not names:
        raise InputError(f"{given}: nothing to translate there; check the name")
    if format_name is None:
        registry.known_name(Path(names[0]))
    urls = [fs.unstrip_protocol(name) for name in names]
    return [Found(url, url, Path(name[len(base) :].lstrip("/"))) for url, name in zip(urls, names, strict=True)]


def _supported(name: str, format_name: str | None) -> bool:
    path = Path(name)
    ours = name.endswith(SIDE_SUFFIXES) or any(part.endswith(WORK_SUFFIX) for part in path.parts)
    known = registry.name_of(path)
    return not ours and known is not None and format_name in (None, known)
