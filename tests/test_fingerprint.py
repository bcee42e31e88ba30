"""The fingerprint's rules: what decides the answer, and what does not (CONTRACT: Fingerprint)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import koen_batch
from koen_batch import checks, cli, documents, ladder, prompts
from koen_batch.config import JobConfig, ModelIdentity, answer_settings, digest, job_settings
from koen_batch.languages import Direction

CONFIG = JobConfig(Direction("en", "ko"))
MODEL = ModelIdentity("koen-v4", "abc123", "prompt 1")
ECHO = ("--to", "ko", "--engine", "echo")

DECIDES_CONFIG: dict[str, tuple[Any, str]] = {
    "direction": (Direction("ko", "en"), "direction"),
    "fields": (("text", "title"), "fields"),
    "output_field": ("ko", "output field"),
    "limit": (5, "limit"),
    "force": (True, "force"),
    "on_bad_row": ("keep", "on bad row"),
    "on_fail": ("source", "on fail"),
    "with_confidence": (True, "confidence"),
    "unit": ("cue", "unit"),
    "bilingual": (True, "bilingual"),
    "encoding": ("same", "encoding"),
    "splitter": ("kiwi", "segmentation"),
    "split": (False, "segmentation"),
    "max_new_tokens": (64, "decoding"),
    "seed": (1, "decoding"),
    "ladder": (False, "ladder"),
    "protect": (False, "protection"),
}
"""Every setting of a job but ``format``, another value of it, and the name that a refusal gives it."""

DECIDES_MODEL = {"name": "model", "revision": "revision", "prompt": "prompt", "adapter": "adapter"}

OF_THE_ANSWER = {"direction", "max_new_tokens", "seed", "ladder", "protect"}
"""Settings that decide the translation of a segment; the others decide what is made of it."""


def fingerprint(config: JobConfig = CONFIG, model: ModelIdentity = MODEL, **file: str) -> dict[str, Any]:
    return job_settings(config, model, **{"input_hash": "0", "format_name": "jsonl", **file})


def changed(other: dict[str, Any]) -> list[str]:
    before = fingerprint()
    return [name for name in {**before, **other} if before.get(name) != other.get(name)]


def test_every_setting_of_a_job_has_a_rule() -> None:
    """A new setting fails here until it is decided whether it decides the answer."""
    assert {field.name for field in dataclasses.fields(JobConfig)} == {*DECIDES_CONFIG, "format"}
    assert {field.name for field in dataclasses.fields(ModelIdentity)} == set(DECIDES_MODEL)


@pytest.mark.parametrize(("setting", "value", "name"), [(key, *value) for key, value in DECIDES_CONFIG.items()])
def test_what_the_user_asked_for_decides(setting: str, value: Any, name: str) -> None:
    other = dataclasses.replace(CONFIG, **{setting: value})
    assert changed(fingerprint(other)) == [name]
    assert digest(fingerprint(other)) != digest(fingerprint())
    same_answer = digest(answer_settings(other, MODEL)) == digest(answer_settings(CONFIG, MODEL))
    assert same_answer == (setting not in OF_THE_ANSWER)


@pytest.mark.parametrize(("part", "name"), DECIDES_MODEL.items())
def test_the_model_and_how_it_is_asked_decide(part: str, name: str) -> None:
    other = dataclasses.replace(MODEL, **{part: "another"})
    assert changed(fingerprint(model=other)) == [name]
    assert digest(answer_settings(CONFIG, other)) != digest(answer_settings(CONFIG, MODEL))


def test_the_input_and_the_format_decide() -> None:
    assert changed(fingerprint(input_hash="1")) == ["input"]
    assert changed(fingerprint(format_name="txt")) == ["format"]
    assert digest(answer_settings(CONFIG, MODEL)) == digest(answer_settings(CONFIG, MODEL))


@pytest.mark.parametrize(("module", "name"), [(checks, "checks"), (ladder, "ladder"), (documents, "segmentation")])
def test_versions_of_what_judges_and_cuts_decide(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    monkeypatch.setattr(module, "VERSION", "another")
    after = fingerprint()
    assert [key for key in before if before[key] != after[key]] == [name]


def test_the_version_of_the_package_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    monkeypatch.setattr(koen_batch, "__version__", "99")
    assert fingerprint() == before
    assert "99" not in json.dumps(before)


def test_the_prompt_is_known_by_its_content() -> None:
    """By direction and family, and by nothing else."""
    into_korean = {name: prompts.prompt_hash(prompts.family(name), Direction("en", "ko")) for name in ("plain", "koen")}
    into_english = prompts.prompt_hash(prompts.family("koen"), Direction("ko", "en"))
    assert len({*into_korean.values(), into_english}) == 3
    assert into_korean["koen"] == prompts.prompt_hash(prompts.family("koen"), Direction("en", "ko"))


# --- as the user meets it ----------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert cli.main(["translate", "a.jsonl", *ECHO, "--quiet"]) == 0
    return tmp_path / "a.ko.jsonl"


@pytest.mark.parametrize(
    "options",
    [
        ("--part-size", "1"),
        ("--max-num-seqs", "3"),
        ("--replicas", "2"),
        ("--echo-latency", "9"),
        ("--gpu-memory-utilization", "0.5"),
        ("--tensor-parallel", "2"),
        ("--memory", "m.sqlite"),
        ("--summary", "s.json"),
        ("--log-json", "l.jsonl"),
        ("--field", "text"),
        ("--format", "jsonl"),
        ("--overwrite",),
    ],
)
def test_how_a_job_is_run_does_not_decide(
    finished: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.stat().st_mtime_ns
    assert cli.main(["translate", "a.jsonl", *ECHO, *options]) == 0
    assert "already done" in capsys.readouterr().err
    assert finished.stat().st_mtime_ns == before


def test_the_input_is_known_by_its_content_not_by_its_name_or_time(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("a.jsonl", "copy.jsonl")
    assert cli.main(["translate", "copy.jsonl", *ECHO, "-o", "a.ko.jsonl"]) == 0
    assert "already done" in capsys.readouterr().err
    Path("copy.jsonl").write_text('{"text": "One."}\n{"text": "Two!"}\n')
    assert cli.main(["translate", "copy.jsonl", *ECHO, "-o", "a.ko.jsonl"]) == 2
    assert "input:" in capsys.readouterr().err


def test_a_difference_names_both_values_and_restart_takes_the_new_one(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["translate", "a.jsonl", *ECHO, "--limit", "1"]) == 2
    told = capsys.readouterr().err
    assert "limit: None then, 1 now" in told
    assert "--restart" in told
    assert len(finished.read_text().splitlines()) == 2
    assert cli.main(["translate", "a.jsonl", *ECHO, "--limit", "1", "--restart", "--quiet"]) == 0
    assert len(finished.read_text().splitlines()) == 1


def test_a_memory_answers_where_only_what_is_made_of_the_answer_differs(finished: Path) -> None:
    def sent(name: str, *options: str) -> int:
        command = ["translate", "a.jsonl", *ECHO, "-o", f"{name}.jsonl", "--memory", "m.sqlite", "--summary", "s.json"]
        assert cli.main([*command, "--quiet", *options]) == 0
        number: int = json.loads(Path("s.json").read_text())["segments_sent"]
        return number

    assert sent("first") == 2
    assert sent("second", "--on-fail", "source", "--output-field", "ko", "--limit", "2") == 0
    assert sent("third", "--seed", "7") == 2
