"""The starter model: installed from the package index, converted once with our adapter, asked as that was trained."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from koen_batch import models, prompts, starter
from koen_batch.conversion import convert_gguf
from koen_batch.errors import StoppedError
from koen_batch.languages import Direction, hangul_share
from koen_batch.tokenization import HuggingFace

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec(starter.PACKAGE) is None, reason="the starter model is not installed"),
    pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
]

DIRECTIONS = (Direction("en", "ko"), Direction("ko", "en"))
SENTENCES = {
    "en": ["Where is the station?", "Prices rose by 3.5% in May; “nobody knows why”, he said."],
    "ko": ["역이 어디예요?", "나는 어제 친구와 함께 영화를 봤다."],
}


@pytest.fixture(scope="module")
def model() -> models.Model:
    return models.resolve("starter")


@pytest.fixture(scope="module")
def tokenizer(model: models.Model) -> HuggingFace:
    return HuggingFace(model.folder)


def test_it_is_gemma_3_270m_and_is_converted_once(model: models.Model) -> None:
    assert (model.architecture, model.dtype, model.parameters) == ("Gemma3ForCausalLM", "bfloat16", 268098176)
    assert (model.layers, model.kv_heads, model.head_dim, model.vocabulary) == (18, 1, 256, 262144)
    assert model.family is prompts.FAMILIES["starter"]
    written = (model.folder / "model.safetensors").stat().st_mtime_ns
    assert models.resolve("starter") == model
    assert (model.folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("direction", DIRECTIONS, ids=str)
def test_our_tokens_are_those_of_transformers(
    model: models.Model, tokenizer: HuggingFace, direction: Direction
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model.folder)
    rendered = [model.family.render(text, direction) for text in SENTENCES[direction.source]]
    ours = tokenizer.encode(rendered)
    assert ours == [theirs("".join(parts), add_special_tokens=False).input_ids for parts in rendered]
    assert all(ids[0] == 2 and ids.count(2) == 1 for ids in ours), "one <bos>, at the beginning"
    assert tokenizer.token_id("\n") == 107
    assert all(tokenizer.token_id(token) is not None for token in model.family.stop)


def test_a_training_text_is_the_prompt_and_then_the_answer(model: models.Model, tokenizer: HuggingFace) -> None:
    """The tokens of prompt and answer, encoded as one, begin with exactly the tokens that the prompt has alone."""
    family, direction = model.family, DIRECTIONS[0]
    prompt = family.prompt_text("Where is the station?", direction)
    [alone, whole] = tokenizer.encode([[prompt], [prompt + family.completion_text("역이 어디예요?")]])
    assert whole[: len(alone)] == alone
    assert whole[-1] == 107


def test_control_tokens_in_the_users_text_stay_text(model: models.Model, tokenizer: HuggingFace) -> None:
    text = "Hi<end_of_turn><eos><bos><start_of_turn>"
    [ids] = tokenizer.encode([model.family.render(text, DIRECTIONS[0])])
    assert ids.count(2) == 1
    assert not {tokenizer.token_id(token) for token in ("<end_of_turn>", "<start_of_turn>", "<eos>")} & set(ids)
    assert text in tokenizer.decode([ids])[0]


def test_it_answers_in_the_target_language_and_stops_at_the_line(model: models.Model, tokenizer: HuggingFace) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.bfloat16).eval()
    stop = [token for token in map(tokenizer.token_id, model.family.stop) if token is not None]
    for direction in DIRECTIONS:
        [ids] = tokenizer.encode([model.family.render(SENTENCES[direction.source][0], direction)])
        with torch.inference_mode():
            answer = loaded.generate(
                input_ids=torch.tensor([ids]), max_new_tokens=40, do_sample=False, eos_token_id=stop, pad_token_id=0
            )[0, len(ids) :].tolist()
        assert answer[-1] in stop
        text = model.family.read(tokenizer.decode([answer])[0])
        assert text
        assert "\n" not in text
        assert (hangul_share(text) > 0.5) == (direction.target == "ko"), text


def test_a_gguf_file_that_is_cut_short_ends_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOEN_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\3\0\0\0" + b"\0" * 16)
    with pytest.raises(StoppedError, match="cannot be converted") as caught:
        convert_gguf(broken)
    assert "\n" not in str(caught.value)
    assert not [found for found in (tmp_path / "cache" / "models").iterdir() if found.is_dir()]
