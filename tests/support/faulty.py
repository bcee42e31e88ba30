"""An engine for the tests that dies, fails or counts, as its settings say. It echoes like the real ``echo``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from koen_batch.engines.base import Completion, Request
from koen_batch.engines.echo import EchoEngine


class FaultyEngine(EchoEngine):
    """``poison``: the process is killed when a prompt with this text is asked. ``refuse``: such a request alone
    fails. ``out_of_memory``: an error of that kind ends it.
    ``start_error``: does not start. ``count``: file to which the text of each request is appended.
    ``hold``: folder; a prompt with the name of a file there in its text is not answered before the file has gone, so
    that a test has all the time it needs while the job is where it wants it.
    ``worker``: file to which the id of a process of its own is written, which it starts."""

    def __init__(
        self,
        *,
        poison: str = "",
        refuse: str = "",
        out_of_memory: str = "",
        start_error: str = "",
        count: str = "",
        hold: str = "",
        worker: str = "",
        latency: float = 0.0,
        max_num_seqs: int = 256,
    ) -> None:
        if start_error:
            raise RuntimeError(start_error)
        if worker:
            Path(worker).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        super().__init__(latency, max_num_seqs)
        self._poison, self._refuse, self._count = poison, refuse, count
        self._out_of_memory = out_of_memory
        self._refused: list[Completion] = []
        self._hold = Path(hold) if hold else None
        self._held: list[Request] = []

    def submit(self, request: Request) -> None:
        text = "".join(map(chr, request.tokens))
        if self._count:
            with Path(self._count).open("a", encoding="utf-8") as file:
                file.write(text.replace("\n", " ") + "\n")
        if self._poison and self._poison in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._out_of_memory and self._out_of_memory in text:
            raise RuntimeError("CUDA out of memory")
        if self._refuse and self._refuse in text:
            self._refused.append(Completion(request.id, [], "error", error="refused by the test"))
        elif self._holds(text):
            self._held.append(request)
        else:
            super().submit(request)

    def _holds(self, text: str) -> bool:
        return self._hold is not None and any(file.name in text for file in self._hold.iterdir())

    def poll(self) -> list[Completion]:
        refused, self._refused = self._refused, []
        held, self._held = self._held, []
        for request in held:
            self.submit(request)
        finished = refused or super().poll()
        if self._held and not finished:
            time.sleep(0.01)
        return finished
