"""A LoRA adapter beside its model: what it is, whose it is, what is refused, and that it decides the answer."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from koen_batch import adapters
from koen_batch.cli import main
from koen_batch.config import JobConfig, answer_settings, digest
from koen_batch.engines.start import Wishes, identity
from koen_batch.errors import UsageError
from koen_batch.languages import Direction

CONFIG = {"model_type": "lfm2", "hidden_size": 8, "num_hidden_layers": 1, "architectures": ["Lfm2ForCausalLM"]}
KOREAN = Direction.to("ko")


def tensors(path: Path, fill: int = 0, **shapes: tuple[int, ...]) -> None:
    """A safetensors file of bfloat16, every byte ``fill``."""
    head: dict[str, Any] = {}
    size = 0
    for name, (rows, columns) in shapes.items():
        head[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [size, size + 2 * rows * columns]}
        size += 2 * rows * columns
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes([fill]) * size)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors(folder / "model.safetensors", weight=(8, 8))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "final"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    tensors(folder / "adapter_model.safetensors", **{"q.lora_A.weight": (4, 8), "q.lora_B.weight": (8, 4)})
    return folder


def test_it_is_known_by_its_content_and_called_as_its_run(adapter: Path) -> None:
    found = adapters.read(adapter)
    assert (found.name, found.rank, found.parameters) == ("run", 4, 64)
    assert adapters.read(adapter.parent) == found, "the run stands for its result"
    (adapter / "README.md").write_text("a card")
    assert adapters.read(adapter).id == found.id
    tensors(adapter / "adapter_model.safetensors", 1, **{"q.lora_A.weight": (4, 8), "q.lora_B.weight": (8, 4)})
    assert adapters.read(adapter).id != found.id


def test_it_decides_the_answer_and_the_family(base: Path, adapter: Path) -> None:
    wishes = Wishes(engine="hf", model=str(base))
    (adapter / "training.json").write_text(json.dumps({"family": "koen", "revision": None}))
    without, beside = (identity(KOREAN, w) for w in (wishes, Wishes(engine="hf", model=str(base), adapter=adapter)))
    assert beside.adapter == adapters.read(adapter).id
    assert beside.prompt != without.prompt, "asked as it was trained"
    assert (without.title, beside.title) == (str(base), f"{base} + {beside.adapter}")
    assert len({digest(answer_settings(JobConfig(KOREAN), one)) for one in (without, beside)}) == 2


def test_it_is_refused_with_another_base_than_it_was_trained_on(base: Path, adapter: Path) -> None:
    own = identity(KOREAN, Wishes(model=str(base))).revision
    for revision, fits in ((own, True), ("another", False)):
        (adapter / "training.json").write_text(json.dumps({"family": "koen", "revision": revision}))
        if fits:
            assert identity(KOREAN, Wishes(model=str(base), adapter=adapter)).adapter
        else:
            with pytest.raises(UsageError, match="trained on revision another of its base"):
                identity(KOREAN, Wishes(model=str(base), adapter=adapter))


def test_a_checkpoint_knows_what_its_run_was_trained_from(adapter: Path) -> None:
    checkpoint = adapter.rename(adapter.with_name("checkpoint-10"))
    told = {"fingerprint": {"model": "abc", "recipe": {"model": None, "family": "koen"}}}
    (checkpoint.parent / "run.json").write_text(json.dumps(told))
    found = adapters.read(checkpoint)
    assert (found.name, found.revision, found.family) == ("checkpoint-10", "abc", "koen")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4"),
        ({"init_lora_weights": "gaussian", "bias": "none", "use_rslora": True}, ""),
    ],
)
def test_what_vllm_does_not_know_is_seen(adapter: Path, settings: dict[str, Any], what: str) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **settings}))
    assert adapters.read(adapter).not_in_vllm == what


def refused(capsys: pytest.CaptureFixture[str], source: Path, *options: object) -> str:
    assert main(["translate", str(source), "--to", "ko", *map(str, options)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_is_no_adapter_is_refused_in_one_line(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Hello there."}\n')
    model = ("--model", base, "--adapter")
    assert "no such folder" in refused(capsys, source, *model, tmp_path / "absent")
    assert "use it as --model" in refused(capsys, source, *model, base)
    assert "no adapter in it" in refused(capsys, source, *model, tmp_path)
    assert f"--adapter {adapter}" in refused(capsys, source, "--model", adapter), "an adapter is no model"
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(weights[:20])
    assert "cut short" in refused(capsys, source, *model, adapter)
    (adapter / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in refused(capsys, source, *model, adapter)
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    assert "of type IA3" in refused(capsys, source, *model, adapter)
    (adapter / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refused(capsys, source, *model, adapter)


def test_an_encoder_decoder_takes_none(
    base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Hello there."}\n')
    (base / "config.json").write_text(json.dumps({**CONFIG, "is_encoder_decoder": True}))
    assert "encoder-decoder" in refused(capsys, source, "--model", base, "--adapter", adapter)
