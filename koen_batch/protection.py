"""What must come back from a translation as it went in: code, addresses, tags, placeholders, link targets.

An *item* is a stretch of text that is meant for a machine: it is found (:func:`items`), missed (:func:`lost`), and
kept by construction (:func:`split_around`). Everything here takes time linear in the text, also on hostile input:
quantifiers are possessive, and none runs past a character that could start the same item again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from koen_batch.records import Piece

_LETTER = re.compile(r"[^\W\d_]")

# A text without any of these has no items; most texts have none. A set of characters is searched for three times as
# fast as what is more exact.
_HINT_CHARACTER = re.compile(r"[`<{%$&\[\]@:]")
_HINT = re.compile(r"[`<{%$&\[\]@]|://|www\.|:[a-z0-9_+-]++:")

_BACKTICKS = re.compile(r"`++")

# Attributes without a value count only where HTML knows them: "a <b and c> d" is arithmetic.
_ATTRIBUTE = r"""\s++(?:[A-Za-z_:@][\w:.@-]*+\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'=<>`]++)
    |(?:checked|disabled|hidden|required|controls|autoplay|loop|muted|selected|readonly|multiple|async|defer|open
    |reversed|novalidate|allowfullscreen|data-[\w-]++)(?![\w=-]))"""

# Letters beyond ASCII belong to an address only behind / = _ -, so that a Korean particle stays outside.
_BEYOND_ASCII = r"(?<=[/=_-])[\u00c0-\u1fff\u3040-\u9fff\uac00-\ud7a3]++"

_MAIL = r"| (?P<mail>(?<![\w.%+-])[\w.%+-]++@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++)"

# The order is the order of preference where two items start at the same character. re.ASCII: a Korean particle
# may follow any item directly, and Hangul may stand before it.
_TOKENS = (
    r"""
      (?P<footnote>\[\^[^\s\[\]]++\])
    | (?P<target>\]\((?:[^()\s<]|<[^<>\n]*+>|\([^()\s]*+\))*+(?:\s++"[^"]*+")?+\s*+\))
    | (?P<reference>\]\[[^\[\]]*+\])
    | (?P<open>!?\[)
    | (?P<end>\])
    | (?P<tag><!--[^<>]*-->
        | <(?:(?:https?|ftp)://|mailto:)[^\s<>]++>
        | <[\w.+-]++@[\w.-]++>
        | </?[A-Za-z][\w:.-]*+(?:"""
    + _ATTRIBUTE
    + r""")*+\s*+/?>)
    | (?P<url>(?<![A-Za-z0-9])(?:(?:https?|ftp)://|www\.)(?:[!#$%&'()*+,\-./0-9:;=?@A-Za-z_~]|"""
    + _BEYOND_ASCII
    + r""")++)
    {mail}
    | (?P<brace>\{\{[^{}]*+\}\} | \{%[^{}]*+%?\} | \{\\[^{}]*+\} | [$%\#]?\{[\w][\w.\[\]:!,<>=+^%\#-]*+\} | \{\})
    | (?P<named_printf>%\([A-Za-z_]\w*+\)[-+0\#]*+\d*+(?:\.\d++)?+[A-Za-z])
    | (?P<printf>(?<![\d%])%(?:\d++\$)?+[-+0\#]*+\d*+(?:\.\d++)?+(?:hh?|ll?|[qjzt])?+[sdifuxXoeEgGcp@]
        (?![A-Za-z]{3}))
    | (?P<variable>(?<![\w$])\$[A-Za-z_]\w*+)
    | (?P<emoji>(?<![\w:]):(?:[a-z][a-z0-9_+-]*+|[+-]1):(?![\w:]))
    | (?P<entity>&(?:\#\d{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)
    """
)
_TOKEN_OR_MAIL = re.compile(_TOKENS.replace("{mail}", _MAIL), re.VERBOSE | re.ASCII)
# Nothing but an address may begin with any letter: without one, most characters are passed over at the first look.
_TOKEN = re.compile(rf"(?=[!\[\]<hfw{{$%\#:&])(?:{_TOKENS.replace('{mail}', '')})", re.VERBOSE | re.ASCII)

_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


class Span(NamedTuple):
    """Where an item stands: ``text[start:end]``."""

    start: int
    end: int


def items(text: str) -> list[str]:
    """The items of ``text``, in order of appearance; they do not overlap.

    Of ``[words](target)`` the items are ``[`` and ``](target)``, of an image ``![`` and ``](target)``: what stands
    between them is text.
    """
    return [text[start:end] for start, end in spans(text)]


def spans(text: str) -> list[Span]:
    """Where the items of ``text`` stand, in order; they do not overlap."""
    return _scan(text)[0]


def unbroken(text: str) -> list[Span]:
    """The stretches inside which no sentence ends: the items, and links from bracket to bracket, in order and
    merged where they overlap."""
    found, links = _scan(text)
    if not links:
        return found
    merged: list[Span] = []
    for span in sorted(found + links):
        if merged and span.start < merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def around(stretches: Sequence[Span], at: int) -> Span | None:
    """The one of ``stretches`` (in order, not overlapping) that a cut at ``at`` would break, if any."""
    i = bisect_right(stretches, at, key=itemgetter(0)) - 1
    return stretches[i] if i >= 0 and stretches[i].start < at < stretches[i].end else None


def has_words(text: str) -> bool:
    """Whether there is a letter outside the items: text without one is not for a translator."""
    if _LETTER.search(text) is None:
        return False
    at = 0
    for start, end in spans(text):
        if _LETTER.search(text, at, start):
            return True
        at = end
    return _LETTER.search(text, at) is not None


def lost(source: str, hypothesis: str) -> list[str]:
    """The items of ``source`` that ``hypothesis`` lacks, in the order of the source; one that stands twice in the
    source must stand twice in the hypothesis.

    An item that the hypothesis writes against other characters, so that it is not found as the same item there
    (an address with a particle behind it), is not lost.
    """
    wanted = items(source) if _may_hold_items(source) else []
    if not wanted:
        return []
    missing = Counter(wanted)
    rest = []
    at = 0
    for start, end in spans(hypothesis):
        item = hypothesis[start:end]
        if missing[item] > 0:
            missing[item] -= 1
            rest.append(hypothesis[at:start])
            at = end
    rest.append(hypothesis[at:])
    remainder = "\0".join(rest)
    for item in sorted(missing, key=len, reverse=True):
        if missing[item] > 0 and len(item) > 1:
            kept, remainder = _take(item, missing[item], remainder)
            missing[item] -= kept
    return [item for item in wanted if _claim(missing, item)]


def split_around(text: str) -> list[Piece]:
    """``text`` with its items as glue and the words between them as pieces to translate.

    The pieces, joined, are the text, and the items come back whatever the translations are.
    """
    pieces: list[Piece] = []
    at = 0
    for start, end in spans(text):
        add_words(pieces, text[at:start])
        add_glue(pieces, text[start:end])
        at = end
    add_words(pieces, text[at:])
    return join_glue(pieces)


def add_glue(pieces: list[Piece], glue: str) -> None:
    """Append ``glue`` to ``pieces`` unless it is empty."""
    if glue:
        pieces.append(Piece(glue, False))


def join_glue(pieces: list[Piece]) -> list[Piece]:
    """``pieces`` with neighbouring glue made one piece; all at once, so that it takes linear time."""
    joined: list[Piece] = []
    glue: list[str] = []
    for piece in pieces:
        if piece.translate:
            add_glue(joined, "".join(glue))
            glue.clear()
            joined.append(piece)
        else:
            glue.append(piece.text)
    add_glue(joined, "".join(glue))
    return joined


def add_words(pieces: list[Piece], text: str) -> None:
    """Append ``text`` to translate, the white space around it as glue; all of it as glue if it has no letter."""
    words = text.strip()
    if _LETTER.search(words) is None:
        add_glue(pieces, text)
        return
    start = text.index(words)
    add_glue(pieces, text[:start])
    pieces.append(Piece(words, True))
    add_glue(pieces, text[start + len(words) :])


def _take(item: str, count: int, text: str) -> tuple[int, str]:
    """Take ``item`` out of ``text``, at most ``count`` times; return how often it was there, and what is left."""
    parts = []
    at = taken = 0
    ends_in_word = item[-1] in _WORD
    found = text.find(item)
    while found >= 0 and taken < count:
        end = found + len(item)
        if not (ends_in_word and text[end : end + 1] in _WORD and end < len(text)):
            parts.append(text[at:found])
            at = end
            taken += 1
        found = text.find(item, end)
    parts.append(text[at:])
    return taken, "\0".join(parts)


def _claim(missing: Counter[str], item: str) -> bool:
    missing[item] -= 1
    return missing[item] >= 0


def _scan(text: str) -> tuple[list[Span], list[Span]]:
    """The items of ``text``, and its links from their opening to their closing bracket."""
    if not _may_hold_items(text):
        return [], []
    found: list[Span] = []
    links: list[Span] = []
    brackets: list[Span] = []
    for kind, span in _tokens(text):
        if kind == "open":
            brackets.append(span)
        elif kind == "end":
            if brackets:
                brackets.pop()
        elif kind in {"target", "reference"}:
            opening = brackets.pop() if brackets else None
            if kind == "reference" and (opening is None or text[opening.start - 1 : opening.start].isalnum()):
                continue  # grid[2][3]
            found.append(span)
            if opening is not None:
                found.append(opening)
                links.append(Span(opening.start, span.end))
        elif kind == "url":
            length = _trimmed_url(text[span.start : span.end])
            if length:
                found.append(Span(span.start, span.start + length))
        else:
            found.append(span)
    found.sort()
    return found, links


def _may_hold_items(text: str) -> bool:
    return (_HINT_CHARACTER.search(text) is not None or "www." in text) and _HINT.search(text) is not None


def _tokens(text: str) -> Iterator[tuple[str | None, Span]]:
    """What the patterns find in ``text``, in order; inline code comes before all else."""
    at = 0
    token = _TOKEN_OR_MAIL if "@" in text else _TOKEN
    for code in _code_spans(text) if "`" in text else ():
        for match in token.finditer(text, at, code.start):
            yield match.lastgroup, Span(*match.span())
        yield "code", code
        at = code.end
    for match in token.finditer(text, at):
        yield match.lastgroup, Span(*match.span())


def _trimmed_url(url: str) -> int:
    """The length of ``url`` without the punctuation of the sentence around it; 0 where no address is left."""
    end = len(url)
    surplus = url.count(")") - url.count("(")
    while end and url[end - 1] in ".,;:!?'*_~)":
        if url[end - 1] == ")":
            if surplus <= 0:
                break
            surplus -= 1
        end -= 1
    return end if re.fullmatch(r"(?:\w+://|www\.).+", url[:end], re.DOTALL) else 0


def _code_spans(text: str) -> list[Span]:
    """Inline code: a run of backticks up to the next run of the same length, within a paragraph."""
    runs = [match.span() for match in _BACKTICKS.finditer(text)]
    following: list[int] = [0] * len(runs)
    next_of_length: dict[int, int] = {}
    for i in range(len(runs) - 1, -1, -1):
        length = runs[i][1] - runs[i][0]
        following[i] = next_of_length.get(length, 0)
        next_of_length[length] = i
    found = []
    i = 0
    while i < len(runs):
        start, end = runs[i]
        closing = following[i]
        escaped = start > 0 and text[start - 1] == "\\"
        if closing and not escaped and text.find("\n\n", end, runs[closing][0]) < 0:
            found.append(Span(start, runs[closing][1]))
            i = closing
        i += 1
    return found
