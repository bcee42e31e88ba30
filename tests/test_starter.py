"""The starter's adapter as it ships."""

from __future__ import annotations

import json

from koen_batch import catalog, starter
from koen_batch.languages import Direction
from koen_batch.prompts import family, prompt_hash
from train.starter.publish import MOST_BYTES


def test_the_adapter_in_the_package_is_small_and_asked_as_it_was_trained() -> None:
    assert sum(file.stat().st_size for file in starter.ADAPTER.iterdir()) <= MOST_BYTES
    training = json.loads((starter.ADAPTER / "training.json").read_text())
    assert training["family"] == catalog.load()["starter"].family
    for direction, asked in training["prompts"].items():
        assert prompt_hash(family(training["family"]), Direction(*direction.split("-"))) == asked
