"""``koen-batch merge``: from committed shards to the outputs that ``translate`` would have written.

The parts of an output are brought into its working folder, each compared with its hash, and from there on the code is
that of any other job.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from koen_batch import discovery, report
from koen_batch.config import answer_settings, digest, job_settings
from koen_batch.counts import Clock, Counts
from koen_batch.errors import InputError, StoppedError, UsageError, resumable
from koen_batch.formats.base import Format
from koen_batch.output import Output, Tally
from koen_batch.shards.commits import Marker, Object, Survey, survey
from koen_batch.shards.manifest import Manifest, Source
from koen_batch.shards.storage import Storage, extents_hash, fetch, is_remote, private_folder
from koen_batch.workdir import Workdir, file_hash, flagged_of, folder_of, rejects_of

AT_ONCE = 8
"""Objects that are fetched and hashed at the same time."""


@dataclass(frozen=True)
class _Wish:
    """What may stand in the place of an output."""

    restart: bool
    overwrite: bool


@resumable()
def run(
    job: str, output: str | None, *, work: Path | None = None, restart: bool = False, overwrite: bool = False
) -> report.Summary:
    """Assemble the outputs of the job in the folder ``job``; returns the summary, whose ``status`` is 3 where records
    were flagged or rejected.

    ``output`` is ``-o``: a folder, a file or a URL, by default beside each input; ``work`` a folder on this machine
    for what passes through it. Raises StoppedError, with the command that mends it, where shards are missing or
    damaged; UsageError where an output's place is taken.
    """
    begin = time.monotonic()
    storage = Storage(job)
    manifest = Manifest.load(storage)
    found = survey(storage, manifest)
    if complaint := found.complaint(job):
        raise StoppedError(f"{job}: {len(found.markers)} of {len(manifest.shards)} shards are there; {complaint}")
    places = _places(manifest, output)
    folder = work / manifest.id / "merge" if work else private_folder(manifest.id, "merge")
    total = Tally()
    already = []
    for number, (source, place) in enumerate(zip(manifest.sources, places, strict=True)):
        markers = [found.markers[shard] for shard in range(source.first, source.first + source.shards)]
        merging = _Merging(storage, manifest, source, markers, folder / str(number))
        wish = _Wish(restart, overwrite)
        tally, made = merging.into_url(place, wish) if is_remote(place) else merging.into(Path(place), wish)
        total.add(tally)
        already += [] if made else [f"already done: {place}"]
    shutil.rmtree(folder, ignore_errors=True)
    summary = report.summarise(
        total,
        Counts(),
        Clock(),
        segments_now=0,
        seconds=time.monotonic() - begin,
        stages={},
        engine="workers",
        model=manifest.model.name,
        outputs=[],
    )
    summary.outputs = places
    summary.notes = already
    summary.already_done = len(already) == len(places)
    return summary


def _places(manifest: Manifest, output: str | None) -> list[str]:
    """Where the outputs go; raises UsageError where two would go to one place, or into an input's."""
    target = manifest.config.direction.target
    places = discovery.place([(one.url, Path(one.below)) for one in manifest.sources], output, target)
    pairs = [(Path(one.url), Path(place)) for one, place in zip(manifest.sources, places, strict=True)]
    discovery.refuse_unfit(pairs, manifest.config.format)
    return places


class _Merging:
    """One output of a job, from its markers to its place."""

    def __init__(
        self, storage: Storage, manifest: Manifest, source: Source, markers: Sequence[Marker], folder: Path
    ) -> None:
        self._storage = storage
        self._manifest = manifest
        self._source = source
        self._markers = markers
        self._folder = folder
        config, model = manifest.config, manifest.model
        self._fingerprint = job_settings(config, model, input_hash=source.sha256, format_name=source.format)

    def into(self, target: Path, wish: _Wish) -> tuple[Tally, bool]:
        """Make ``target`` and its side files; what is in it, and whether it was made now. Its working folder is that
        of a job of ``translate``, with the same fingerprint."""
        workdir = Workdir(target)
        try:
            return self._make(workdir, wish)
        finally:
            workdir.close()

    def into_url(self, url: str, wish: _Wish) -> tuple[Tally, bool]:
        """As ``into``, here, then upload it: side files, output, and last ``OUT.koen/done.json``, which says that they
        are whole."""
        folder, _, name = url.rpartition("/")
        place = Storage(folder)
        marker = f"{folder_of(Path(name))}/done.json"
        before = place.read(marker)
        if before is not None and not wish.restart:
            done = self._done_before(before, url)
            if place.size(name) == done["size"]:
                return Tally.load(done["tally"]), False
        elif before is None and place.size(name) is not None and not wish.overwrite:
            raise UsageError(f"{url} exists and was not made by this job: --overwrite replaces it, -o names another")
        local = self._folder / name
        workdir = Workdir(local)
        try:
            tally, _ = self._make(workdir, _Wish(restart=False, overwrite=True))
        finally:
            workdir.close()
        for side in (rejects_of(local), flagged_of(local)):
            if side.exists():
                place.upload(side, side.name)
            elif place.size(side.name) is not None:
                place.remove([side.name])
        place.upload(local, name)
        facts = json.loads(workdir.done_file.read_bytes())
        facts |= {"fingerprint": self._fingerprint, "size": local.stat().st_size}
        place.write(marker, json.dumps(facts, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
        return tally, True

    def _done_before(self, marker: bytes, url: str) -> dict[str, Any]:
        """What an earlier merge says that it has put there; raises UsageError where that was another job."""
        done: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            done = json.loads(marker)
        if done.get("fingerprint") != self._fingerprint:
            raise UsageError(f"{url}: made by a job with other settings or another input: --restart makes it anew")
        return done

    def _make(self, workdir: Workdir, wish: _Wish) -> tuple[Tally, bool]:
        config, model = self._manifest.config, self._manifest.model
        facts = {
            "input": self._source.url,
            "config": asdict(config),
            "model": model.name,
            "title": model.title,
            "answer": digest(answer_settings(config, model)).hex(),
            "store": str(workdir.store_file.absolute()),
        }
        workdir.open(self._fingerprint, restart=wish.restart, overwrite=wish.overwrite, facts=facts)
        if done := workdir.finished():
            return Tally.load(done["tally"]), False
        self._bring_parts(workdir)
        output = Output(self._format(), workdir, part_size=1, model=model.name)
        output.finalise({"model": model.title})
        return output.tally, True

    # --- parts ---------------------------------------------------------------------------------------------

    def _bring_parts(self, workdir: Workdir) -> None:
        """The parts of all shards, in order, as those of ``workdir``; raises StoppedError where one is damaged."""
        shutil.rmtree(workdir.parts_folder)
        workdir.prepare_parts()
        parts = [(marker, facts, files) for marker in self._markers for facts, files in marker.parts]

        def bring(number: int) -> tuple[int, str] | None:
            marker, facts, files = parts[number]
            folder = workdir.parts_folder / f"{number:06d}"
            folder.mkdir()
            (folder / "part.json").write_text(json.dumps(facts))
            damaged = next((one for name, one in files.items() if not self._bring(one, folder / name)), None)
            return (marker.shard, f"{damaged.name} has another hash") if damaged else None

        with ThreadPoolExecutor(AT_ONCE) as threads:
            damage = dict(filter(None, threads.map(bring, range(len(parts)))))
        if damage:
            raise StoppedError(f"{self._storage.url}: {Survey({}, [], damage).complaint(self._storage.url)}")

    def _bring(self, one: Object, target: Path) -> bool:
        """``one`` at ``target``, a link where it is on this machine; False if it is not what was committed."""
        if self._storage.local:
            target.symlink_to(os.path.abspath(self._storage.local / one.name))  # noqa: PTH100 (resolves no link)
        else:
            self._storage.download(one.name, target)
        return file_hash(target) == one.sha256

    def _format(self) -> Format:
        """The input's format over what the output needs of it: a byte order mark, a header, a footer."""
        source = self._source
        path = Path(source.url)
        if is_remote(source.url):
            path = self._folder / "frame" / Path(source.below).name
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(source.url, source.size, source.frame, path)
        if not path.exists() or extents_hash(path, source.frame) != source.frame_sha256:
            raise InputError(f"{source.url}: gone or changed since it was cut into shards")
        return self._manifest.format_of(source, path)
