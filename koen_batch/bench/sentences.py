"""What is translated: real sentences, cut into segments as a job cuts them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from koen_batch import checks, documents, job
from koen_batch.asking import Asking, Question
from koen_batch.config import MAX_CHARS, JobConfig
from koen_batch.errors import InputError, UsageError
from koen_batch.evaluation import flores
from koen_batch.ladder import LADDER
from koen_batch.records import Record

SHIPPED = {"en": Path(__file__).with_name("sentences.en.jsonl")}
"""Sentences of this project, a hundred, for where there is nothing else."""


@dataclass(frozen=True)
class Text:
    """One row of the input, with its segments as they are asked."""

    source: str
    segments: list[str]
    questions: list[Question]


def read(input: Path | None, data: str | None, config: JobConfig) -> tuple[str, list[str]]:
    """What is translated is called, and its texts: ``input``, else FLORES dev in ``data``, else what ships.

    Raises:
        InputError: a file or folder cannot be read.
        UsageError: nothing is named, and nothing ships in the source language.
    """
    if input is None and data:
        return "FLORES-200 dev", flores.load(data, "dev", config.direction).sources
    file = input or SHIPPED.get(config.direction.source)
    if file is None:
        raise UsageError(f"--to {config.direction.target}: no sentences to translate; name some: --input or --data")
    records = job.open_format(file, config).read()
    return file.name, [text for record in records if isinstance(record, Record) for text in record.texts if text]


def choose(sources: Iterable[str], asking: Asking, segments: int) -> list[Text]:
    """The first texts of which the engine would be asked something, until they have ``segments`` different segments.

    Left out are repeated texts, what needs no translation, and what is longer than the model takes at once.
    """
    chosen: list[Text] = []
    seen: set[str] = set()
    for source in dict.fromkeys(sources):
        if len(seen) >= segments:
            break
        if checks.classify(source, asking.direction) != "translate":
            continue
        pieces = [piece.text for piece in documents.split(source, asking.direction, MAX_CHARS) if piece.translate]
        questions = [question for question in asking.questions([(piece, LADDER[0]) for piece in pieces]) if question]
        if pieces and len(questions) == len(pieces) and not seen.intersection(pieces):
            seen.update(pieces)
            chosen.append(Text(source, pieces, questions))
    if not chosen:
        raise InputError("the input holds nothing to translate")
    return chosen


def repeat(chosen: list[Text], share: float) -> list[Text]:
    """As many texts as before, of which ``share`` are repetitions, spread evenly: 0.5 has each of a half twice."""
    unique = max(1, round(len(chosen) * (1 - share)))
    return [chosen[index % unique] for index in range(len(chosen))]


def write(chosen: Iterable[Text], file: Path) -> None:
    """The texts as JSONL, a job's input."""
    with file.open("w", encoding="utf-8") as out:
        for row, text in enumerate(chosen):
            out.write(json.dumps({"id": row, "text": text.source}, ensure_ascii=False) + "\n")
