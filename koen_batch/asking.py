"""From source texts to requests, and from completions to answers: prompt, tokens, budget.

The only place where a model family, its tokenizer and the decoding settings meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from koen_batch import documents
from koen_batch.engines.base import Decoding
from koen_batch.errors import UsageError
from koen_batch.ladder import Step
from koen_batch.languages import Direction
from koen_batch.prompts import Family, Variant, examples
from koen_batch.tokenization import Tokenizer

BUDGET_BASE = 32
BUDGET_FACTOR = 1.6
"""An answer may have 32 + 1.6 × stretch × its source's tokens, where the stretch is how many tokens this tokenizer has
for a translation, for each of its source (:func:`koen_batch.prompts.examples`), and at least 1. What needs more is a
loop: of 300,000 human translations, both directions of 150,000 pairs, none does (Gemma 3's tokenizer). Greedy decoding
does not depend on the budget."""

ONE_WORDING_PENALTY = 1.05

UNKNOWN_STRETCH = 2.0
"""Of other languages, of which there are no examples; NLLB is evaluated with any pair."""

LEAST_SOURCE = 64
"""Tokens of source that, with their answer, the context must have room for."""


class Question(msgspec.Struct, frozen=True):
    """The prompt of one source text in token ids, and how it is to be decoded."""

    tokens: list[int]
    decoding: Decoding


@dataclass
class Asking:
    """How this job asks its model. ``context`` is the most tokens that prompt and answer may have together."""

    family: Family
    tokenizer: Tokenizer
    direction: Direction
    context: int
    seed: int = 0
    max_new_tokens: int | None = None
    """A fixed budget; by default each answer's own, from its source's length."""
    _stop: tuple[int, ...] = field(init=False)
    _forced: int | None = field(init=False)
    _growth: float = field(init=False)
    """Tokens of budget for each of the source."""
    _overhead: dict[Variant, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        ids = (self.tokenizer.token_id(token) for token in self.family.stop)
        self._stop = tuple(token for token in ids if token is not None)
        forced = self.family.forced_first(self.direction)
        self._forced = self.tokenizer.token_id(forced) if forced else None
        if forced and self._forced is None:
            raise UsageError(f"{forced}: the model's vocabulary has no token of that language, so it cannot be asked")
        self._growth = BUDGET_FACTOR * max(1.0, self._stretch())
        least = self.frame_tokens("default") + LEAST_SOURCE + self._budget(LEAST_SOURCE)
        if least > self.context:
            raise UsageError(
                f"--max-model-len {self.context}: prompt and answer of a short sentence take {least} tokens: raise it"
            )

    def questions(self, sources: Sequence[tuple[str, Step]]) -> list[Question | None]:
        """A question for each source at its step of the ladder; None where prompt and answer exceed the context."""
        prompts = [self._prompt(source, step.prompt) for source, step in sources]
        return [
            self._question(tokens, step)
            for tokens, (_, step) in zip(self.tokenizer.encode(prompts), sources, strict=True)
        ]

    def answers(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """The translations that the generated tokens say."""
        return [self.family.read(text) for text in self.tokenizer.decode(answers)]

    def _prompt(self, source: str, variant: Variant) -> list[str]:
        return self.family.render(documents.unwrap(source), self.direction, variant=variant)

    def _question(self, tokens: list[int], step: Step) -> Question | None:
        budget = self._budget(len(tokens) - self.frame_tokens(step.prompt))
        if len(tokens) + budget > self.context:
            return None
        return Question(
            tokens,
            Decoding(
                max_new_tokens=budget,
                stop_token_ids=self._stop,
                temperature=step.temperature,
                seed=self.seed + step.seed,
                repetition_penalty=self._penalty(step),
                forced_first_token=self._forced,
            ),
        )

    def _budget(self, source_tokens: int) -> int:
        return self.max_new_tokens or BUDGET_BASE + math.ceil(self._growth * source_tokens)

    def _stretch(self) -> float:
        """Tokens of the shipped translations in the target language, for each in the source language."""
        pairs = [pair for pairs in examples().values() for pair in pairs]
        if not {self.direction.source, self.direction.target} <= pairs[0].keys():
            return UNKNOWN_STRETCH
        counts = [
            sum(self.tokenizer.count([pair[language] for pair in pairs]))
            for language in (self.direction.target, self.direction.source)
        ]
        return counts[0] / counts[1]

    def _penalty(self, step: Step) -> float:
        """A family with one wording asks the same twice: there a slight penalty is what the step changes."""
        if step.prompt == "default" or step.repetition_penalty != 1.0:
            return step.repetition_penalty
        frames = {self.family.frame(self.direction, variant) for variant in ("default", step.prompt)}
        return 1.0 if len(frames) > 1 else ONE_WORDING_PENALTY

    def frame_tokens(self, variant: Variant) -> int:
        """How many of a prompt's tokens are not its source's."""
        if variant not in self._overhead:
            self._overhead[variant] = len(self.tokenizer.encode([self._prompt("", variant)])[0])
        return self._overhead[variant]
