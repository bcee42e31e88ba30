"""Text to token ids and back, in batches, in the parent process: no engine ever sees a text."""

from __future__ import annotations

import os
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from koen_batch.errors import InputError
from koen_batch.prompts import Part, Source

if TYPE_CHECKING:
    import tokenizers


class Tokenizer(Protocol):
    """What turns prompts into ids and answers into texts."""

    def encode(self, prompts: Sequence[Sequence[Part]]) -> list[list[int]]:
        """The ids of each prompt. A control token inside a ``Source`` is encoded as the plain text that it is."""

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """The text of each answer, special tokens left out."""

    def token_id(self, token: str) -> int | None:
        """The id of a token, None where the vocabulary has no such token."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has on its own."""


class CodePoints:
    """One token per code point, lone surrogates included: for the echo engine, which has no vocabulary."""

    def encode(self, prompts: Sequence[Sequence[Part]]) -> list[list[int]]:
        return [_code_points("".join(parts)) for parts in prompts]

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        return [array("I", ids).tobytes().decode(_UTF32, "surrogatepass") for ids in answers]

    def token_id(self, token: str) -> int | None:
        return ord(token) if len(token) == 1 else None

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


def _code_points(text: str) -> list[int]:
    """The code points of ``text``; through UTF-32, because ``ord`` of each character takes four times as long."""
    return array("I", text.encode(_UTF32, "surrogatepass")).tolist()


_UTF32 = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"

_CONTROL_BY_USE = ("<think>", "</think>")
"""Tokens that steer a model although their vocabulary does not call them special (Qwen3)."""


class HuggingFace:
    """The ``tokenizer.json`` of a model, run by the Rust library `tokenizers`; transformers is not imported.

    Nothing is added to a prompt: its template already holds the token that begins a sequence.
    """

    def __init__(self, folder: Path) -> None:
        # The library reads it at its first batch. Its threads are worth having, and safe: children are spawned,
        # never forked. A user's own setting stands.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        import tokenizers

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise InputError(
                f"{folder}: no tokenizer.json; write one with "
                f"transformers.AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"{file}: cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder().values()
        control = {token.content for token in added if token.special and len(token.content) > 1}
        longest_first = sorted(control.union(_CONTROL_BY_USE), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))

    def encode(self, prompts: Sequence[Sequence[Part]]) -> list[list[int]]:
        # A prompt is encoded as one text, exactly as in training. Only where the user's text spells a control
        # token is it cut inside that token, and the pieces are encoded one by one.
        pieces = [self._pieces(parts) for parts in prompts]
        ids = iter(self._encode([piece for prompt in pieces for piece in prompt]))
        return [[token for _ in prompt for token in next(ids)] for prompt in pieces]

    def _pieces(self, parts: Sequence[Part]) -> list[str]:
        if not any(isinstance(part, Source) and self._control.search(part) for part in parts):
            return ["".join(parts)]
        pieces = [""]
        for part in parts:
            first, *rest = self._defused(part) if isinstance(part, Source) else [part]
            pieces[-1] += first
            pieces += rest
        return pieces

    def _defused(self, text: str) -> Iterator[str]:
        """``text`` in pieces none of which spells a control token: cut behind the first character of each."""
        while found := self._control.search(text):
            cut = found.start() + 1
            yield text[:cut]
            text = text[cut:]
        yield text

    def _encode(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, which UTF-8 does not have
            whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
            encodings = self._tokenizer.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, answers: Sequence[Sequence[int]]) -> list[str]:
        return self._tokenizer.decode_batch(answers, skip_special_tokens=True)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._encode(list(texts))]


def read(folder: Path) -> HuggingFace:
    """The tokenizer of the model in ``folder``. The last one is kept until its file is written anew: a large vocabulary
    takes more than a second to read, and one process has many jobs for a model (both directions, shards, the rounds of
    a bench)."""
    file = folder / "tokenizer.json"
    return _read(folder.absolute(), file.stat().st_mtime_ns if file.is_file() else None)


@lru_cache(maxsize=1)
def _read(folder: Path, written: int | None) -> HuggingFace:
    return HuggingFace(folder)
