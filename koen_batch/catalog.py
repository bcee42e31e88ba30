"""The catalogue: models by name. `catalog.toml` beside this file is the data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

UNKNOWN = "id unknown: pass a path"


@dataclass(frozen=True)
class Entry:
    """A named system. Empty means unknown: a hub id or a file is written only with the ``source`` that names it."""

    name: str
    title: str
    family: str
    """Of `koen_batch.prompts`; empty for a system whose output is only scored."""
    engine: str
    """``vllm``, ``hf``, or ``none`` for a system that cannot be run here."""
    licence: str
    hub: str = ""
    """The id of its repository on the Hugging Face hub."""
    file: str = ""
    """The GGUF file in that repository."""
    package: str = ""
    """The Python package that holds it."""
    adapted: bool = False
    """Whether this program's own adapter is merged into it."""
    source: str = ""
    """Where the id and the file are named."""
    notes: str = ""

    @property
    def origin(self) -> str:
        """Where it comes from, in words: hub id and file, package, or that neither is known."""
        if self.engine == "none":
            return "scored from its output"
        if self.package:
            return f"Python package {self.package}"
        return f"{self.hub} {self.file}".rstrip() or UNKNOWN


@cache
def load() -> dict[str, Entry]:
    """All entries by name, in the order of the file: `koen-v4`, the default, comes first."""
    systems = tomllib.loads(Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8"))
    return {name: Entry(name=name, **fields) for name, fields in systems.items()}


def table() -> str:
    """The catalogue as text, for `koen-batch models`."""
    entries = load().values()
    rows = [("NAME", "FAMILY", "ENGINE", "LICENCE", "FROM")]
    rows += [(e.name, e.family or "-", e.engine, e.licence or "unknown", e.origin) for e in entries]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    notes = [f"{e.name}: {e.notes}" for e in entries if e.notes]
    return "\n".join([*lines, "", *notes, "", "Any other hub id, folder or GGUF file works as --model too."])
