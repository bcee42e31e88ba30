"""The engine without a model: it returns a marked copy of the prompt.

For dry runs, tests, and measuring everything but the model. Its token ids are code points
(``tokenization.CodePoints``), so it needs no tokenizer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from koen_batch.engines.base import Completion, Request, cancelled

MARK = "⟦echo⟧ "
_MARK_IDS = [ord(character) for character in MARK]


class EchoEngine:
    """Answers each request ``latency`` seconds after it began; ``max_num_seqs`` run at once.

    A request that waits begins at the very moment that another one ends: as in a real engine, what this process does
    between two polls costs no time of the model's.
    """

    def __init__(self, latency: float = 0.0, max_num_seqs: int = 256) -> None:
        self.capacity = 2 * max_num_seqs
        self._latency = latency
        self._slots = max_num_seqs
        self._waiting: deque[Request] = deque()
        self._running: deque[tuple[float, Request]] = deque()
        """With the time at which each ends, the earliest first."""
        self._cancelled: list[Completion] = []

    def submit(self, request: Request) -> None:
        if len(self._running) < self._slots:
            self._running.append((time.monotonic() + self._latency, request))
        else:
            self._waiting.append(request)

    def cancel(self, ids: Sequence[int]) -> None:
        """Those that wait; the others run to their ends."""
        self._cancelled += [cancelled(request.id) for request in self._waiting if request.id in ids]
        self._waiting = deque(request for request in self._waiting if request.id not in ids)

    def poll(self) -> list[Completion]:
        finished, self._cancelled = self._cancelled, []
        if self._latency and not finished:
            time.sleep(max(0.0, self._running[0][0] - time.monotonic()))
        now = time.monotonic()
        while self._running and self._running[0][0] <= now:
            end, request = self._running.popleft()
            finished.append(self._answer(request))
            if self._waiting:
                self._running.append((end + self._latency, self._waiting.popleft()))
        return finished

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()

    @staticmethod
    def _answer(request: Request) -> Completion:
        return Completion(id=request.id, tokens=_MARK_IDS + request.tokens, finish_reason="stop", logprob=0.0)
