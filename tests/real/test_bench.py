"""The bench on a real engine: a random model of half a million parameters."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from koen_batch import tokenization
from koen_batch.cli import main


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from train import recipe, tiny

    chosen = recipe.load("tiny", [])
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.make(folder, chosen.config, chosen.seed)
    return folder


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_bench_measures_all_three_ways(engine: str, tiny: Path, tmp_path: Path) -> None:
    if find_spec("vllm" if engine == "vllm" else "transformers") is None:
        pytest.skip(f"{engine} is not installed")
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("A cat sleeps.\nIt rains.\nThe train is late.\n", encoding="utf-8")
    file = tmp_path / "bench.json"
    command = ["bench", "--model", str(tiny), "--engine", engine, "--input", str(sentences), "--max-new-tokens", "12"]
    limits = ["--dtype", "float32", "--max-model-len", "512", "--rounds", "1", "--naive", "2"]
    tokenization._read.cache_clear()
    assert main([*command, *limits, "--json", str(file)]) == 0
    assert tokenization._read.cache_info().misses == 1  # before the first round: it is part of what is loaded
    figures = json.loads(file.read_text(encoding="utf-8"))
    passes = {one["way"]: one for one in figures["passes"]}
    assert figures["engine"] == engine
    assert {way: one["segments"] for way, one in passes.items()} == {"engine": 3, "pipeline": 3, "naive": 2}
    assert all(one["output_tokens"] > 0 for one in passes.values())
    # Greedy, with the same budgets: the pipeline generates what the bare engine does, and its retries. (The plain
    # ``generate`` of hf does not end loops.)
    first_attempts = passes["pipeline"]["output_tokens"] - passes["pipeline"]["retry_tokens"]
    assert first_attempts <= passes["engine"]["output_tokens"]
    assert engine == "hf" or first_attempts == passes["engine"]["output_tokens"]
    assert figures["pipeline_over_engine"]["median"] > 0
    assert figures["pipeline_over_naive"]["median"] > 0
