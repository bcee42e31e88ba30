"""The catalogue names every system of the reference leaderboard, and no id without its source."""

from __future__ import annotations

from koen_batch import catalog, prompts

SYSTEMS = [
    "koen-v4",
    "lfm2-mt-v1",
    "lfm2-1.2b",
    "yanolja-4b-gguf",
    "gemma3-4b-gguf",
    "gemma3-1b-gguf",
    "qwen3-4b-gguf",
    "qwen3-1.7b-gguf",
    "qwen3-0.6b-gguf",
    "nllb-3.3b",
    "nllb-600m",
    "google",
    "starter",
    "starter-base",
]


def test_every_system_is_there_and_the_default_comes_first() -> None:
    assert list(catalog.load()) == SYSTEMS


def test_an_id_stands_only_with_its_source() -> None:
    for entry in catalog.load().values():
        assert bool(entry.source) == bool(entry.hub or entry.package), entry.name
        assert bool(entry.file) == entry.name.endswith("-gguf"), entry.name


def test_families_and_engines_are_known() -> None:
    for entry in catalog.load().values():
        assert entry.engine in {"vllm", "hf", "none"}
        assert (entry.family in prompts.FAMILIES) != (entry.engine == "none")
        assert entry.licence


def test_the_table_says_what_is_unknown_and_what_is_inferred() -> None:
    lines = {line.split()[0]: line for line in catalog.table().split("\n\n")[0].splitlines()}
    assert list(lines) == ["NAME", *SYSTEMS]
    assert lines["lfm2-mt-v1"].endswith("id unknown: pass a path")
    assert lines["koen-v4"].endswith("gyung/lfm2-1.2b-koen-mt-v4-100k")
    assert "`Translate to English.` is inferred" in catalog.table()
