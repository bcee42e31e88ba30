"""What an engine is: token ids in, token ids out. It knows no text, no format and no job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Decoding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen and when to stop. Greedy unless ``temperature`` is above 0."""

    max_new_tokens: int
    stop_token_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    forced_first_token: int | None = None
    """Encoder-decoder models: the target language's token."""


class Request(msgspec.Struct, omit_defaults=True):
    """One prompt. ``tokens`` are the prompt's ids, special tokens included."""

    id: int
    tokens: list[int]
    decoding: Decoding
    priority: int = 0
    """Greater comes sooner, where the engine has more than it can compute at once."""


class Completion(msgspec.Struct, omit_defaults=True):
    """The answer to the request of that id.

    ``finish_reason`` is ``stop`` (a stop token was reached; it is not among ``tokens``), ``length`` (the budget
    was used up), ``repetition`` (the engine saw a loop and ended it) or ``error`` (this request alone failed,
    ``error`` says how). ``logprob`` is the mean natural-log probability of the generated tokens.
    """

    id: int
    tokens: list[int]
    finish_reason: str
    logprob: float | None = None
    error: str = ""


def cancelled(id: int) -> Completion:
    """The completion of a request that was cancelled before it was answered."""
    return Completion(id, [], "error", error="cancelled")


class Engine(Protocol):
    """A running model. Not thread-safe."""

    capacity: int
    """Requests it wants in flight, so that it never waits."""

    def submit(self, request: Request) -> None: ...

    def cancel(self, ids: Sequence[int]) -> None:
        """These requests are no longer wanted. Each still has a completion, with an ``error`` where it was not begun
        or could be stopped; those that are finished or unknown are passed over."""

    def poll(self) -> list[Completion]:
        """Compute for a while; return the requests that are finished, which may be none. Needs a request in flight."""

    def close(self) -> None: ...


class EngineSpec(msgspec.Struct, frozen=True):
    """What a child process needs to build an engine: its registered name and that engine's settings."""

    name: str
    settings: dict[str, str | int | float | bool | None] = {}
    environment: dict[str, str] = {}
