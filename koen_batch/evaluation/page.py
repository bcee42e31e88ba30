"""The leaderboard as one HTML page that needs nothing else: the data as JSON inside `pages/leaderboard.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from markupsafe import Markup

from koen_batch import pages
from koen_batch.evaluation import lines, scoring
from koen_batch.evaluation import run as runs
from koen_batch.evaluation.metrics import Scored
from koen_batch.evaluation.ranking import Loaded, Table

# Inside <script> a "<" could begin "</script>" or "<!--", and two line separators are not allowed in old parsers.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class System(msgspec.Struct, frozen=True):
    """A system's segments: hypotheses, the primary score of each (one decimal) and verdicts (None: not checked)."""

    name: str
    hypotheses: list[str]
    scores: list[float]
    verdicts: list[str] | None


class Browser(msgspec.Struct, frozen=True):
    """What the segment browser of one table shows; systems in the order of the table."""

    sources: list[str] | None
    references: list[list[str]]
    systems: list[System]


def segments(table: Table, group: Sequence[Loaded], scored: Mapping[str, Scored]) -> Browser:
    """The texts of all systems of ``table``, with the verdicts that the checks give them now."""
    texts = {run.name: text for run, text in group}
    direction = runs.parse_direction(table.direction)
    sources = next((text.sources for text in texts.values() if text.sources is not None), None)
    systems = []
    for entry in table.measured:
        verdicts = scoring.check(texts[entry.name], direction)
        systems.append(
            System(
                name=entry.name,
                hypotheses=lines.nfc(texts[entry.name].hypotheses),
                scores=[round(float(score), 1) for score in scored[entry.name].segments],
                verdicts=None if verdicts is None else [",".join(verdict) for verdict in verdicts],
            )
        )
    references = [lines.nfc(reference) for reference in group[0][1].references]
    return Browser(None if sources is None else lines.nfc(sources), references, systems)


def render(tables: Sequence[Table], browsers: Sequence[Browser]) -> str:
    """The page. Everything that came from a run is JSON text, put into the document by ``textContent`` only."""
    data = [{"table": table, "browser": browser} for table, browser in zip(tables, browsers, strict=True)]
    encoded = msgspec.json.encode(data).decode("utf-8")
    for letter, escape in _ESCAPES.items():
        encoded = encoded.replace(letter, escape)
    return pages.render("leaderboard.html", data=Markup(encoded))
