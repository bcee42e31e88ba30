"""``koen-batch shard``: write the manifest of a job, or find that it is there."""

from __future__ import annotations

from collections.abc import Sequence

from koen_batch.config import JobConfig, ModelIdentity
from koen_batch.errors import UsageError, resumable
from koen_batch.shards import inputs
from koen_batch.shards.commits import DONE
from koen_batch.shards.manifest import MANIFEST, Manifest, make
from koen_batch.shards.storage import Storage


@resumable()
def run(
    given: Sequence[str], job: str, config: JobConfig, model: ModelIdentity, *, rows_per_shard: int, restart: bool
) -> list[str]:
    """Cut the inputs ``given`` into shards, in the folder ``job``; returns what to tell the user.

    A manifest that is there already and says the same stays untouched; UsageError where it says something else, unless
    ``restart``: then the markers of what was committed go first.
    """
    storage = Storage(job)
    found, notes = inputs.search(given, storage, config.direction.target, config.format)
    manifest = make(found, config, model, rows_per_shard)
    if storage.read(MANIFEST) is not None and not restart:
        there = Manifest.load(storage)
        if differences := there.differences(manifest):
            raise UsageError(f"{job}: cut with other settings ({'; '.join(differences)}): --restart cuts it anew")
        return [*notes, f"already there: {describe(there)} in {job}"]
    storage.remove(list(storage.sizes(DONE)))
    manifest.save(storage)
    return [*notes, f"{describe(manifest)} in {job}", f"next: koen-batch worker {job} --shard 0 --of 1, then merge"]


def describe(manifest: Manifest) -> str:
    rows = sum(shard.rows for shard in manifest.shards)
    return f"{rows} records of {len(manifest.sources)} files in {len(manifest.shards)} shards"
