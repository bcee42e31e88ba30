"""One echo engine for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sharding import Sharding, echoing

from koen_batch.engines.start import Prepared


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with echoing(tmp_path_factory.mktemp("engine") / "engine.log") as prepared:
        yield prepared


@pytest.fixture
def sharding(engine: Prepared, tmp_path: Path) -> Sharding:
    return Sharding(engine, tmp_path)
