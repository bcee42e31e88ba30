"""A segment on its way: what it is sent as, what has come back, and the best attempt so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from koen_batch import documents, ladder, protection, segmentation
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


class Attempt(msgspec.Struct, eq=False):
    """A segment as it is asked at one step of the ladder: the pieces that it is sent as (mostly: itself), and what has
    come back for them."""

    source: str
    step: Step = ladder.LADDER[0]
    pieces: list[Piece] = []
    completions: list[Completion | None] = []
    missing: int = 0
    answered: list[str | None] | None = None
    """What the completions say, None for a piece that was not sent; None altogether until all have come."""

    @property
    def again(self) -> bool:
        """Whether the segment is asked again by it."""
        return self.step is not ladder.LADDER[0]


class Work(msgspec.Struct, eq=False):
    """A segment on its way up the ladder."""

    key: bytes
    source: str
    waiting: list[Slot]
    attempt: Attempt
    """The one to be judged next."""
    ahead: dict[str, Attempt] = {}
    """Attempts at later steps, asked before it is known whether they are needed, by the step's name."""
    tried: list[str] = []
    """The steps that were judged."""
    flags: tuple[str, ...] = ()
    """What was wrong the last time."""
    best: Answer | None = None


def ask(attempts: Sequence[Attempt], asking: Asking) -> list[list[tuple[int, Question]]]:
    """What each of ``attempts`` is asked as: the index of a piece and its question. Too long a piece is split until it
    fits. Sets their pieces, for which nothing has come yet.
    """
    for attempt in attempts:
        attempt.pieces = pieces_of(attempt.source, attempt.step, asking.direction.source)
    asked: list[list[tuple[int, Question]]] = [[] for _ in attempts]
    unsettled = list(range(len(attempts)))
    while unsettled:
        places = [(n, index) for n in unsettled for index, piece in enumerate(attempts[n].pieces) if piece.translate]
        questions = asking.questions([(attempts[n].pieces[index].text, attempts[n].step) for n, index in places])
        too_long: dict[int, list[int]] = {}
        for n in unsettled:
            asked[n] = []
        for (n, index), question in zip(places, questions, strict=True):
            if question is None:
                too_long.setdefault(n, []).append(index)
            else:
                asked[n].append((index, question))
        unsettled = list(too_long)
        for n in unsettled:
            attempts[n].pieces = split_further(attempts[n].pieces, too_long[n], asking.direction.source)
    for attempt, questions_of in zip(attempts, asked, strict=True):
        attempt.completions = [None] * len(attempt.pieces)
        attempt.missing = len(questions_of)
    return asked


def joined(attempt: Attempt, answered: Sequence[str | None], *, protect: bool) -> str:
    """The segment's translation: what was answered in the places of the pieces that were sent, the others as they are.
    With ``protect`` an answer takes its piece's layout."""
    return "".join(
        [
            piece.text if answer is None else documents.fit(piece.text, answer) if protect else answer
            for piece, answer in zip(attempt.pieces, answered, strict=True)
        ]
    )


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
