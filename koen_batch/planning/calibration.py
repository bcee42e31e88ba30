"""How fast this machine translates with a model: measured once on the real engine, and kept."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from koen_batch import job
from koen_batch.config import JobConfig
from koen_batch.conversion import cache_folder
from koen_batch.engines import hardware
from koen_batch.engines.start import Prepared, Wishes
from koen_batch.ladder import LADDER
from koen_batch.session import RunOptions


class Key(msgspec.Struct, frozen=True):
    """What the speed depends on."""

    machine: str
    model: str
    revision: str
    adapter: str
    engine: str
    settings: dict[str, str | int | float | bool | None]
    replicas: int
    direction: str


class Calibration(msgspec.Struct, frozen=True):
    """What was measured, and when (UTC). ``seconds`` are those from when the engine was up to the last answer: the
    window fills and drains in them, so that a long job is somewhat faster."""

    key: Key
    date: str
    sentences: int
    source_tokens: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    load_seconds: float

    @property
    def rate(self) -> float:
        """Output tokens a second."""
        return self.output_tokens / self.seconds

    @property
    def ratio(self) -> float:
        """Output tokens for each of the source, retries included."""
        return self.output_tokens / max(self.source_tokens, 1)


def key_of(prepared: Prepared, config: JobConfig) -> Key:
    machine = hardware.detect()
    gpus = ", ".join(gpu.name for gpu in machine.gpus)
    spec = prepared.plan.specs[0]
    return Key(
        machine=gpus or f"{machine.cpu_name}, {len(machine.cpus)} cores",
        model=prepared.identity.name,
        revision=prepared.identity.revision,
        adapter=prepared.identity.adapter,
        engine=spec.name,
        settings={name: value for name, value in spec.settings.items() if name != "model"},
        replicas=len(prepared.plan.specs),
        direction=str(config.direction),
    )


def load(key: Key) -> Calibration | None:
    """What was measured before on this machine; None where nothing was, or the file cannot be read."""
    try:
        found = msgspec.json.decode(_file(key).read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.key == key else None


def measure(sources: Sequence[str], prepared: Prepared, config: JobConfig, wishes: Wishes) -> Calibration:
    """Translate ``sources`` on the engine, each as one segment and with the job's checks and retries, and keep how
    fast that was. Raises what a job raises."""
    key = key_of(prepared, config)
    with tempfile.TemporaryDirectory(prefix="koen-batch-plan-") as name:
        folder = Path(name)
        rows = [msgspec.json.encode({"text": source}) + b"\n" for source in sources]
        (folder / "sources.jsonl").write_bytes(b"".join(rows))
        log = folder / "log.jsonl"
        alone = replace(
            config, fields=("text",), output_field="translation", format=None, split=False, limit=None, on_fail="flag"
        )
        options = RunOptions(quiet=True, log_json=log, wishes=wishes)
        begun = time.time()
        summary = job.run([str(folder / "sources.jsonl")], None, alone, options)
        times = {event["event"]: event["time"] for event in map(msgspec.json.decode, log.read_bytes().splitlines())}
    asking = prepared.asking(config)
    questions = asking.questions([(source, LADDER[0]) for source in sources])
    found = Calibration(
        key=key,
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        sentences=len(sources),
        source_tokens=sum(len(one.tokens) - asking.frame_tokens("default") for one in questions if one),
        prompt_tokens=summary.prompt_tokens,
        output_tokens=summary.output_tokens,
        seconds=max(times["finished"] - times["engine ready"], 1e-3),
        load_seconds=times["engine ready"] - begun,
    )
    file = _file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return found


def _file(key: Key) -> Path:
    name = hashlib.sha256(msgspec.json.encode(key, order="deterministic")).hexdigest()[:16]
    return cache_folder() / "calibration" / f"{name}.json"
