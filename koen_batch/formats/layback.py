"""Laying a translation back over cues and lines: where to cut, at spaces only, and how wide a line may be.

Widths are in half characters, as Korean subtitles count them: a Hangul syllable is 2, a Latin letter, digit, space
or punctuation mark 1. Sharing words over cues and breaking a cue's lines are the same problem, solved by one
function.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from koen_batch.formats.cue_text import TAG

LINE_WIDTH = {"ko": 32, "en": 42}
"""Half characters a line: 16 Hangul syllables, 42 Latin letters (Netflix timed text style guides)."""

LINES = 2
"""Lines of a cue; one that needs more gets a third and is reported."""

_WORD = re.compile(rf"(?:{TAG.pattern}|\S)+")
SENTENCE_END = re.compile(r"[.!?…。？！][\"'”’)\]」』]*\Z")
_PAUSE = re.compile(r"[,;:，、—–][\"'”’)\]]*\Z")

# English: a line does not end on a word that leans on the next one, and may well end before one that opens a phrase.
_DETERMINERS = """a an the my your his her its our their this that these those some any no every each of to in on at by
    for with from into about as and or but nor if than because is are was were be been am called named"""
_HELPERS = """so i you he she we they it do does did have has had will would can could shall should may might must not
    very too more most mr. mrs. ms. dr."""
_OPENERS = """and but or so because that which who where when while if than then to of in on at by for with from into
    about"""
EN_LEANING = frozenset(_DETERMINERS.split())
"""English words that no sentence ends on."""
_EN_WEAK = EN_LEANING | frozenset(_HELPERS.split())
_EN_OPENING = frozenset(_OPENERS.split())
# Korean: nothing is cut off from a bound noun or an auxiliary after it, nor from a modifier before it.
_KO_BOUND = re.compile(
    r"(?:수|것|거|게|걸|건|때|등|중|뿐|만큼|대로|채|줄|적|데|번|개|명|년|월|일|분|초|가지|정도|있|없|않|못|싶|하는|합|했|됩|될|되"
    r"|대해|대한|관해|관한|의해|의한|따라|따른|위해|위한|통해|통한|같은|같이)"
)
_MODIFIERS = "이 그 저 한 두 세 네 첫 더 안 못 잘 매우 아주 가장 좀 너무 정말 다른 모든 어떤 여러 각 및 또는 즉"
_KO_LEANING = frozenset(_MODIFIERS.split())
_KO_PAUSE = re.compile(r"(?:고|며|면|서|지만|는데|은데|니까|도록|거나|는지|든지|때|라면|다면)\Z")

# How far a good or bad place moves a cut, as a share of the average length of a stretch.
_PULL = 0.12


def width(text: str) -> int:
    """Half characters that ``text`` takes on the screen; tags take none."""
    shown = _untagged(text)
    return len(shown) if shown.isascii() else sum(map(_width, shown))


def _untagged(text: str) -> str:
    return TAG.sub("", text) if "<" in text or "{" in text else text


@lru_cache(maxsize=1 << 14)  # as many as there are Hangul syllables, and some
def _width(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.combining(character) else 1


def words(text: str) -> list[str]:
    """``text`` cut at spaces; a tag with spaces in it stays whole."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class _Words:
    """Words that are to be cut apart, measured once for all the ways to cut them."""

    found: Sequence[str]
    reached: Sequence[int]
    """Width up to each place for a cut, the space before it included: one more than there are words."""
    merits: Sequence[float]
    """How good a cut is at each place; none is made at the first."""

    @classmethod
    def of(cls, found: Sequence[str], target: str, before: int = 0) -> _Words:
        """``before`` is the width of what stands before the first word."""
        reached = accumulate((width(word) + 1 for word in found[1:]), initial=before + width(found[0]) + 1)
        merits = (_merit(last, following, target) for last, following in pairwise(map(_untagged, found)))
        return cls(found, [0, *reached], [0.0, *merits])

    def stretches(self, cuts: Sequence[int]) -> list[str]:
        """The words between the cuts, joined; ``cuts`` are counts of words."""
        return [" ".join(self.found[begin:end]) for begin, end in pairwise([0, *cuts, len(self.found)])]


def share_out(text: str, shares: Sequence[float], target: str, skip_first: bool = False) -> list[str]:
    """Cut ``text`` at spaces into ``len(shares)`` stretches of about these shares of its width (any positive scale).

    No stretch is empty: where there are fewer words than stretches, a word is held, that is repeated, as a subtitle
    stands on while nothing new is said. With ``skip_first`` the first stretch may be empty.
    """
    found = words(text)
    count = len(shares)
    if count <= 1 or not found:
        return [text] * count
    if len(found) < count:
        held = count - int(skip_first)
        return [""] * int(skip_first) + [found[i * len(found) // held] for i in range(held)]
    measured = _Words.of(found, target)
    return measured.stretches(_cuts(measured, shares, least=int(not skip_first)))


def break_lines(text: str, target: str, before: int = 0, after: int = 0) -> list[str]:
    """``text`` in balanced lines for ``target`` (``ko``, ``en``): one or two, a third where two cannot hold it.

    Words are never cut, so that lines may be too wide. ``before`` and ``after`` are the widths of what stands before
    the first and after the last word on their lines.
    """
    limit, found = LINE_WIDTH[target], words(text)
    if before + width(" ".join(found)) + after <= limit or len(found) < 2:
        return [" ".join(found)]
    measured = _Words.of(found, target, before)
    whole = measured.reached[-1] + after
    most = min(LINES + 1, len(found))
    lines: list[str] = []
    for count in range(2, most + 1):
        if whole - count > count * limit and count < most:  # each line drops the space at its end
            continue
        for pull in (_PULL, 0.0):
            cuts = _cuts(measured, [1.0] * count, pull=pull, after=after)
            lines = measured.stretches(cuts)
            widths = [width(line) for line in lines]
            widths[0], widths[-1] = widths[0] + before, widths[-1] + after
            if max(widths) <= limit:
                return lines
    return lines


def _cuts(
    measured: _Words, shares: Sequence[float], *, least: int = 1, pull: float = _PULL, after: int = 0
) -> list[int]:
    """The word indices at which to cut: the nearest to the shares, moved a little by how good a place is.

    ``least`` is the least number of words of the first stretch; every other has one at least. ``after`` is the width
    of what stands after the last word.

    Dynamic programming over (cut, word) with a running minimum: linear in words for each cut.
    """
    reached, count = measured.reached, len(measured.found)
    whole = reached[-1] + after
    total = sum(shares) or 1.0
    ideals = [whole * part / total for part in accumulate(shares)][:-1]
    scale = pull * whole / len(shares)
    best = [0.0] * (count + 1)
    steps: list[list[int]] = []
    for k, ideal in enumerate(ideals):
        fresh, came = [float("inf")] * (count + 1), [0] * (count + 1)
        lowest, at = float("inf"), 0
        for i in range((least if k == 0 else 0), count - (len(ideals) - 1 - k)):
            if k == 0:
                lowest = 0.0
            elif best[i - 1] < lowest and i >= 1:
                lowest, at = best[i - 1], i - 1
            fresh[i] = lowest + abs(reached[i] - ideal) - scale * measured.merits[i]
            came[i] = at
        best = fresh
        steps.append(came)
    cut = min(range(count), key=best.__getitem__)
    cuts = [cut]
    for came in reversed(steps[1:]):
        cuts.append(cut := came[cut])
    return cuts[::-1]


def _merit(last: str, following: str, target: str) -> float:
    """How good a cut between two words without tags is: positive is good, 0 neutral."""
    if SENTENCE_END.search(last):
        return 3.0
    if _PAUSE.search(last):
        return 2.0
    if target == "ko":
        if _KO_BOUND.match(following) or last in _KO_LEANING or last[-1:].isdigit():
            return -2.5
        return 1.0 if _KO_PAUSE.search(last) else 0.0
    if last.lower() in _EN_WEAK:
        return -2.5
    return 1.0 if following.lower() in _EN_OPENING else 0.0
