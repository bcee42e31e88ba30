"""What the bench translates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koen_batch import prompts
from koen_batch.asking import Asking
from koen_batch.bench import sentences
from koen_batch.config import JobConfig
from koen_batch.errors import InputError, UsageError
from koen_batch.languages import Direction
from koen_batch.tokenization import CodePoints

TO_KOREAN = JobConfig(direction=Direction("en", "ko"))
ASKING = Asking(prompts.family("plain"), CodePoints(), TO_KOREAN.direction, context=4096)


def test_own_sentences_are_different_and_each_one_segment() -> None:
    name, texts = sentences.read(None, None, TO_KOREAN)
    chosen = sentences.choose(texts, ASKING, 1000)
    assert name == "sentences.en.jsonl"
    assert [text.source for text in chosen] == texts
    assert len(texts) == 100
    assert all(text.segments == [text.source] for text in chosen)


def test_no_korean_sentences_ship() -> None:
    with pytest.raises(UsageError, match="name some: --input or --data"):
        sentences.read(None, None, JobConfig(direction=Direction("ko", "en")))


def test_a_file_is_read_as_a_job_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"body": "One."}\n{"body": null}\nnot JSON\n{"body": "Two."}\n', encoding="utf-8")
    config = JobConfig(direction=Direction("en", "ko"), fields=("body",))
    assert sentences.read(file, None, config) == ("rows.jsonl", ["One.", "Two."])


def test_what_needs_no_translation_and_what_was_there_is_left_out() -> None:
    texts = [
        "40",
        "A cat sleeps.",
        "나무가 흔들린다.",
        "A cat sleeps.",
        "It rains. It is cold outside today.",
        "A dog barks.",
    ]
    chosen = sentences.choose(texts, ASKING, 3)
    assert [text.source for text in chosen] == ["A cat sleeps.", "It rains. It is cold outside today."]
    assert [len(text.questions) for text in chosen] == [len(text.segments) for text in chosen]


def test_nothing_to_translate_is_said() -> None:
    with pytest.raises(InputError, match="nothing to translate"):
        sentences.choose(["40", "♪"], ASKING, 3)


@given(st.integers(1, 200), st.floats(0, 0.99))
def test_a_share_of_the_texts_repeats_others(count: int, share: float) -> None:
    chosen = [sentences.Text(f"Text {n}.", [f"Text {n}."], []) for n in range(count)]
    repeated = sentences.repeat(chosen, share)
    different = len({text.source for text in repeated})
    assert len(repeated) == count
    assert different == max(1, round(count * (1 - share)))


def test_written_texts_are_the_rows_of_a_job(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    sentences.write([sentences.Text('A "cat"\u2028sleeps.', [], []), sentences.Text("둘.", [], [])], file)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert rows == [{"id": 0, "text": 'A "cat"\u2028sleeps.'}, {"id": 1, "text": "둘."}]
