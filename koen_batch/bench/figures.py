"""What a pass took, and what follows from it: rates, ratios within a round, and their spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

ENGINE, PIPELINE, NAIVE = "engine", "pipeline", "naive"


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of translating, once over its segments."""

    way: str
    """``engine``, ``pipeline`` or ``naive``."""
    round: int
    seconds: float
    segments: int
    """Segments translated, each repetition counted."""
    unique: int
    """Segments that were asked for."""
    output_tokens: int
    """Generated, without stop tokens, retries included."""
    prompt_tokens: int
    retry_requests: int = 0
    retry_tokens: int = 0
    cpu_seconds: float = 0.0
    """Processor time of the process that computes, without the pipeline's own."""
    idle_cpu_seconds: float = 0.0
    """Processor time of the processes whose turn it was not."""

    @property
    def segments_per_second(self) -> float:
        return self.segments / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Generated."""
        return self.output_tokens / self.seconds

    @property
    def used_tokens_per_second(self) -> float:
        """Generated, each as often as a segment uses it."""
        return self.tokens_per_second * self.segments / self.unique


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one figure over the rounds."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        ordered = sorted(values)
        return Spread(median(ordered), ordered[0], ordered[-1])

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.min:.3g} to {self.max:.3g})"


def of_way(passes: Sequence[Pass], way: str) -> list[Pass]:
    """The passes of one way, by round."""
    return sorted((one for one in passes if one.way == way), key=lambda one: one.round)


def work_ratio(passes: Sequence[Pass], way: str, other: str) -> Spread | None:
    """Tokens a second of ``way`` over those of ``other`` in the same round; None where one of them did not run."""
    return _ratio([(a.used_tokens_per_second, b.used_tokens_per_second) for a, b in _pairs(passes, way, other)])


def segment_ratio(passes: Sequence[Pass], way: str, other: str) -> Spread | None:
    """Segments a second of ``way`` over those of ``other`` in the same round: retries count as time that was lost."""
    return _ratio([(a.segments_per_second, b.segments_per_second) for a, b in _pairs(passes, way, other)])


def _pairs(passes: Sequence[Pass], way: str, other: str) -> list[tuple[Pass, Pass]]:
    return list(zip(of_way(passes, way), of_way(passes, other), strict=False))


def _ratio(pairs: Sequence[tuple[float, float]]) -> Spread | None:
    return Spread.of(a / b for a, b in pairs) if pairs else None
