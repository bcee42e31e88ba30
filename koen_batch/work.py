"""A segment on its way: what it is sent as, what has come back, and the best attempt so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from koen_batch import ladder, protection, segmentation
from koen_batch.asking import Asking, Question
from koen_batch.engines.base import Completion
from koen_batch.ladder import Step
from koen_batch.records import Piece
from koen_batch.store import Segment


class Slot(Protocol):
    """A place in a record that waits for a segment."""

    def fill(self, segment: Segment) -> None: ...


class Answer(msgspec.Struct):
    text: str
    flags: tuple[str, ...]
    confidence: float | None
    model: str


class Work(msgspec.Struct, eq=False):
    """A segment on its way; the pieces are what it is sent as at its present step (mostly: itself)."""

    key: bytes
    source: str
    waiting: list[Slot]
    step: Step = ladder.LADDER[0]
    tried: list[str] = []
    best: Answer | None = None
    pieces: list[Piece] = []
    completions: list[Completion | None] = []
    missing: int = 0


def ask(works: Sequence[Work], asking: Asking) -> dict[bytes, list[tuple[int, Question]]]:
    """What ``works`` are asked as, each at its present step: by key, the index of a piece and its question.

    Sets their pieces; too long a one is split until it fits.
    """
    for work in works:
        work.pieces = pieces_of(work.source, work.step, asking.direction.source)
    asked: dict[bytes, list[tuple[int, Question]]] = {}
    open_works = list(works)
    while open_works:
        places = [(w, i) for w in open_works for i, piece in enumerate(w.pieces) if piece.translate]
        questions = asking.questions([(work.pieces[index].text, work.step) for work, index in places])
        too_long: dict[bytes, list[int]] = {}
        for work in open_works:
            asked[work.key] = []
        for (work, index), question in zip(places, questions, strict=True):
            if question is None:
                too_long.setdefault(work.key, []).append(index)
            else:
                asked[work.key].append((index, question))
        open_works = [work for work in open_works if work.key in too_long]
        for work in open_works:
            work.pieces = split_further(work.pieces, too_long[work.key], asking.direction.source)
    return asked


def pieces_of(source: str, step: Step, language: str) -> list[Piece]:
    """What a segment is sent as at a step of the ladder."""
    if step.around:
        return protection.split_around(source)
    if step.split:
        return segmentation.sentences(source, language, max(1, (len(source) + 1) // 2))
    return [Piece(source, translate=True)]


def split_further(pieces: Sequence[Piece], too_long: Sequence[int], language: str) -> list[Piece]:
    """``pieces`` with those at the given indices cut in halves."""
    cut: list[Piece] = []
    for index, piece in enumerate(pieces):
        if index in too_long:
            cut += segmentation.sentences(piece.text, language, max(1, (len(piece.text) + 1) // 2))
        else:
            cut.append(piece)
    return cut


def finish_reason(completions: Sequence[Completion]) -> str:
    """``stop`` if all stopped, else how the first of the others ended."""
    for completion in completions:
        if completion.finish_reason != "stop":
            return completion.finish_reason
    return "stop"


def confidence(completions: Sequence[Completion]) -> float | None:
    """Mean log-probability over all tokens of an attempt."""
    if len(completions) == 1:
        return completions[0].logprob if completions[0].tokens else None
    known = [(c.logprob, len(c.tokens)) for c in completions if c.logprob is not None and c.tokens]
    tokens = sum(count for _, count in known)
    return sum(logprob * count for logprob, count in known) / tokens if tokens else None


def as_answer(segment: Segment | None) -> Answer | None:
    """What an earlier pass made of a segment, as an attempt to be bettered."""
    if segment is None:
        return None
    return Answer(segment.text, tuple(segment.flags.split(",")), segment.confidence, segment.model)


def score(source: str, answer: Answer) -> tuple[float, ...]:
    return ladder.score(source, answer.text, answer.flags, answer.confidence)
