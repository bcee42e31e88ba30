"""What the tests of jobs/ share: the folder, a FLORES of made-up sentences, and the programs that the jobs call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import small_corpus

from koen_batch.evaluation import flores, lines


@pytest.fixture
def jobs() -> Path:
    return Path(__file__).resolve().parents[2] / "jobs"


@pytest.fixture
def flores_data(tmp_path: Path) -> Path:
    """FLORES's files with sentences of our own, as many as there must be."""
    folder = tmp_path / "flores"
    folder.mkdir()
    for code, sentence in (("eng_Latn", "This is sentence {}."), ("kor_Hang", "이것은 {}번 문장이다.")):
        for split, count in flores.SENTENCES.items():
            (folder / f"{split}.{code}").write_bytes(lines.encode([sentence.format(n) for n in range(count)]))
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment in which ``koen-batch`` and ``python`` are this one's, and ``programs/`` stand for a cluster's."""
    programs = Path(__file__).with_name("programs")
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


@pytest.fixture
def corpus(tmp_path: Path) -> small_corpus.SmallCorpus:
    return small_corpus.make(tmp_path)
