"""``koen-batch status``: what of a sharded job is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from koen_batch.errors import resumable
from koen_batch.output import Tally
from koen_batch.shards.commits import Marker, survey
from koen_batch.shards.manifest import Manifest, ranges
from koen_batch.shards.storage import Storage


@dataclass(frozen=True)
class Status:
    """What is done of a job. ``damaged`` compares sizes; hashes are compared by ``merge``."""

    job: str
    id: str
    model: str
    shards: int
    done: int
    missing: list[int]
    damaged: dict[int, str]
    records: int
    """Of the whole job."""
    records_read: int
    records_written: int
    records_rejected: int
    verdicts: dict[str, int] = field(default_factory=dict)
    flagged: int = 0
    records_per_second: float | None = None
    """Between the first and the last commit; None before there are two."""
    machines: dict[str, int] = field(default_factory=dict)
    """Shards by the machine that committed them."""

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    def render(self) -> str:
        """In a few lines."""
        lines = [
            f"{self.done} of {self.shards} shards done, {self.records_read} of {self.records} records "
            f"({self.flagged} flagged, {self.records_rejected} rejected), model {self.model}"
        ]
        if self.records_per_second:
            left = (self.records - self.records_read) / self.records_per_second
            lines.append(
                f"{self.records_per_second:.1f} records/s on {len(self.machines)} machines"
                + (f", about {left / 60:.0f} minutes left" if left else "")
            )
        if self.missing:
            lines.append(f"missing: {ranges(self.missing)}")
        lines += [f"damaged: {number}: {reason}" for number, reason in self.damaged.items()]
        if self.done == self.shards:
            lines.append(f"next: koen-batch merge {self.job}")
        return "\n".join(lines)


@resumable()
def of(job: str) -> Status:
    """The status of the job in the folder ``job``, from its markers and the sizes of its objects."""
    storage = Storage(job)
    manifest = Manifest.load(storage)
    found = survey(storage, manifest)
    tally = Tally()
    machines: dict[str, int] = {}
    for marker in found.markers.values():
        tally.add(marker.tally)
        machines[marker.machine] = machines.get(marker.machine, 0) + 1
    return Status(
        job=job,
        id=manifest.id,
        model=manifest.model.name,
        shards=len(manifest.shards),
        done=len(found.markers),
        missing=found.missing,
        damaged=found.damaged,
        records=sum(shard.rows for shard in manifest.shards),
        records_read=tally.read,
        records_written=tally.written,
        records_rejected=tally.rejected,
        verdicts=dict(sorted(tally.verdicts.items())),
        flagged=tally.flagged,
        records_per_second=_rate(list(found.markers.values())),
        machines=dict(sorted(machines.items())),
    )


def _rate(markers: list[Marker]) -> float | None:
    """Records a second from the first commit to the last; those of the first were made before it."""
    ordered = sorted(markers, key=lambda marker: marker.at)
    if len(ordered) < 2 or ordered[-1].at <= ordered[0].at:
        return None
    return round(sum(marker.tally.read for marker in ordered[1:]) / (ordered[-1].at - ordered[0].at), 3)
