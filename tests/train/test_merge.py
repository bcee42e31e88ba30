"""A merged adapter is the model that was trained, in every engine."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from koen_batch import adapters, models
from koen_batch.engines import parity, vllm
from koen_batch.engines.base import Decoding, EngineSpec, Request
from koen_batch.engines.parity import Answers
from koen_batch.languages import Direction
from koen_batch.tokenization import HuggingFace
from train import recipe
from train.__main__ import main
from train.run import Order
from train.sft import sft

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pl = pytest.importorskip("polars")

TEXTS = ["The one two", "The sky", "The sea car and a red sun", "A longer sentence, of which it has seen nothing."]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("merge")
    rows = [(f"The {a} {b}", f"{b} {a}", "en-ko") for a in ("one", "two", "red") for b in ("하나", "둘", "빨강")] * 4
    pl.DataFrame(rows, schema=["text", "target", "direction"], orient="row").write_parquet(tmp / "t.parquet")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = ["method=lora", "lora_rank=8", "lora_alpha=64", "learning_rate=1e-2", "epochs=2"]
    assert sft(Order(recipe.load("tiny", settings), tmp / "t.parquet", tmp / "run")) == 0
    torch.set_num_threads(threads)
    return tmp / "run"


@pytest.fixture(scope="module")
def merged(adapter: Path) -> Path:
    folder = adapter.parent / "merged"
    assert main(["merge", str(adapter), "-o", str(folder)]) == 0
    return folder


def test_the_merged_model_is_the_base_with_its_adapter(adapter: Path, merged: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    ids = torch.tensor([[1, 3, 40, 90, 200, 17, 4]])
    with torch.no_grad():
        base = load(adapter / "base")(ids).logits
        expected = PeftModel.from_pretrained(load(adapter / "base"), adapter / "final")(ids).logits
        got = load(merged)(ids).logits
    assert torch.allclose(got, expected, atol=1e-4)
    assert (expected - base).abs().max() > 0.1, "the adapter changes something"


def test_the_merged_model_can_be_used_as_it_is(adapter: Path, merged: Path) -> None:
    model = models.resolve(str(merged))
    assert (model.family.name, model.dtype) == ("koen", "float32")
    assert not list(merged.parent.glob(".merged*"))
    assert (merged / "tokenizer.json").read_bytes() == (adapter / "base" / "tokenizer.json").read_bytes()
    config = json.loads((adapter / "final" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "base", "no path of this machine"


def test_a_checkpoint_can_be_merged_in_another_number_format(adapter: Path, tmp_path: Path) -> None:
    checkpoint = next(adapter.glob("checkpoint-*"))
    assert main(["merge", str(checkpoint), "-o", str(tmp_path / "m"), "--dtype", "bfloat16"]) == 0
    assert models.resolve(str(tmp_path / "m")).dtype == "bfloat16"


def test_what_cannot_be_merged_is_one_line(
    adapter: Path, merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert main(["merge", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "is there already" in refused(adapter, "-o", merged)
    assert "use it as --model" in refused(merged, "-o", tmp_path / "m")
    assert "no adapter in it" in refused(tmp_path, "-o", tmp_path / "m")
    other = tmp_path / "final"
    other.mkdir()
    (other / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "name it with --base" in refused(other, "-o", tmp_path / "m")
    said = json.loads((adapter / "final" / "training.json").read_text(encoding="utf-8")) | {"revision": "other"}
    (other / "training.json").write_text(json.dumps(said | {"base": str(adapter / "base")}), encoding="utf-8")
    assert "trained on" in refused(other, "-o", tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.fixture(scope="module")
def prompts(adapter: Path) -> list[Request]:
    """Translations to be asked for, as the adapter was trained to be asked."""
    model = models.resolve(str(adapter / "base"), family="koen")
    tokenizer = HuggingFace(model.folder)
    rendered = tokenizer.encode([model.family.render(text, Direction.to("ko")) for text in TEXTS])
    stops = tuple(stop for stop in map(tokenizer.token_id, model.family.stop) if stop is not None)
    return [Request(number, ids, Decoding(32, stop_token_ids=stops)) for number, ids in enumerate(rendered)]


def ask_hf(folder: Path, prompts: list[Request], **settings: Any) -> tuple[Answers, Answers]:
    """Hugging Face's answers, in a batch and alone; in this process, which has loaded transformers already."""
    from koen_batch.engines.huggingface import HuggingFaceEngine

    return parity.ask_both(HuggingFaceEngine(str(folder), dtype="float32", **settings), prompts)


def in_vllm(folder: Path, **settings: Any) -> EngineSpec:
    small = {"max_model_len": 256, "max_num_seqs": 8, "kv_cache_gib": 0.1}
    return EngineSpec("vllm", {"model": str(folder), "dtype": "float32", **small, **settings}, vllm.environment())


@pytest.fixture(scope="module")
def of_merged(merged: Path, prompts: list[Request]) -> tuple[Answers, Answers]:
    return ask_hf(merged, prompts)


def test_an_adapter_beside_its_base_answers_as_the_merged_model(
    adapter: Path, of_merged: tuple[Answers, Answers], prompts: list[Request]
) -> None:
    beside = ask_hf(adapter / "base", prompts, adapter=str(adapter / "final"))
    assert parity.compare("adapter", beside, of_merged, "float32").ok
    base = ask_hf(adapter / "base", prompts)
    assert parity.compare("base", base, of_merged, "float32").equal < len(prompts), "the adapter changes the answers"
    assert any(answer.tokens for answer in of_merged[0].values())


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_vllm_answers_as_hugging_face_merged_and_not(
    adapter: Path, merged: Path, of_merged: tuple[Answers, Answers], prompts: list[Request], eager: bool
) -> None:
    whole = in_vllm(merged, enforce_eager=eager)
    rank = vllm.lora_rank(adapters.read(adapter).rank)
    beside = in_vllm(adapter / "base", enforce_eager=eager, adapter=str(adapter / "final"), max_lora_rank=rank)
    for spec in (whole, beside):
        found = parity.compare("tiny", parity.ask(spec, prompts), of_merged, "float32")
        print(found)
        assert found.ok, str(found)
