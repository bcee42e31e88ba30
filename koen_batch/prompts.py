"""Model families: how to ask, when to stop, how to read the answer.

Translation, evaluation and training all ask through this module, so a model is asked in training exactly as it is
asked later. A prompt is a frame around the source text: what stands before it and what stands after it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

from koen_batch.errors import UsageError
from koen_batch.languages import FLORES_CODES, NAMES, Direction

Variant = Literal["default", "plain"]
"""``plain`` asks in other words: the step of the retry ladder that changes the prompt."""

Part = str
"""A piece of a prompt: template, or, as a ``Source``, the user's own text."""


class Source(str):
    """The user's text inside a prompt. Nothing in it may act as a control token: see ``koen_batch.tokenization``."""

    __slots__ = ()


@dataclass(frozen=True)
class Family(ABC):
    """How one family of models is asked. ``version`` changes whenever a frame changes: it is in the fingerprint."""

    name: str
    version: str
    stop: tuple[str, ...]
    """Tokens that end an answer; those that a tokenizer does not know are ignored."""

    @abstractmethod
    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        """What stands before and after the source text."""

    def render(self, source: str, direction: Direction, *, variant: Variant = "default") -> list[Part]:
        """The prompt for ``source``: its parts, joined, are the prompt's text."""
        before, after = self.frame(direction, variant)
        return [before, Source(source), after]

    def prompt_text(self, source: str, direction: Direction, *, variant: Variant = "default") -> str:
        """The prompt as one string, for training and for reading."""
        return "".join(self.render(source, direction, variant=variant))

    def completion_text(self, target: str) -> str:
        """What a model is trained to answer to ``prompt_text``: the translation and the token that ends it."""
        return target + (self.stop[0] if self.stop else "")

    def forced_first(self, direction: Direction) -> str | None:
        """The token that an answer must begin with, for encoder-decoder models; None for all others."""
        return None

    def read(self, answer: str) -> str:
        """The translation in an answer: without the white space around it, and nothing else is removed.

        A preamble or a ``<think>`` block stays, because a model that writes one has not done what it was asked:
        the checks find it (`chatter`) and the ladder asks again, where cutting would hide it.
        """
        return answer.strip()


Instruction = Callable[[str], str]


@dataclass(frozen=True)
class Chat(Family):
    """A chat template: turns of named roles, an instruction of its own or at the head of the user's turn."""

    begin: str
    open: str
    """Begins a turn; ``{role}`` stands in it."""
    close: str
    """Ends a turn."""
    instruct: Instruction
    """The instruction, given the name of the target language."""
    instruct_plain: Instruction
    roles: tuple[str, str, str] = ("system", "user", "assistant")
    instruction_turn: bool = True
    """Whether the instruction is a turn of its own."""
    cue: str = ""
    """What follows the opening of the answer's turn."""
    end: str = ""
    """Ends the answer, where that is not ``close``."""
    trim: bool = False
    """Whether the template strips white space around a turn's text."""

    def instruction(self, direction: Direction, variant: Variant = "default") -> str:
        return (self.instruct if variant == "default" else self.instruct_plain)(NAMES[direction.target])

    @cache  # noqa: B019 - families are a handful of constants that live as long as the process
    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        instruction = self.instruction(direction, variant)
        system, user, assistant = (self.open.format(role=role) for role in self.roles)
        if self.instruction_turn:
            before = f"{self.begin}{system}{instruction}{self.close}{user}"
        else:
            before = f"{self.begin}{user}{instruction}\n\n"
        return before, f"{self.close}{assistant}{self.cue}"

    def render(self, source: str, direction: Direction, *, variant: Variant = "default") -> list[Part]:
        return super().render(source.strip() if self.trim else source, direction, variant=variant)

    def completion_text(self, target: str) -> str:
        return target + (self.end or self.close)

    def messages(self, source: str, target: str, direction: Direction) -> dict[str, list[dict[str, str]]]:
        """A training example as TRL's conversational ``prompt`` and ``completion`` columns.

        Under the family's own chat template it renders to ``prompt_text`` and ``completion_text``; that takes
        templates that know these roles, and for Qwen3 one told ``enable_thinking=False``.
        """
        instruction = self.instruction(direction)
        if self.instruction_turn:
            prompt = [{"role": "system", "content": instruction}, {"role": "user", "content": source}]
        else:
            prompt = [{"role": "user", "content": f"{instruction}\n\n{source}"}]
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": target}]}


@dataclass(frozen=True)
class Plain(Family):
    """The prompt is the source: for the echo engine."""

    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        return "", ""

    def read(self, answer: str) -> str:
        return answer


@dataclass(frozen=True)
class EncoderDecoder(Family):
    """NLLB: the source language's token, the text, the end token; the answer begins with the target's token.

    It takes one sentence at a time and has no instruction, so ``plain`` is the same prompt. Languages other than
    English and Korean go by their FLORES codes.
    """

    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        return FLORES_CODES.get(direction.source, direction.source), "</s>"

    def forced_first(self, direction: Direction) -> str | None:
        return FLORES_CODES.get(direction.target, direction.target)


@dataclass(frozen=True)
class Completion(Family):
    """A base model, shown a few translations and asked for the next: one line of each language, stop at its end.

    One that was trained on these lines is shown no examples, and has this one wording: shown them after all, it wrote
    the wrong language more often than a translation (25 of 30 such retries failed).
    """

    begin: str
    trained: bool = False

    @cache  # noqa: B019 - as above
    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        groups = examples()
        # Eight short examples with Korean labels did best of what was compared on FLORES-200 dev.
        if self.trained:
            labels, shown = _KOREAN_NAMES, []
        elif variant == "default":
            labels, shown = _KOREAN_NAMES, groups["first"] + groups["second"]
        else:
            labels, shown = NAMES, groups["second"] + groups["first"]
        source, target = labels[direction.source], labels[direction.target]
        lines = [f"{source}: {each[direction.source]}\n{target}: {each[direction.target]}\n" for each in shown]
        return f"{self.begin}{''.join(lines)}{source}: ", f"\n{target}:"

    def render(self, source: str, direction: Direction, *, variant: Variant = "default") -> list[Part]:
        # A line break inside the text would begin the next example.
        return super().render(" ".join(source.split("\n")), direction, variant=variant)

    def completion_text(self, target: str) -> str:
        return " " + " ".join(target.split("\n")) + self.stop[0]


_KOREAN_NAMES = {"en": "영어", "ko": "한국어"}


@cache
def examples() -> dict[str, list[dict[str, str]]]:
    """Short translations of this project's own, in two groups, each by language."""
    import tomllib

    return tomllib.loads(Path(__file__).with_name("starter_examples.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Template(Family):
    """Any other chat model: the chat template that came with it, asked in the user's turn, thinking off."""

    template: str = field(repr=False)
    tokens: tuple[tuple[str, str], ...] = ()
    """The special tokens that the template may write: ``bos_token``, ``eos_token`` and the like."""

    @cache  # noqa: B019 - one model per process
    def frame(self, direction: Direction, variant: Variant) -> tuple[str, str]:
        from koen_batch.chat_templates import around_source

        instruct = _ask if variant == "default" else _ask_plain
        return around_source(self.template, dict(self.tokens), instruct(NAMES[direction.target]) + "\n\n")


def _translate_to(language: str) -> str:
    return f"Translate to {language}."


def _translate_following(language: str) -> str:
    return f"Translate the following text to {language}."


def _ask(language: str) -> str:
    return f"Translate the following text into {language}. Output only the translation."


def _ask_plain(language: str) -> str:
    return f"What is this in {language}? Answer with the {language} text alone."


def _rosetta(language: str) -> str:
    return (
        f"Translate the user's text to {language}.\nProvide the final translation immediately without any other text."
    )


def _rosetta_plain(language: str) -> str:
    return (
        f"Translate the user's text to {language}.\nTone: Natural and fluent\n"
        "Provide the final translation immediately without any other text."
    )


def _hunyuan(language: str) -> str:
    return f"Translate the following segment into {language}, without additional explanation."


# The system prompt `Translate to Korean.` is the one that koen-v4's model card shows. `Translate to English.` is
# inferred for that model: its author's later training notebook (LFM2-KoEn-Tuning, colab/SFT_colab_github.ipynb)
# uses it, and his evaluation notebook the wording that is `plain` here.
_KOEN = Chat(
    name="koen",
    version="1",
    stop=("<|im_end|>", "<|endoftext|>"),
    begin="<|startoftext|>",
    open="<|im_start|>{role}\n",
    close="<|im_end|>\n",
    instruct=_translate_to,
    instruct_plain=_translate_following,
)

# The template of the model card of yanolja/YanoljaNEXT-Rosetta-4B-2511. A plain Gemma template makes it run away.
_YANOLJA = Chat(
    name="yanolja",
    version="1",
    stop=("<end_of_turn>", "<eos>"),
    begin="<bos>",
    open="<start_of_turn>{role}\n",
    close="<end_of_turn>\n",
    instruct=_rosetta,
    instruct_plain=_rosetta_plain,
    roles=("instruction", "source", "translation"),
    trim=True,
)

_GEMMA3 = replace(
    _YANOLJA,
    name="gemma3",
    instruct=_ask,
    instruct_plain=_ask_plain,
    roles=("system", "user", "model"),
    instruction_turn=False,
)

# Qwen3 has no begin token; the empty think block is what its template writes for `enable_thinking=False`.
_QWEN3 = replace(_KOEN, name="qwen3", begin="", instruct=_ask, instruct_plain=_ask_plain, cue="<think>\n\n</think>\n\n")

# Hunyuan-MT-7B: the prompt of its model card, in the tokens of its chat template; it has no system turn.
_HUNYUAN = Chat(
    name="hunyuan",
    version="1",
    stop=("<|eos|>",),
    begin="<|startoftext|>",
    open="",
    close="<|extra_0|>",
    end="<|eos|>",
    instruct=_hunyuan,
    instruct_plain=_ask,
    instruction_turn=False,
)

# Gemma has tokens for runs of line breaks: each of them ends the line.
_COMPLETION = Completion(
    name="completion",
    version="1",
    stop=("\n", "\n\n", "\n\n\n", "\n\n\n\n", "<eos>"),
    begin="<bos>",
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _KOEN,
        replace(_KOEN, name="lfm2"),
        _YANOLJA,
        _GEMMA3,
        _QWEN3,
        _HUNYUAN,
        EncoderDecoder(name="nllb", version="1", stop=("</s>",)),
        _COMPLETION,
        replace(_COMPLETION, name="starter", trained=True),
        Plain(name="plain", version="1", stop=()),
    )
}
"""Every family but `template`, which needs a model: see ``family``."""

NAMES_OF_FAMILIES = (*FAMILIES, "template")


def family(name: str, folder: Path | None = None) -> Family:
    """The family ``name``; ``template`` reads the chat template of the model in ``folder``.

    Raises UsageError for an unknown name, or a folder without a chat template.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if name != "template" or folder is None:
        raise UsageError(f"unknown family {name!r}: one of {', '.join(NAMES_OF_FAMILIES)}")
    from koen_batch.chat_templates import end_of_answer, special_tokens, template_of

    template = template_of(folder)
    if not template:
        raise UsageError(
            f"{folder}: no chat template (chat_template.jinja or tokenizer_config.json): --family completion"
        )
    tokens = special_tokens(folder)
    ends = dict.fromkeys((end_of_answer(template, tokens), tokens.get("eos_token", "")))
    stop = tuple(end for end in ends if end)
    version = "1-" + hashlib.sha256(template.encode()).hexdigest()[:12]
    return Template(name="template", version=version, stop=stop, template=template, tokens=tuple(tokens.items()))


def prompt_hash(family: Family, direction: Direction) -> str:
    """12 hex digits that change whenever this family asks, stops or is read differently in this direction."""
    frames = [family.frame(direction, variant) for variant in ("default", "plain")]
    parts = [family.name, family.version, frames, family.stop, family.forced_first(direction)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
