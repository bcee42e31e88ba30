"""Each family asks as its golden file says, and as the chat templates say that TRL ships."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import pytest

from koen_batch import chat_templates, prompts
from koen_batch.errors import UsageError
from koen_batch.languages import Direction

GOLDEN = Path(__file__).parent / "golden" / "prompts"
TEXTS = {"en": "Where is the station?\nI'm lost.", "ko": "역이 어디예요?\n길을 잃었어요."}
DIRECTIONS = (Direction("en", "ko"), Direction("ko", "en"))

BOS = {"koen": "<|startoftext|>", "lfm2": "<|startoftext|>", "gemma3": "<bos>", "qwen3": ""}
TRL_TEMPLATES = [
    ("koen", "lfm2"),
    ("koen", "lfm2_v2"),
    ("koen", "lfm2_training"),
    ("koen", "lfm2_2_5"),
    ("lfm2", "lfm2"),
    ("gemma3", "gemma3"),
    ("gemma3", "gemma3_training"),
    ("qwen3", "qwen3"),
    ("qwen3", "qwen3_training"),
]


def trl_template(name: str) -> str:
    found = find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("trl is not installed (extra `train`)")
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", prompts.FAMILIES)
@pytest.mark.parametrize("direction", DIRECTIONS, ids=str)
@pytest.mark.parametrize("variant", ["default", "plain"])
def test_family_renders_as_its_golden_file(name: str, direction: Direction, variant: prompts.Variant) -> None:
    family = prompts.FAMILIES[name]
    golden = GOLDEN / f"{name}.{direction}.{variant}.txt"
    rendered = family.prompt_text(TEXTS[direction.source], direction, variant=variant)
    assert rendered.encode() == golden.read_bytes()


@pytest.mark.parametrize(("name", "template"), TRL_TEMPLATES, ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS, ids=str)
def test_prompt_and_training_text_are_those_of_trls_template(name: str, template: str, direction: Direction) -> None:
    family = prompts.FAMILIES[name]
    assert isinstance(family, prompts.Chat)
    source, target = TEXTS[direction.source], TEXTS[direction.target]
    example = family.messages(source, target, direction)
    text = trl_template(template)
    tokens = {"bos_token": BOS[name]}
    asked = chat_templates.render(text, example["prompt"], tokens, add_generation_prompt=True, enable_thinking=False)
    assert asked == family.prompt_text(source, direction)
    whole = chat_templates.render(text, example["prompt"] + example["completion"], tokens, add_generation_prompt=False)
    assert whole == family.prompt_text(source, direction) + family.completion_text(target)


@pytest.mark.parametrize(("template", "tokens"), [("lfm2", "<|startoftext|>"), ("gemma3", "<bos>"), ("llama3", "<s>")])
def test_a_models_own_template_asks_around_the_source(tmp_path: Path, template: str, tokens: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(trl_template(template))
    (tmp_path / "tokenizer_config.json").write_text(f'{{"bos_token": {{"content": "{tokens}"}}, "eos_token": "</s>"}}')
    family = prompts.family("template", tmp_path)
    for direction in DIRECTIONS:
        parts = family.render("A {{ b }} c", direction)
        assert parts[0].startswith(tokens)
        assert [part for part in parts if isinstance(part, prompts.Source)] == ["A {{ b }} c"]
    ends = {"lfm2": "<|im_end|>", "gemma3": "<end_of_turn>", "llama3": "<|eot_id|>"}
    assert family.stop == (ends[template], "</s>")


def test_a_template_without_thinking_switch_or_system_turn_is_read_from_tokenizer_config(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[/]{% endfor %}"
    template += "{% if add_generation_prompt %}[a]{% endif %}"
    (tmp_path / "tokenizer_config.json").write_text(
        f'{{"chat_template": [{{"name": "tools", "template": "no"}}, {{"name": "default", "template": "{template}"}}]}}'
    )
    family = prompts.family("template", tmp_path)
    direction = DIRECTIONS[0]
    assert family.prompt_text("Hi", direction).endswith("Output only the translation.\n\nHi[/][a]")
    assert family.stop == ("[/]",)
    assert family.frame(direction, "plain") != family.frame(direction, "default")


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no users here') }}", "{{ messages[0].content.__class__.mro() }}", "{% if %}", "hello"],
)
def test_a_template_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, template: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UsageError, match="--family") as caught:
        prompts.family("template", tmp_path).frame(DIRECTIONS[0], "default")
    assert "\n" not in str(caught.value)


def test_unknown_family_and_missing_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of koen, lfm2"):
        prompts.family("nonesuch")
    with pytest.raises(UsageError, match="no chat template"):
        prompts.family("template", tmp_path)


def test_the_hash_follows_the_wording_the_stop_and_the_direction() -> None:
    family = prompts.FAMILIES["koen"]
    direction, other = DIRECTIONS
    changed = [
        dataclasses.replace(family, version="2"),
        dataclasses.replace(family, stop=("<|im_end|>",)),
        dataclasses.replace(family, instruct_plain=lambda language: f"{language}!"),
        prompts.FAMILIES["lfm2"],
    ]
    hashes = {prompts.prompt_hash(each, direction) for each in (family, *changed)} | {
        prompts.prompt_hash(family, other)
    }
    assert len(hashes) == len(changed) + 2
    assert prompts.prompt_hash(family, direction) == prompts.prompt_hash(dataclasses.replace(family), direction)


def test_nllb_forces_the_target_language_and_others_force_nothing() -> None:
    forced = {name: family.forced_first(DIRECTIONS[1]) for name, family in prompts.FAMILIES.items()}
    assert forced.pop("nllb") == "eng_Latn"
    assert set(forced.values()) == {None}


def test_reading_strips_space_and_hides_no_chatter() -> None:
    assert prompts.FAMILIES["qwen3"].read(" <think>\nhm\n</think>\n\n안녕 \n") == "<think>\nhm\n</think>\n\n안녕"
    assert prompts.FAMILIES["plain"].read(" as it is ") == " as it is "


def test_the_plain_variant_asks_differently_wherever_there_is_an_instruction() -> None:
    same = {
        name
        for name, family in prompts.FAMILIES.items()
        if family.frame(DIRECTIONS[0], "default") == family.frame(DIRECTIONS[0], "plain")
    }
    assert same == {"nllb", "plain", "starter"}
