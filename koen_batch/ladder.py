"""The ladder: what to change before a segment that failed its checks is asked again. Data and pure functions.

Greedy decoding gives the same answer to the same question, so each step changes something: the decoding, the wording
of the prompt, or what is sent. Which step comes next is decided by what went wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from koen_batch import protection
from koen_batch.languages import hangul
from koen_batch.prompts import Variant

VERSION = "3"
"""Part of a job's fingerprint: raise it with every change that can change which translation is kept."""

MOST_RETRIES = 3
"""Per segment. A segment that has failed four times in four ways is flagged, and the rest goes on."""


@dataclass(frozen=True, slots=True)
class Step:
    """One way to ask. Every field that is not at its default is a change from the first, greedy step."""

    name: str
    repetition_penalty: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    """Added to the job's seed."""
    prompt: Variant = "default"
    split: bool = False
    """Send the source in smaller segments, each with its own, lower budget."""
    around: bool = False
    """Send only what stands between the protected items (:func:`koen_batch.protection.split_around`)."""


LADDER = (
    Step("greedy"),
    # Strong enough to leave a loop; from about 1.2 on, names and terms that must be repeated suffer too.
    Step("penalty", repetition_penalty=1.1),
    # Neither penalty nor top-p here: other words or sampling are change enough, and top-p sorts the whole vocabulary.
    # (A family that has but one wording gets a slight penalty: koen_batch.asking.)
    Step("plain", prompt="plain"),
    Step("sample", temperature=0.5, seed=1),
    Step("split", split=True),
    Step("around", around=True),
)
_STEPS = {step.name: step for step in LADDER}

# The worst first, with its cost in the score: what a reader can use least costs most. A text with a lost number is a
# translation with an error; a copied or an empty one is none. A lost item costs more than all others together: it
# breaks the page or the program that shows the text, and the step around the items cannot lose one. The steps are in
# the order that promises most: of what lacks words or numbers, halves mend the most and translate best, and samples
# pass the checks as often as other wordings and a penalty, but translate worst (benchmarks/ladder.py).
_FLAGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "empty": (1000, ("plain", "sample", "split")),
    "lost_placeholder": (500, ("sample", "plain", "around")),
    "copied": (60, ("plain", "penalty", "sample")),
    "wrong_script": (50, ("plain", "sample", "penalty")),
    "repetition": (40, ("penalty", "sample", "split")),
    "truncated": (30, ("split", "penalty", "sample")),
    "chatter": (25, ("plain", "sample", "penalty")),
    "length_ratio": (20, ("split", "penalty", "sample")),
    "lost_number": (10, ("split", "penalty", "sample")),
}

# Where a sentence can be cut: behind punctuation, with something left to say.
_BREAK = re.compile(r"[.!?;:,…。？！][\"'”’)\]]*\s+\S.{8}", re.DOTALL)
SHORTEST_SPLIT = 40
"""In characters. The halves of a shorter source say too little to be translated on their own."""


def next_step(flags: Collection[str], tried: Sequence[str], source: str) -> Step | None:
    """The step after those in ``tried`` (names, the first one included), given the flags of the last attempt.

    None if nothing was flagged, nothing is left that changes something, or the retries are used up. The last
    retry of a segment that still lacks a protected item is always the step that cannot lose one.
    """
    left = MOST_RETRIES + 1 - len(tried)
    if not flags or left <= 0:
        return None
    if left == 1 and "lost_placeholder" in flags and "around" not in tried and applies(_STEPS["around"], source):
        return _STEPS["around"]
    for flag, (_, names) in _FLAGS.items():
        if flag in flags:
            for name in names:
                if name not in tried and applies(_STEPS[name], source):
                    return _STEPS[name]
    return None


def foreseen(flags: Collection[str], tried: Sequence[str], source: str) -> list[Step]:
    """The steps after those in ``tried`` if the same flags come back each time."""
    steps: list[Step] = []
    while step := next_step(flags, [*tried, *(step.name for step in steps)], source):
        steps.append(step)
    return steps


def applies(step: Step, source: str) -> bool:
    """Whether the step changes anything for this source."""
    if step.split:
        return len(source) >= SHORTEST_SPLIT and _BREAK.search(source) is not None
    if step.around:
        return len(protection.split_around(source)) > 1
    return True


def score(source: str, hypothesis: str, flags: Collection[str], confidence: float | None) -> tuple[float, ...]:
    """How good an attempt is; the best attempt is the greatest. Minus the costs of its flags, then its confidence.

    ``confidence`` is the mean log-probability of its tokens. Among attempts that are equal so far, the one whose
    width is nearest to the source's is kept (a Hangul syllable counts 2, as in :class:`koen_batch.checks.Limits`).
    """
    cost = sum(_FLAGS[flag][0] for flag in flags)
    stretch = abs(math.log((1 + _width(hypothesis)) / (1 + _width(source))))
    return -cost, -math.inf if confidence is None else confidence, -stretch


def _width(text: str) -> int:
    return len(text) + hangul(text)
