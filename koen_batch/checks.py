"""Is this an acceptable translation? Pure functions from a source and a hypothesis to flags.

Every check compares the hypothesis with its own source: a source that repeats itself, is mostly numbers or is a
name may be translated by a text that does the same. Thresholds stand in :class:`Limits`, one for each direction,
each with the measurement that it comes from (``benchmarks/check_rates.py`` makes it again).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import eq

from koen_batch import numerals, protection
from koen_batch.languages import Direction

VERSION = "1"
"""Part of a job's fingerprint: raise it with every change that can change a verdict."""

FLAGS = (
    "empty",
    "truncated",
    "copied",
    "wrong_script",
    "repetition",
    "length_ratio",
    "lost_placeholder",
    "lost_number",
    "chatter",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of one direction.

    Lengths are widths: a Hangul syllable counts 2, everything else 1. Measured so, a translation is about as wide
    as its source in both directions, and digits, names and code weigh the same on both sides.
    """

    narrowest: float
    widest: float
    """Bounds of (width of the hypothesis + slack) / (width of the source + slack)."""
    slack: int
    """Takes the noise out of short texts: "OK" may be "확인했습니다"."""
    cut_below: float
    """A hypothesis without a sentence's end, where the source has one, is truncated if narrower than this."""
    foreign_share: float
    """Most that may be left in the source's script: of its plain words (to Korean), of the width (to English)."""
    stray_letters: int
    """Letters of a third script that the source does not have: one may be a gloss or a symbol."""


# Measured on the tuned half of benchmarks/check_rates.py: 498 pairs of FLORES dev and 5,000 of the parallel data.
LIMITS = {
    "ko": Limits(
        narrowest=0.62,  # 0.2 % of the references are narrower; at 0.64, 1.4 % of FLORES are
        widest=1.60,  # none is wider; a lower bound hits greetings and other short answers
        slack=20,
        cut_below=0.95,  # flags 0.8 %; without a bound 0.9 %: captions and headings that end in a noun
        foreign_share=0.25,  # 0.2 % leave more: commands, and menus that are not translated
        stray_letters=2,
    ),
    "en": Limits(
        narrowest=0.70,  # 0.04 % are narrower; a higher bound hits "알겠습니다." for "OK."
        widest=1.60,  # 0.3 % are wider; at 1.5 with FLORES 2.8 % are
        slack=20,
        cut_below=1.03,  # flags 0.7 %, at 1.1 1.0 %: headlines, whose Korean is a sentence
        foreign_share=0.10,  # no reference leaves as much as a word
        stray_letters=2,
    ),
}

# Repeated in a row, from this many times on, by the length of what is repeated: (length, times).
LOOP_TIMES = ((1, 10), (2, 6), (4, 5), (8, 4), (10**9, 3))
LONGEST_NAME = 4
"""In words, all with capitals: "iPhone 15 Pro Max" is a name; at 3 as at 4, 99 % of the copies are found."""
DISTINCT_WORDS = 0.75
"""Texts with a smaller share of distinct words are looked at for loops."""
LONGEST_LOOPED = 40
"""In words: a loop of longer stretches fills any budget before its third time."""
LONG_WORD = 20
"""Words of at least this length are looked at for loops without spaces: "거거거거거거거거거거거거거"."""

_HANGUL_RUN = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ\u1100-\u11ff]+")
# "Seoul (서울)", "사인(死因)": an original behind its translation.
_GLOSS = re.compile(r"(?<=[^\W\d_])\s?\([^()]{1,40}\)")
_LATIN_RUN = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_THIRD_SCRIPT = re.compile(r"[\u0400-\u052f\u0590-\u06ff\u0900-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
# A lower-case word that is no part of an identifier, a path or an address.
_PLAIN_WORD = re.compile(r"(?<![\w./\\@:#$%<{`=-])[a-z]{2,}(?![\w/\\@{}=(<-]|[.:]\w)")
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the of and to in is are was were be with for that this from by on as at an or it its you your can will not "
        "have has which when if i we he she they what who how do no yes my me",
    )
)
# A period behind an abbreviation ends no sentence ("at 3 p.m.").
_SENTENCE_END = re.compile(
    r"(?:[!?…。？！]|(?<![.\s][A-Za-z])(?<!etc)(?<!Inc)(?<!Ltd)(?<!Corp)(?<!Co)\.)['\"”’»」』)\]\s*_`]*$"
)
_CLOSED = re.compile(r"[.!?…。？！:;~]['\"”’»」』)\]\s*_`]*$|[다요까죠오함음임됨어야해돼]['\"”’»」』)\]\s*_`]*$")
_LETTER_LOOP = re.compile(r"(.{1,12}?)\1{2,}")
_ABOUT_TRANSLATION = re.compile(r"translat|korean|english|번역|한국어|영어|한글|변환|통역", re.IGNORECASE)
# An announcement: some words about the translation in the first line, and a colon or the line's end after them.
_PREAMBLE = re.compile(
    r"[^\n]{0,80}?(?:translat|korean|english|번역|한국어|영어|한글)[^\n:：]{0,60}(?:[:：]|\n)"
    r"|\W*(?:output|answer|출력|답변)\W*[:：]",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"\W*(?:sure|certainly|absolutely|of course|here you go|here it is|네|예|물론(?:입니다|이죠|이에요)?|알겠습니다)"
    r"\s*(?:!|[,.:] ?(?:here|i |let me|[^\n]{0,20}번역))"
    r"|\s*(?:i'm|i am|we're)? ?(?:sorry|unable)\b[^\n]{0,40}(?:can'?t|cannot|translate|assist|as an ai)"
    r"|\s*죄송하지만",
    re.IGNORECASE,
)
# A source that says so itself, in either language.
_AGREEMENT = re.compile(
    r"\W*(?:yes|yeah|yep|okay|ok|right|sure|certainly|absolutely|of course|here)"
    r"|\W*(?:그|응|네|예|당연|확실|맞|물론|가능|여기)"
    r"|.*(?:sorry|unable|can't|cannot|미안|죄송|할 수 없|안 )",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"</?(?:think|thinking|answer|translation|output)>")
_NOTE = r"(?:note|explanation|translator'?s? note|참고|설명|주의|주석|번역 설명)[*_]*\s*[:：]"
_AFTERWORD = re.compile(rf"\n\s*\n|[\n(]\s*[*_]*{_NOTE}", re.IGNORECASE)
_NOTE_OR_BREAK = re.compile(rf"\n\s*\n|{_NOTE}", re.IGNORECASE)


_ENDINGS = {"length": ("truncated",), "repetition": ("repetition",)}


def check(
    source: str, hypothesis: str, finish_reason: str, direction: Direction, *, protect: bool = True
) -> tuple[str, ...]:
    """The sorted flags of ``hypothesis`` as a translation of ``source``; () if it is acceptable.

    ``finish_reason`` is the completion's (:class:`koen_batch.engines.base.Completion`); anything but ``stop`` is
    flagged. ``protect=False`` leaves out ``lost_placeholder``, for sources in which nothing is protected. Between
    other languages than English and Korean only how the answer ended is looked at.
    """
    if finish_reason == "error" or not hypothesis or hypothesis.isspace():
        return ("empty",)
    if not {direction.source, direction.target} <= LIMITS.keys():
        return _ENDINGS.get(finish_reason, ())
    flags = []
    limits = LIMITS[direction.target]
    hangul, source_hangul = _hangul(hypothesis), _hangul(source)
    ratio = (len(hypothesis) + hangul + limits.slack) / (len(source) + source_hangul + limits.slack)
    if finish_reason == "length" or (ratio < limits.cut_below and _ends_early(source, hypothesis)):
        flags.append("truncated")
    if not limits.narrowest <= ratio <= limits.widest:
        flags.append("length_ratio")
    if finish_reason == "repetition" or _loops(source, hypothesis):
        flags.append("repetition")
    if _is_copy(source, hypothesis, source_hangul, direction):
        flags.append("copied")
    if _is_wrong_script(source, hypothesis, hangul, direction, limits):
        flags.append("wrong_script")
    if _is_chatter(source, hypothesis):
        flags.append("chatter")
    if numerals.lost(source, hypothesis):
        flags.append("lost_number")
    if protect and protection.lost(source, hypothesis):
        flags.append("lost_placeholder")
    return tuple(sorted(flags))


def _hangul(text: str) -> int:
    """How many Hangul letters ``text`` holds; their runs are found several times as fast as each of them."""
    return 0 if text.isascii() else len("".join(_HANGUL_RUN.findall(text)))


def _ends_early(source: str, hypothesis: str) -> bool:
    """Whether the source ends as a sentence and the hypothesis stops in the middle of one."""
    return _CLOSED.search(hypothesis, max(0, len(hypothesis) - 12)) is None and (
        _SENTENCE_END.search(source, max(0, len(source) - 12)) is not None
    )


def _loops(source: str, hypothesis: str) -> bool:
    """Whether the hypothesis repeats something in a row, and much more of it than the source does."""
    words = hypothesis.split()
    if len(set(words)) > DISTINCT_WORDS * len(words) and max(map(len, words)) < LONG_WORD:
        return False
    longest = max(
        (length for length, unit in _repetitions(words, LONG_WORD) if length >= unit * _too_often(unit)), default=0
    )
    # "하하하하" may become "ha ha ha ha": three times as wide.
    return longest > 0 and longest > 3 * max((length for length, _ in _repetitions(source.split(), 3)), default=0)


def _too_often(unit: int) -> int:
    return next(times for length, times in LOOP_TIMES if unit <= length)


def _repetitions(words: list[str], long_word: int) -> Iterator[tuple[int, int]]:
    """The length, in characters, of each stretch that is one thing three times or more, and of that thing: words in
    a row, or letters of a word of at least ``long_word`` letters."""
    for word in words:
        if len(word) >= long_word:
            for match in _LETTER_LOOP.finditer(word):
                yield len(match[0]), len(match[1])
    for size in range(1, min(len(words) // 3, LONGEST_LOOPED) + 1):
        same = list(map(eq, words, words[size:]))
        if sum(same) < 2 * size:
            continue
        end = 0
        for repeats, run in groupby(same):
            start, end = end, end + len(list(run))
            if repeats and end - start >= 2 * size:
                yield len(" ".join(words[start : end + size])), len(" ".join(words[start : start + size]))


def _is_copy(source: str, hypothesis: str, source_hangul: int, direction: Direction) -> bool:
    """Whether the source came back. A name, a brand or code may stay as it is: there are no plain words in it."""
    if hypothesis == source or hypothesis.strip().casefold() == source.strip().casefold():
        return source_hangul > 0 if direction.source == "ko" else _has_words(source)
    return False


def _has_words(text: str) -> bool:
    """Whether an English text has something to translate: a plain word, or more capitals than a name has."""
    if _PLAIN_WORD.search(text):
        return True
    words = _LATIN_RUN.findall(text)
    return len(words) > LONGEST_NAME or any(word.lower() in _FUNCTION_WORDS for word in words if word != "IT")


def _is_wrong_script(source: str, hypothesis: str, hangul: int, direction: Direction, limits: Limits) -> bool:
    if not hypothesis.isascii():
        stray = len(_THIRD_SCRIPT.findall(hypothesis))
        if stray >= limits.stray_letters and stray > len(_THIRD_SCRIPT.findall(source)):
            stray = len(_THIRD_SCRIPT.findall(_GLOSS.sub("", hypothesis)))
            if stray >= limits.stray_letters:
                return True
    if direction.target == "en":
        return hangul > 0 and all(
            korean > limits.foreign_share * (korean + latin)
            for korean, latin in map(_widths, (hypothesis, _GLOSS.sub("", hypothesis)))
        )
    if not hangul:
        return _has_words(source)
    if _weight(hypothesis) < 2:
        return False
    allowed = limits.foreign_share * _weight(source)
    return _weight(hypothesis) > allowed and _weight(_GLOSS.sub("", hypothesis)) > max(1, allowed)


def _weight(text: str) -> int:
    """How many plain English words there are. Function words count twice: they are no names of anything."""
    words = _PLAIN_WORD.findall(text)
    return len(words) + sum(map(_FUNCTION_WORDS.__contains__, words))


def _is_chatter(source: str, hypothesis: str) -> bool:
    """Whether the model talks about the translation, before, after or instead of it."""
    if "<" in hypothesis and _THOUGHT.search(hypothesis) and not _THOUGHT.search(source):
        return True
    if _OPENING.match(hypothesis) and not _AGREEMENT.match(source):
        return True
    head = hypothesis[:150]
    if (":" in head or "：" in head or "\n" in head) and _PREAMBLE.match(head):
        return not _ABOUT_TRANSLATION.search(source)
    if "\n" not in hypothesis and "(" not in hypothesis:
        return False
    return _AFTERWORD.search(hypothesis) is not None and _NOTE_OR_BREAK.search(source) is None


_CODE_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1\S*[ \t]*$", re.DOTALL | re.MULTILINE)
_ACRONYM = re.compile(r"\b[A-Z0-9]{2,}\b")

ALREADY_KOREAN = 0.4
"""Width of the Hangul by that of all letters, glosses and acronyms aside, from which a text is Korean."""
ALREADY_ENGLISH = 0.1
"""The same share, up to which a text is English that quotes some Korean."""


def classify(text: str, direction: Direction) -> str:
    """What to do with a record's text: ``translate``, ``nothing_to_translate`` or ``already_target``.

    Texts in neither language are sent: a model may well translate them.
    """
    bare = _CODE_BLOCK.sub("", text) if "```" in text or "~~~" in text else text
    if not protection.has_words(bare):
        return "nothing_to_translate"
    if text.isascii():
        return "already_target" if direction.target == "en" else "translate"
    hangul, latin = _widths(text)
    if direction.target == "en":
        return "already_target" if latin and hangul <= ALREADY_ENGLISH * (hangul + latin) else "translate"
    if hangul:
        hangul, latin = _widths(_ACRONYM.sub("", _GLOSS.sub("", text)))
    return "already_target" if hangul and hangul >= ALREADY_KOREAN * (hangul + latin) else "translate"


def _widths(text: str) -> tuple[int, int]:
    """The widths of the Hangul and of the Latin letters of ``text``."""
    return 2 * _hangul(text), len("".join(_LATIN_RUN.findall(text)))
