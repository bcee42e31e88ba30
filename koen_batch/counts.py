"""What a run counts, and when the engine's answers came."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    """What the scheduler did in this run."""

    sent: int = 0
    """Segments sent to the engine, each counted once."""
    finished: int = 0
    unique: int = 0
    requests: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    retry_requests: int = 0
    cancelled_requests: int = 0
    """Of those, the ones that were asked ahead and then not needed; what they had generated is not counted."""
    retry_tokens: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    """Segments by the ladder's step, beyond the first, that was asked."""


@dataclass
class Clock:
    """When the engine's first and last answers came, and how many came after the first batch of them."""

    first: float | None = None
    last: float = 0.0
    later: int = 0

    def note(self, answers: int) -> None:
        self.last = time.monotonic()
        if self.first is None:
            self.first = self.last
        else:
            self.later += answers

    @property
    def seconds(self) -> float:
        """Since the first answer; 0 before it."""
        return 0.0 if self.first is None else time.monotonic() - self.first

    @property
    def steady_rate(self) -> float | None:
        """Answers a second from the first to the last; None where there was but one batch of them."""
        return self.later / (self.last - self.first) if self.first is not None and self.last > self.first else None
