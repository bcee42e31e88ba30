"""A record's text, whole: from its skeleton down to the segments that are sent.

:mod:`koen_batch.outline` takes the skeleton away line by line; here its runs of text are freed of what does not belong
to a sentence (block-level tags, images, emphasis around it) and cut by :mod:`koen_batch.segmentation`. The pieces of a
text, joined, are the text, whatever it holds.

Line breaks are glue, so that lines stay where they stood, with one exception: the lines of a hard-wrapped paragraph
(:func:`koen_batch.outline.goes_on`) are joined, and its sentences may hold line breaks. :func:`unwrap` says how such
a segment is sent, and :func:`fit` keeps what comes back from changing the skeleton.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from koen_batch import segmentation
from koen_batch.languages import Direction
from koen_batch.outline import LINE_BREAKS, Outline
from koen_batch.protection import add_glue, add_words, has_words, join_glue, spans, unbroken
from koen_batch.records import Piece

VERSION = 1
"""Part of a job's fingerprint: raised whenever a text may be cut differently."""

_MAX_NESTING = 4  # of links and emphasis
_LINE_BREAK = re.compile(f"[{LINE_BREAKS}]")
_WRAP = re.compile(rf"[ \t]*+(?:\r\n|[{LINE_BREAKS}])[ \t>]*+")

# A plain sentence, the common case, is seen at once: it begins with a word, and nothing in it can be skeleton, link,
# emphasis, or the end of a sentence before its own end.
_FIRST_WORD = re.compile(r"[A-Za-z가-힣]+(?:['’][A-Za-z]+)?,? ")
_MARKUP = re.compile(rf"[{LINE_BREAKS}<\[\]`*_~|\\{{=]")
_NOT_PLAIN = re.compile(rf"[{LINE_BREAKS}<\[\]`*_~|\\.!?…。！？]")
_ENDS_PLAINLY = re.compile(r"[.!?]+[\"'”’)]*")

_BLOCK_TAG = re.compile(
    r"<!--|</?(?:address|article|aside|blockquote|body|br|button|caption|center|col|colgroup|dd|details|dialog|div|dl|dt"
    r"|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|hr|html|iframe|img|input|label|legend|li|link|main|meta"
    r"|nav|ol|option|p|picture|section|select|source|summary|table|tbody|td|tfoot|th|thead|title|tr|ul|video)(?=[\s/>])",
    re.IGNORECASE,
)
_RAW_TAG = re.compile(r"<(script|style|pre|textarea|svg)(?=[\s>/])", re.IGNORECASE)

_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|~~|==)(?=\S)")
_EMPHASIS_END = re.compile(r"(?<=\S)(\*{1,3}|_{1,3}|~~|==)$")


def split(text: str, direction: Direction, max_chars: int, splitter: str = "sentencex") -> list[Piece]:
    """``text`` as segments to translate, none longer than ``max_chars`` characters, and glue.

    The pieces, joined, are the text. ``splitter`` as in :func:`koen_batch.segmentation.sentences`.
    """
    if len(text) <= max_chars and _is_plain_sentence(text):
        return [Piece(text, True)]
    if _FIRST_WORD.match(text) and not _MARKUP.search(text):
        return segmentation.sentences(text, direction.source, max_chars, splitter)
    pieces: list[Piece] = []
    body = text.removeprefix("\ufeff")
    add_glue(pieces, text[: len(text) - len(body)])
    for run in Outline(body).runs():
        if not run.translate:
            add_glue(pieces, run.text)
            continue
        for stretch in _stretches(run.text):
            if not stretch.translate:
                add_glue(pieces, stretch.text)
                continue
            for piece in segmentation.sentences(stretch.text, direction.source, max_chars, splitter):
                if piece.translate:
                    _add_bare(pieces, piece.text)
                else:
                    add_glue(pieces, piece.text)
    return join_glue(pieces)


def unwrap(segment: str) -> str:
    """``segment`` as it is sent: a line break inside it, with what the next line begins with (indentation, ``>``),
    is one space."""
    return _WRAP.sub(" ", segment) if _LINE_BREAK.search(segment) else segment


def fit(segment: str, translation: str) -> str:
    """``translation`` as it may stand where ``segment`` stood: without line breaks, and without markup that
    ``segment`` does not have, which would make it a list item, a heading, a table cell, code, a link or a tag."""
    if _UNMARKED.fullmatch(translation):
        return translation
    fitted = " ".join(translation.splitlines())
    for mark, harmless in _HARMLESS.items():
        if mark not in segment:
            fitted = fitted.replace(mark, harmless)
    if not _BLOCK_START.match(segment):
        fitted = _BLOCK_START.sub(lambda start: start[1] or start[2], fitted)
    return fitted


# What no sentence needs and Markdown reads as structure, and what stands for it.
_HARMLESS = {"`": "'", "|": "/", "](": "] (", "</": "< /", "<": "‹", "~~": "~"}
# A block marker is one only with white space behind it.
_BLOCK_START = re.compile(r"\A(?:(#{1,6}|[-*+]|\d{1,9}[.)])[ \t]+|()>[ \t]*)")
_UNMARKED = re.compile(rf"(?![#*+>\d-])[^{LINE_BREAKS}`|\]<~]*+")


def _is_plain_sentence(text: str) -> bool:
    if _FIRST_WORD.match(text) is None or text[-1].isspace():
        return False
    found = _NOT_PLAIN.search(text)
    while found is not None:
        at = found.start()
        if text[at] not in ".!?":
            return False
        following = text[at + 1 : at + 2]
        if not (following.isalnum() and following.isascii()):
            return _ENDS_PLAINLY.fullmatch(text, at) is not None
        found = _NOT_PLAIN.search(text, at + 1)
    return True


def _stretches(run: str) -> Iterator[Piece]:
    """``run`` cut at what separates text inside a line: block-level HTML tags, comments, preformatted text, and
    images and links that stand alone."""
    items = spans(run)
    last_end = {run[start:end].lower(): start for start, end in items if run.startswith("</", start)}
    at = 0
    begun, raw_end = 0, ""
    for start, end in items:
        item = run[start:end]
        if raw_end:
            if item.lower() != raw_end:
                continue
            start, raw_end = begun, ""  # noqa: PLW2901
        elif opening := _RAW_TAG.match(item):
            raw_end = f"</{opening[1].lower()}>"
            if last_end.get(raw_end, -1) > start:
                begun = start
                continue
            raw_end = ""
        elif not _BLOCK_TAG.match(item):
            continue
        yield from _unlinked(run[at:start])
        yield Piece(run[start:end], False)
        at = end
    yield from _unlinked(run[at:])


def _unlinked(stretch: str, nesting: int = 0) -> Iterator[Piece]:
    """``stretch`` without the images at its beginning, or without the link that is all of it: their brackets and
    targets are glue, their words are stretches of their own."""
    at = 0
    if nesting <= _MAX_NESTING and stretch.lstrip().startswith(("![", "[")):
        items = spans(stretch)
        ends, starts = dict(items), {end: start for start, end in items}
        for start, end in unbroken(stretch):
            bracket, target = ends.get(start), starts.get(end)
            alone = stretch[start] == "!" or (at == 0 and not stretch[end:].strip())
            if not bracket or not target or not alone or stretch[at:start].strip() or bracket > target:
                break
            yield Piece(stretch[at:bracket], False)
            yield from _unlinked(stretch[bracket:target], nesting + 1)
            yield Piece(stretch[target:end], False)
            at = end
    if at < len(stretch):
        yield Piece(stretch[at:], True)


def _add_bare(pieces: list[Piece], words: str) -> None:
    """Append the sentence ``words``: emphasis around all of it, or open at one end, and a link that is all of it are
    glue."""
    tails: list[str] = []
    for _ in range(_MAX_NESTING):
        start, end = 0, len(words)
        if (mark := _EMPHASIS.match(words)) and mark[1] not in words[mark.end() : -len(mark[1])]:
            start = mark.end()
            end -= len(mark[1]) if words.endswith(mark[1]) else 0
        elif (mark := _EMPHASIS_END.search(words, max(0, end - 4))) and mark[1] not in words[: mark.start()]:
            end = mark.start()
        elif words.startswith("[") and unbroken(words)[:1] == [(0, end)]:
            start, end = 1, spans(words)[-1].start
        if end - start == len(words):
            break
        add_glue(pieces, words[:start])
        tails.append(words[end:])
        words = words[start:end]
    if has_words(words):
        add_words(pieces, words)
    else:
        add_glue(pieces, words)
    for tail in reversed(tails):
        add_glue(pieces, tail)
