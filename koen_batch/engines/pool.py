"""Replicas of an engine, each in a supervised child process, behind one queue.

The parent never touches an accelerator. A replica that dies is reported with what it had in flight, and started
again; whoever submitted those requests decides what becomes of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as mpc
from pathlib import Path

import msgspec

from koen_batch.engines import child
from koen_batch.engines.base import Completion, EngineSpec, Request
from koen_batch.errors import StoppedError

POLL_SECONDS = 0.25
"""How long :meth:`Pool.poll` blocks at most, so that progress and signals are seen to."""

START_ATTEMPTS = 2
"""An engine that fails to start this often in a row is not tried again."""

FRUITLESS_DEATHS = 6
"""Deaths in a row without one answer, beyond those that it takes to find the one request of a full window that the
engine dies of (its number of bits), after which the engine is dead for good."""


class ReplicaDied(Exception):
    """A replica that was up has died; ``requests`` are what it had in flight."""

    def __init__(self, requests: list[Request], reason: str) -> None:
        super().__init__(reason)
        self.requests = requests
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """How to start the replicas, one spec each, and what to start instead where that engine does not start or
    dies before its first answer."""

    specs: tuple[EngineSpec, ...]
    window: int
    """Requests in flight in each replica."""
    fallback: EngineSpec | None = None


class _Replica:
    """A child process and the requests that it has."""

    def __init__(self, spec: EngineSpec, log: Path) -> None:
        self.spec = spec
        self.ready = False
        self.in_flight: dict[int, Request] = {}
        ours, theirs = socket.socketpair()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "koen_batch.engines.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that Ctrl-C reaches the parent alone, and one signal ends the group
                env=_environment(spec),
            )
        theirs.close()
        self.connection = mpc.Connection(ours.detach())
        self.connection.send_bytes(child.encode(spec))

    def send(self, requests: list[Request]) -> None:
        self.in_flight.update((request.id, request) for request in requests)
        with contextlib.suppress(OSError):  # a dead child is noticed when its end of the stream is read
            self.connection.send_bytes(child.encode(requests))

    def end(self) -> None:
        """Close the stream (the child ends itself and its group) and make sure of it, also where the child is dead."""
        if self.process.returncode is not None:  # ended before: its number may be another process's by now
            return
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _environment(spec: EngineSpec) -> dict[str, str]:
    """The child's environment: some of its variables (``LD_PRELOAD``) must be there before the process is."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **spec.environment, "PYTHONPATH": path}


@dataclass
class Pool:
    """An engine made of replicas (see :class:`koen_batch.engines.base.Engine`).

    Unlike an engine in its own process, ``poll`` returns after :data:`POLL_SECONDS` at the latest, with nothing
    if nothing has finished, and raises :class:`ReplicaDied`.
    """

    plan: PoolPlan
    log: Path
    """File to which the children's output goes."""
    say: Callable[[str], None]
    on_ready: Callable[[], None] = lambda: None
    """Called when a replica is up: what it took until then is loading."""
    capacity: int = field(init=False)
    served: int = field(default=0, init=False)
    """Completions received."""
    idle: float = field(default=0.0, init=False)
    """Seconds that a replica, once at work, had nothing to do, summed over all; what comes after its last request does
    not count."""

    def __post_init__(self) -> None:
        self._queue: deque[Request] = deque()
        self._replicas: list[_Replica] = []
        self._received: list[Completion] = []
        """Kept over the death of another replica in the same poll."""
        self._use(self.plan.specs)

    def _use(self, specs: Sequence[EngineSpec]) -> None:
        self._specs = specs
        self._failed_starts = 0
        self._fruitless_deaths = 0
        self.capacity = self.plan.window * len(specs)

    @property
    def engine(self) -> str:
        """Name of the engine that runs, or will run."""
        return self._specs[0].name

    def submit(self, request: Request) -> None:
        """Queue a request; the first one starts the replicas, which load while more is read and tokenised."""
        if not self._replicas:
            self._replicas = [_Replica(spec, self.log) for spec in self._specs]
        self._queue.append(request)

    def poll(self) -> list[Completion]:
        self._dispatch()
        connections = {replica.connection: index for index, replica in enumerate(self._replicas)}
        for connection in mpc.wait(list(connections), timeout=POLL_SECONDS):
            if not connection.closed:  # type: ignore[union-attr]  # of a replica that a fallback has just replaced
                self._receive(connections[connection])  # type: ignore[index]
        completions, self._received = self._received, []
        return completions

    def close(self) -> None:
        for replica in self._replicas:
            replica.end()

    def _dispatch(self) -> None:
        ready = [replica for replica in self._replicas if replica.ready]
        for done, replica in enumerate(ready):
            share = math.ceil(len(self._queue) / (len(ready) - done))
            count = min(share, self.plan.window - len(replica.in_flight))
            if count > 0:
                replica.send([self._queue.popleft() for _ in range(count)])

    def _receive(self, index: int) -> None:
        """Take one message of a replica; raises ReplicaDied where it has died."""
        replica = self._replicas[index]
        try:
            reply: child.Reply = child.decode_reply(replica.connection.recv_bytes())
        except (EOFError, OSError):
            replica.end()
            reply = child.Failed(f"the process ended with status {replica.process.returncode}", replica.ready)
        if isinstance(reply, child.Finished):
            for completion in reply.completions:
                replica.in_flight.pop(completion.id, None)
            self._received += reply.completions
            self.served += len(reply.completions)
            self.idle += reply.idle
            if reply.completions:
                self._fruitless_deaths = 0
            return
        if isinstance(reply, child.Ready):
            replica.ready = True
            self._failed_starts = 0
            self.on_ready()
            return
        replica.end()
        if not self.served and self.plan.fallback and replica.spec != self.plan.fallback:
            self._fall_back(reply.reason)
        elif reply.started:
            self._restart(index, reply.reason)
        else:
            self._start_again(index, reply.reason)

    def _fall_back(self, reason: str) -> None:
        assert self.plan.fallback
        self.say(f"engine {self.engine} does not work here ({first_line(reason)}): using {self.plan.fallback.name}")
        waiting = [request for replica in self._replicas for request in replica.in_flight.values()]
        self.close()
        self._use([self.plan.fallback])
        self._replicas = [_Replica(self.plan.fallback, self.log)]
        self._queue.extendleft(reversed(waiting))

    def _start_again(self, index: int, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= START_ATTEMPTS:
            raise StoppedError(
                f"engine {self.engine} does not start: {first_line(reason)} (see {self.log}); "
                "`koen-batch doctor` says what this machine can run"
            )
        time.sleep(0.2)
        self._replicas[index] = _Replica(self._replicas[index].spec, self.log)

    def _restart(self, index: int, reason: str) -> None:
        dead = self._replicas[index]
        self._fruitless_deaths += 1
        if self._fruitless_deaths > FRUITLESS_DEATHS + self.capacity.bit_length():
            raise StoppedError(
                f"engine {self.engine} died {self._fruitless_deaths} times without one answer: "
                f"{first_line(reason)} (see {self.log}); the same command resumes"
            )
        self.say(f"engine {self.engine} died ({first_line(reason)}): starting it again")
        self._replicas[index] = _Replica(smaller(dead.spec) if out_of_memory(reason) else dead.spec, self.log)
        raise ReplicaDied(list(dead.in_flight.values()), reason)


def out_of_memory(reason: str) -> bool:
    """Whether a death looks like want of memory: an error that says so, or the kernel's SIGKILL."""
    return "memory" in reason.lower() or reason.endswith("status -9")


def smaller(spec: EngineSpec) -> EngineSpec:
    """The same engine with half as many sequences at once, where it has that setting: what died of memory lives."""
    sequences = spec.settings.get("max_num_seqs")
    if not isinstance(sequences, int) or sequences <= 1:
        return spec
    return msgspec.structs.replace(spec, settings={**spec.settings, "max_num_seqs": sequences // 2})


def first_line(reason: str) -> str:
    """The first line of an error's text, at most 200 characters."""
    return (reason.strip().splitlines() or ["no reason given"])[0][:200]
