"""The settings of a job, and which of them decide its answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from koen_batch import checks, documents, ladder
from koen_batch.languages import Direction

MAX_CHARS = 600
"""Longest segment, in characters. Sentences are rarely longer; a model of 1B parameters loses the thread of what is."""

PART_SIZE = 10_000
"""Records of a part. Finished segments are durable long before; a part only saves the reading and joining again."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """What the user asked for. Hardware and engine settings are not here: they do not decide the answer."""

    direction: Direction
    fields: tuple[str, ...] = ("text",)
    output_field: str = "translation"
    format: str | None = None
    limit: int | None = None
    force: bool = False
    on_bad_row: str = "reject"
    on_fail: str = "flag"
    with_confidence: bool = False
    unit: str = "sentence"
    bilingual: bool = False
    encoding: str = "utf-8"
    splitter: str = "sentencex"
    max_new_tokens: int | None = None
    seed: int = 0
    ladder: bool = True
    protect: bool = True
    split: bool = True

    @classmethod
    def load(cls, facts: dict[str, Any]) -> JobConfig:
        """The inverse of ``asdict``, behind JSON."""
        return cls(**{**facts, "direction": Direction(**facts["direction"]), "fields": tuple(facts["fields"])})


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answers, and how it is asked."""

    name: str
    revision: str
    prompt: str
    """Hash of the family's prompts in the job's direction."""
    adapter: str = ""
    """Identity of its content; empty without one."""

    @property
    def title(self) -> str:
        """What an answer is signed with: the model, and the identity of the adapter that it had."""
        return f"{self.name} + {self.adapter}" if self.adapter else self.name


def answer_settings(config: JobConfig, model: ModelIdentity) -> dict[str, Any]:
    """All that decides the translation of a segment, but its source."""
    return {
        "direction": str(config.direction),
        "model": model.name,
        "revision": model.revision,
        "adapter": model.adapter,
        "prompt": model.prompt,
        "decoding": f"greedy, at most {config.max_new_tokens or 'automatic'} new tokens, seed {config.seed}",
        "checks": checks.VERSION,
        "ladder": ladder.VERSION if config.ladder else "off",
        "protection": config.protect,
        # What a context-aware model will need; part of the key from the start, so that a memory stays valid.
        "context": "",
        "glossary": "",
        "register": "",
    }


def job_settings(config: JobConfig, model: ModelIdentity, *, input_hash: str, format_name: str) -> dict[str, Any]:
    """The fingerprint of one output: all that decides what stands in it."""
    return {
        "input": input_hash,
        "fields": list(config.fields),
        "format": format_name,
        "output field": config.output_field,
        "segmentation": f"{documents.VERSION} {config.splitter} {MAX_CHARS}" if config.split else "off",
        "limit": config.limit,
        "force": config.force,
        "on bad row": config.on_bad_row,
        "on fail": config.on_fail,
        "confidence": config.with_confidence,
        "unit": config.unit,
        "bilingual": config.bilingual,
        "encoding": config.encoding,
        **answer_settings(config, model),
    }


def digest(settings: dict[str, Any]) -> bytes:
    """128 bits of the settings, whatever their order."""
    return hashlib.blake2b(msgspec.json.encode(settings, order="deterministic"), digest_size=16).digest()
