"""From sources to requests: prompt, budget, context, and what each step of the ladder changes."""

from __future__ import annotations

import math

import pytest

from koen_batch import prompts
from koen_batch.asking import BUDGET_BASE, BUDGET_FACTOR, ONE_WORDING_PENALTY, Asking
from koen_batch.errors import UsageError
from koen_batch.ladder import LADDER
from koen_batch.languages import Direction
from koen_batch.tokenization import CodePoints

KO = Direction("en", "ko")
STEPS = {step.name: step for step in LADDER}


def asking(family: str = "plain", context: int = 4096, **settings: int) -> Asking:
    return Asking(prompts.family(family), CodePoints(), KO, context, **settings)


def test_the_budget_follows_from_the_length_of_the_source() -> None:
    """A Korean text has fewer code points than its English source, so the stretch is at its least."""
    (question,) = asking("koen").questions([("x" * 10, STEPS["greedy"])])
    assert question is not None
    assert question.decoding.max_new_tokens == BUDGET_BASE + BUDGET_FACTOR * 10


def test_the_budget_follows_from_what_the_tokenizer_makes_of_the_target_language() -> None:
    (question,) = Asking(prompts.family("koen"), CodePoints(), Direction("ko", "en"), 4096).questions(
        [("x" * 10, STEPS["greedy"])]
    )
    assert question is not None
    pairs = [pair for pairs in prompts.examples().values() for pair in pairs]
    stretch = sum(len(pair["en"]) for pair in pairs) / sum(len(pair["ko"]) for pair in pairs)
    assert question.decoding.max_new_tokens == BUDGET_BASE + math.ceil(BUDGET_FACTOR * stretch * 10)


def test_a_fixed_budget_holds_for_every_source() -> None:
    questions = asking(max_new_tokens=7).questions([("x", STEPS["greedy"]), ("x" * 100, STEPS["greedy"])])
    assert [question.decoding.max_new_tokens for question in questions if question] == [7, 7]


def test_a_source_that_does_not_fit_has_no_question() -> None:
    short, long = asking(context=1000).questions([("x" * 100, STEPS["greedy"]), ("x" * 400, STEPS["greedy"])])
    assert short is not None
    assert long is None


def test_a_context_without_room_for_a_sentence_is_refused() -> None:
    with pytest.raises(UsageError, match="--max-model-len 100"):
        asking("koen", context=100)


def test_line_breaks_of_a_wrapped_sentence_are_sent_as_spaces() -> None:
    (question,) = asking().questions([("one\n  two", STEPS["greedy"])])
    assert question is not None
    assert "".join(map(chr, question.tokens)) == "one two"


@pytest.mark.parametrize("family", ["koen", "nllb"])
def test_every_step_changes_the_question(family: str) -> None:
    """Steps that cut the source change what is asked before it comes here."""
    names = [step.name for step in LADDER if not (step.split or step.around)]
    ask = asking(family) if family == "koen" else Asking(prompts.family(family), _Nllb(), KO, 4096)
    questions = ask.questions([("A source.", STEPS[name]) for name in names])
    asked = {(tuple(question.tokens), question.decoding) for question in questions if question}
    assert len(asked) == len(names)


def test_a_family_with_one_wording_gets_a_slight_penalty_instead() -> None:
    (question,) = Asking(prompts.family("nllb"), _Nllb(), KO, 4096).questions([("A source.", STEPS["plain"])])
    assert question is not None
    assert question.decoding.repetition_penalty == ONE_WORDING_PENALTY


class _Nllb(CodePoints):
    """Code points, and a token for each language."""

    def token_id(self, token: str) -> int | None:
        return 1_200_000 + len(token) if len(token) > 1 else super().token_id(token)
