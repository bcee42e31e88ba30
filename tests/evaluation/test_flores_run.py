"""FLORES through the pipeline: every line sent once, killed and resumed, skipped when finished, recorded as it was."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koen_batch import checks, cli, job
from koen_batch.asking import Asking
from koen_batch.config import JobConfig
from koen_batch.engines import start
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.echo import MARK
from koen_batch.engines.pool import Pool, PoolPlan
from koen_batch.errors import UsageError
from koen_batch.evaluation import flores, flores_run, lines, systems, verify
from koen_batch.evaluation import run as runs
from koen_batch.evaluation.run import Run
from koen_batch.languages import Direction
from koen_batch.prompts import family
from koen_batch.tokenization import CodePoints

SUPPORT = str(Path(__file__).resolve().parents[1] / "support")
COUNT = flores.SENTENCES["devtest"]
# What translate would not send: no letters, no words, the target language, and the same sentence twice.
AWKWARD = ["1234", "♪ ♪", "https://example.com/a", "이미 한국어로 쓴 문장이다.", "The same one.", "The same one."]
TEXTS = {
    "eng_Latn": [*AWKWARD, *(f"This is the sentence with the number {n}." for n in range(COUNT - len(AWKWARD)))],
    "kor_Hang": [f"이것은 번호가 {n}인 문장이다." for n in range(COUNT)],
    "deu_Latn": [f"Das ist der Satz mit der Nummer {n}." for n in range(COUNT)],
}
needs_data = pytest.mark.skipif("KOEN_DATA" not in os.environ, reason="KOEN_DATA is not set: no FLORES-200")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "flores"
    folder.mkdir()
    for code, texts in TEXTS.items():
        (folder / f"devtest.{code}").write_bytes(lines.encode(texts))
    return folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def command(data: Path, *arguments: str) -> list[str]:
    return ["flores", "--engine", "echo", "--data", str(data), "-o", str(data.parent / "runs"), *arguments]


def run(data: Path, *arguments: str, status: int = 0, name: str = "echo.en-ko.devtest") -> Run:
    assert cli.main(command(data, *arguments)) == status
    return runs.load(data.parent / "runs" / name)


def test_every_line_is_sent_once_whatever_it_holds(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(data)
    folder = data.parent / "runs" / "echo.en-ko.devtest"
    texts = runs.load_texts(folder, done)
    assert texts.hypotheses == [MARK + source for source in TEXTS["eng_Latn"]]
    assert (texts.sources, texts.references) == (TEXTS["eng_Latn"], [TEXTS["kor_Hang"]])
    assert texts.finish_reasons == ["stop"] * COUNT
    assert done.timing is not None
    assert done.timing.sentences == COUNT - 1
    assert done.timing.tokens == sum(len(MARK + source) for source in set(TEXTS["eng_Latn"]))
    assert done.timing.window == 512
    rows = lines.read(folder / "engine.tsv")
    assert rows[1] == f"1\tstop\t{len(MARK) + 4}\t0.0000\tgreedy"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*done.files, "run.json"])
    assert (done.system.engine, done.system.family, done.system.note) == ("echo", "plain", None)
    assert done.system.decoding["method"] == "greedy"
    assert not done.retry
    assert verify.status(verify.verify([folder])) == 0
    out, err = capsys.readouterr()
    assert "chrF++" in out
    assert done.data.reference_sha256[0][:12] in err


def test_a_finished_run_is_skipped_and_a_partial_one_is_another(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--direction", "en-ko,ko-en")
    record = data.parent / "runs" / "echo.ko-en.devtest" / "run.json"
    before = record.stat().st_mtime_ns
    capsys.readouterr()
    run(data, "--direction", "ko-en,ko-en", "--max-num-seqs", "4", name="echo.ko-en.devtest")
    assert capsys.readouterr().err.count("already done") == 1
    assert record.stat().st_mtime_ns == before
    partial = run(data, "--limit", "7", name="echo.en-ko.devtest.first-7")
    assert partial.partial
    assert (partial.data.segments, partial.data.total) == (7, COUNT)
    assert not run(data, "--limit", str(COUNT)).partial


def test_other_settings_are_refused_with_both_values(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--limit", "5", name="echo.en-ko.devtest.first-5")
    capsys.readouterr()
    assert cli.main(command(data, "--limit", "5", "--max-new-tokens", "9", "--quiet")) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "'max_new_tokens': 9} now" in error
    done = run(data, "--limit", "5", "--max-new-tokens", "900", "--restart", name="echo.en-ko.devtest.first-5")
    assert done.system.decoding["max_new_tokens"] == 900


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_and_resumed_by_the_same_command(data: Path, stop: signal.Signals, status: int) -> None:
    work = data.parent / "runs" / "echo.en-ko.devtest.first-200" / flores_run.WORK
    arguments = command(data, "--limit", "200", "--max-num-seqs", "4", "--quiet")
    running = subprocess.Popen([sys.executable, "-m", "koen_batch.cli", *arguments, "--echo-latency", "0.1"])
    deadline = time.monotonic() + 60
    while not list(work.glob("events-*")) or (work / "events-001.jsonl").read_text().count("segment") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(stop)
    assert running.wait(timeout=30) == status
    assert cli.main(arguments) == 0
    done = runs.load(work.parent)
    texts = runs.load_texts(work.parent, done)
    assert texts.hypotheses == [MARK + source for source in TEXTS["eng_Latn"][:200]]
    assert done.timing is not None
    assert 100 < done.timing.sentences < 199
    assert done.system.note == f"resumed; speed of its longest stretch, {done.timing.sentences} sentences"
    assert not work.exists()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Settings of the fault-injecting engine, which stands where ``echo`` would and whose answers are judged."""
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    settings: dict[str, Any] = {"max_num_seqs": 32}

    def prepare(direction: Direction, wishes: start.Wishes) -> start.Prepared:
        prepared = start.prepare(direction, wishes)
        spec = EngineSpec("faulty:FaultyEngine", dict(settings))
        return dataclasses.replace(prepared, plan=PoolPlan((spec,), window=64), accept_all=False)

    monkeypatch.setattr(job, "prepare", prepare)
    monkeypatch.setattr(flores_run, "prepare", prepare)
    yield settings


def test_a_sentence_without_an_answer_is_empty_and_counted(data: Path, faulty: dict[str, Any]) -> None:
    faulty |= {"poison": "number 3.", "refuse": "number 5."}
    done = run(data, "--limit", "20", status=3, name="echo.en-ko.devtest.first-20")
    texts = runs.load_texts(data.parent / "runs" / "echo.en-ko.devtest.first-20", done)
    for number, reason in {3: "error", 5: "error", 4: "stop"}.items():
        index = len(AWKWARD) + number
        assert texts.finish_reasons is not None
        assert texts.finish_reasons[index] == reason
        assert (texts.hypotheses[index] == "") == (reason == "error")
    assert done.output.verdicts is not None
    assert done.output.verdicts["empty"] == 2
    assert run(data, "--limit", "20", status=3, name="echo.en-ko.devtest.first-20") == done


def test_retry_climbs_the_ladder_and_says_so(data: Path, faulty: dict[str, Any]) -> None:
    faulty["count"] = str(data.parent / "asked")
    again = run(data, "--limit", "8", "--retry", "--seed", "3", status=3, name="echo-retry.en-ko.devtest.first-8")
    assert (again.name, again.retry, again.system.decoding["seed"]) == ("echo (retry)", True, 3)
    asked = (data.parent / "asked").read_text().splitlines()
    assert len(asked) > 2 * len(set(TEXTS["eng_Latn"][:8]))
    rows = lines.read(data.parent / "runs" / "echo-retry.en-ko.devtest.first-8" / "engine.tsv")
    assert {row.split("\t")[-1] for row in rows[1:]} == {"greedy"}  # no later answer was better


def test_one_model_that_fails_leaves_the_others_their_turn(
    data: Path, faulty: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data.parent / "runs" / "echo.en-ko.devtest.first-3"
    faulty["start_error"] = "no such device"
    assert cli.main(command(data, "--limit", "3", "--direction", "en-ko,ko-en", "--quiet")) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["echo en-ko", "echo ko-en"]
    assert not (folder / "run.json").exists()
    del faulty["start_error"]
    run(data, "--limit", "3", status=3, name=folder.name)


def test_both_directions_are_asked_of_one_engine(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    class Counted(Pool):
        def __post_init__(self) -> None:
            super().__post_init__()
            started.append(self.log)

    monkeypatch.setattr(flores_run, "Pool", Counted)
    run(data, "--direction", "en-ko,ko-en", "--limit", "50", name="echo.en-ko.devtest.first-50")
    first, second = (runs.load(folder) for folder in runs.find([data.parent / "runs"]))
    assert len(started) == 1 and not started[0].exists()
    assert first.timing and second.timing
    assert (first.timing.sentences, second.timing.sentences) == (49, 50)  # a sentence of these stands there twice


def test_why_it_is_this_engine_is_said_once_and_by_the_first_that_runs(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(direction: Direction, wishes: start.Wishes) -> start.Prepared:
        return dataclasses.replace(start.prepare(direction, wishes), reasons=("echo: asked for",))

    monkeypatch.setattr(flores_run, "prepare", prepare)
    run(data, "--limit", "5", name="echo.en-ko.devtest.first-5")
    for arguments in ((), ("--restart",)):
        capsys.readouterr()
        run(data, "--limit", "5", "--direction", "en-ko,ko-en", *arguments, name="echo.ko-en.devtest.first-5")
        assert capsys.readouterr().err.count("echo: asked for") == 1


def test_what_the_engine_printed_is_kept_where_it_failed(
    data: Path, faulty: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    faulty["start_error"] = "no such device"
    assert cli.main(command(data, "--limit", "3", "--quiet")) == 1
    named = re.search(r"see (\S+engine\.log)", capsys.readouterr().err)
    assert named
    assert "no such device" in Path(named[1]).read_text()


def test_nllb_takes_any_pair_without_checks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(
        data, "--model", "nllb-600m", "--direction", "deu_Latn-ko", "--limit", "3",
        name="echo.deu_Latn-ko.devtest.first-3",
    )  # fmt: skip
    assert done.output.verdicts is None
    assert "checks are off" in capsys.readouterr().err
    assert cli.main(command(data, "--direction", "deu_Latn-ko")) == 2
    assert capsys.readouterr().err == (
        "koen-batch: --direction deu_Latn-ko: koen-v4 is asked for English and Korean only; models of the NLLB family "
        "take any pair of FLORES\n"
    )


def test_other_pairs_are_asked_by_code_and_judged_by_their_end() -> None:
    pair = Direction("deu_Latn", "fra_Latn")
    nllb = family("nllb")
    assert nllb.prompt_text("Ein Satz.", pair) == "deu_LatnEin Satz.</s>"
    assert nllb.forced_first(pair) == "fra_Latn"
    with pytest.raises(UsageError, match="fra_Latn: the model's vocabulary has no token"):
        Asking(nllb, CodePoints(), pair, 1024)
    for reason, flags in {"stop": (), "length": ("truncated",), "repetition": ("repetition",)}.items():
        assert checks.check("Ein Satz.", "Ein Satz.", reason, pair) == flags
    assert checks.check("Ein Satz.", " ", "stop", pair) == ("empty",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--direction", "en-en"), "no direction"),
        (("--direction", ","), "an empty list"),
        (("--split", "dev"), "no dev of eng_Latn in any layout"),
        (("--model", "a,b", "--revision", "main"), "with 2 models"),
        (("--spm", "missing.model"), "no SentencePiece model"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    data: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(data, *arguments)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert message in error


def test_missing_data_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KOEN_DATA", raising=False)
    assert cli.main(["flores", "--engine", "echo", "-o", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert flores.ARCHIVE in error
    assert "--data" in error


def test_two_models_in_one_folder_are_refused(data: Path, faulty: dict[str, Any]) -> None:
    options = flores_run.Options(str(data), data.parent)
    tasks = flores_run.plan(["a", "b"], [Direction.to("ko")], start.Wishes(engine="echo"), options)
    assert len(tasks) == 1  # echo is echo, whatever --model says
    faulty["max_num_seqs"] = 4

    def prepare(direction: Direction, wishes: start.Wishes) -> start.Prepared:
        prepared = start.prepare(direction, wishes)
        identity = dataclasses.replace(prepared.identity, revision=str(wishes.model))
        return dataclasses.replace(prepared, identity=identity)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(UsageError, match="same folder"):
        patch.setattr(flores_run, "prepare", prepare)
        flores_run.plan(["a", "b"], [Direction.to("ko")], start.Wishes(engine="echo"), options)


@pytest.mark.parametrize(
    ("folder", "config", "stored"),
    [
        ("gemma-3-270m-q4_k_m-a5fd3b62230a-gguf-bf16-1", {}, "GGUF Q4_K_M, expanded to bfloat16"),
        ("some-model-0123456789ab-gguf-bf16-1", {}, "GGUF, expanded to bfloat16"),
        ("plain", {}, None),
        ("reduced", {"quantization_config": {"quant_method": "awq"}}, "awq"),
    ],
)
def test_the_record_says_how_weights_were_stored(
    tmp_path: Path, folder: str, config: dict[str, Any], stored: str | None
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text(json.dumps(config))
    (tmp_path / folder / "model.safetensors").touch()
    engine = start.prepare(Direction.to("ko"), start.Wishes(engine="echo"))
    settings: dict[str, str | int | float | bool | None] = {"model": str(tmp_path / folder), "dtype": "bfloat16"}
    engine = dataclasses.replace(engine, plan=PoolPlan((EngineSpec("vllm", settings),), window=4))
    system = systems.describe(engine, JobConfig(Direction.to("ko")))
    assert (system.quantisation, system.dtype, system.engine) == (stored, "bfloat16", "vllm")
    assert "koen-batch" in system.versions


@needs_data
def test_the_real_sentences_all_come_back(tmp_path: Path) -> None:
    data = Path(os.environ["KOEN_DATA"])
    assert (
        cli.main(["flores", "--engine", "echo", "--data", str(data), "-o", str(tmp_path), "--direction", "ko-en"]) == 0
    )
    done = runs.load(tmp_path / "echo.ko-en.devtest")
    sources = flores.load(data, "devtest", Direction.to("en")).sources
    assert runs.load_texts(tmp_path / "echo.ko-en.devtest", done).hypotheses == [MARK + source for source in sources]
    assert done.data.segments == COUNT
