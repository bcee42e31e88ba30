"""Replicas of an engine, each in a supervised child process, behind one queue.

The parent never touches an accelerator. A replica that dies is reported with what it had in flight, and started
again; whoever submitted those requests decides what becomes of them.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as mpc
from pathlib import Path
from typing import TypeVar

import msgspec

from koen_batch.engines import child, hardware
from koen_batch.engines.base import Completion, EngineSpec, Request
from koen_batch.errors import StoppedError

_Of = TypeVar("_Of", Request, Completion)

POLL_SECONDS = 0.25
"""How long :meth:`Pool.poll` blocks at most, so that progress and signals are seen to."""

START_ATTEMPTS = 2
"""An engine that fails to start this often in a row is not tried again."""

FRUITLESS_DEATHS = 6
"""Deaths in a row without one answer, beyond those that it takes to find the one request of a full window that the
engine dies of (its number of bits), after which a replica is given up, and the job where it was the last, or where
all have died so since their last answers."""


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
    fallback: tuple[EngineSpec, ...] = ()


class _Replica:
    """A place for an engine: the child process that is in it now, and the requests that this process has.

    ``failed_starts`` and ``deaths`` are in a row: a start ends the one, an answer the other.
    """

    def __init__(self, spec: EngineSpec, log: Path) -> None:
        self.spec = spec
        self.failed_starts = 0
        self.deaths = 0
        self._log = log
        self.start()

    def start(self) -> None:
        """A new process; the one before has ended."""
        self.ready = False
        self.in_flight: dict[int, Request] = {}
        self._oom_kills = hardware.oom_kills()
        ours, theirs = socket.socketpair()
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "koen_batch.engines.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that Ctrl-C reaches the parent alone, and one signal ends the group
                env=_environment(self.spec),
            )
        theirs.close()
        self.connection = mpc.Connection(ours.detach())
        with contextlib.suppress(OSError):  # a dead child is noticed when its end of the stream is read
            self.connection.send_bytes(child.encode(self.spec))

    def send(self, requests: list[Request]) -> None:
        self.in_flight.update((request.id, request) for request in requests)
        with contextlib.suppress(OSError):
            self.connection.send_bytes(child.encode(child.Submit(requests)))

    def cancel(self, ids: Sequence[int]) -> list[int]:
        """Those of ``ids`` that are here; each still has a completion."""
        if running := [id for id in ids if id in self.in_flight]:
            with contextlib.suppress(OSError):
                self.connection.send_bytes(child.encode(child.Cancel(running)))
        return running

    def receive(self) -> child.Reply:
        """The next message of the child; the end of the stream is its death."""
        try:
            reply: child.Reply = child.decode_reply(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.end()
            return child.Failed(f"the process ended with status {self.process.returncode}", self.ready)
        if isinstance(reply, child.Finished) and reply.completions:
            self.deaths = 0
            for completion in reply.completions:
                self.in_flight.pop(completion.id, None)
        elif isinstance(reply, child.Ready):
            self.ready = True
            self.failed_starts = 0
        return reply

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

    def ran_out_of_memory(self, reason: str) -> bool:
        """Whether a death looks like want of memory: an error that says so, or the kernel's choice of a victim. A
        SIGKILL alone does not: it may be anybody's."""
        killed = reason.endswith(f"status {-signal.SIGKILL}") and hardware.oom_kills() > self._oom_kills
        return killed or "memory" in reason.lower()


def _environment(spec: EngineSpec) -> dict[str, str]:
    """The child's environment: some of its variables (``LD_PRELOAD``) must be there before the process is."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **spec.environment, "PYTHONPATH": path}


@dataclass
class Pool:
    """An engine made of replicas (see :class:`koen_batch.engines.base.Engine`).

    There is one queue, in this process, for all replicas, and one that writes to it and takes the answers: the
    scheduler of the job. It keeps no more than ``capacity`` requests in flight (over by the pieces of one commit at
    most), and the queue is what of these is not with a replica: a replica takes from it as soon as it has room in its
    window, so that none waits for another's answers and none has more than its window to lose.

    Unlike an engine in its own process, ``poll`` returns after :data:`POLL_SECONDS` at the latest, with nothing
    if nothing has finished, and raises :class:`ReplicaDied`.
    """

    plan: PoolPlan
    log: Path
    """File to which the children's output goes."""
    say: Callable[[str], None]
    served: int = field(default=0, init=False)
    """Completions received."""
    idle: float = field(default=0.0, init=False)
    """Seconds that a replica, once at work, had nothing to do, summed over all; what comes after its last request does
    not count."""

    def __post_init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        """Called when a replica is up, for the job that has the pool now: what it took until then is loading."""
        self._ids = itertools.count()
        self._queue: deque[Request] = deque()
        self._replicas: list[_Replica] = []
        self._cancelled: set[int] = set()
        """What is still with a replica and no longer wanted."""
        self._received: list[Completion] = []
        """Kept over the death of another replica in the same poll."""
        self._fallen_back = False
        self._specs: Sequence[EngineSpec] = self.plan.specs
        """What is started, or has been; fewer where a replica was given up."""

    @property
    def engine(self) -> str:
        """Name of the engine that runs, or will run."""
        return self._specs[0].name

    @property
    def capacity(self) -> int:
        return self.plan.window * len(self._specs)

    @property
    def ready(self) -> bool:
        """Whether a replica is up."""
        return any(replica.ready for replica in self._replicas)

    def start(self) -> None:
        """Start the replicas, unless they run: they load while the caller reads and tokenises."""
        if not self._replicas:
            self._replicas = [_Replica(spec, self.log) for spec in self._specs]

    def new_id(self) -> int:
        """For a request: one that no other has, whichever job it belongs to."""
        return next(self._ids)

    def submit(self, request: Request) -> None:
        """Queue a request; the first one starts the replicas."""
        self.start()
        self._queue.append(request)

    def cancel(self, ids: Sequence[int]) -> None:
        """These requests are no longer wanted, and :meth:`poll` does not speak of them again."""
        self._queue = deque(request for request in self._queue if request.id not in ids)
        self._received = [completion for completion in self._received if completion.id not in ids]
        for replica in self._replicas:
            self._cancelled.update(replica.cancel(ids))

    def poll(self) -> list[Completion]:
        self._dispatch()
        speaking = {replica.connection: replica for replica in self._replicas}
        for connection in mpc.wait(list(speaking), timeout=POLL_SECONDS):
            replica = speaking[connection]  # type: ignore[index]
            if replica in self._replicas:  # not where a fallback has just replaced it
                self._hear(replica)
        completions, self._received = self._received, []
        return completions

    def close(self) -> None:
        for replica in self._replicas:
            replica.end()

    def _dispatch(self) -> None:
        """Share the queue out evenly, as far as the windows have room: first to those that have not died lately, so
        that a request under suspicion does not meet a replica that dies of every request."""
        ready = sorted((replica for replica in self._replicas if replica.ready), key=lambda replica: replica.deaths)
        for done, replica in enumerate(ready):
            share = math.ceil(len(self._queue) / (len(ready) - done))
            count = min(share, self.plan.window - len(replica.in_flight))
            if count > 0:
                replica.send([self._queue.popleft() for _ in range(count)])

    def _hear(self, replica: _Replica) -> None:
        """Take one message: answers, word that the engine is up, or its death, which raises ReplicaDied where it was
        up and the same engine goes on."""
        reply = replica.receive()
        if isinstance(reply, child.Finished):
            self._received += self._wanted(reply.completions)
            self.served += len(reply.completions)
            self.idle += reply.idle
        elif isinstance(reply, child.Ready):
            self.on_ready()
        elif not self.served and self.plan.fallback and not self._fallen_back:
            self._fall_back(reply.reason)
        elif reply.started:
            self._after_death(replica, reply.reason)
        else:
            self._after_failed_start(replica, reply.reason)

    def _wanted(self, left: Iterable[_Of]) -> list[_Of]:
        """Requests that have left a replica, or their completions, without those that were cancelled."""
        wanted = []
        for one in left:
            if one.id in self._cancelled:
                self._cancelled.remove(one.id)
            else:
                wanted.append(one)
        return wanted

    def _fall_back(self, reason: str) -> None:
        """The engine has not worked once: another takes its place, and its requests."""
        instead = self.plan.fallback[0].name
        self.say(f"engine {self.engine} does not work here ({first_line(reason)}): using {instead}")
        waiting = [request for replica in self._replicas for request in self._wanted(replica.in_flight.values())]
        self.close()
        self._fallen_back = True
        self._specs = self.plan.fallback
        self._replicas = [_Replica(spec, self.log) for spec in self._specs]
        self._queue.extendleft(reversed(waiting))

    def _after_failed_start(self, replica: _Replica, reason: str) -> None:
        replica.end()
        replica.failed_starts += 1
        why = f"does not start: {first_line(reason)}"
        if replica.failed_starts < START_ATTEMPTS:
            replica.start()
        elif len(self._replicas) > 1:
            self._give_up(replica, why)
        else:
            raise StoppedError(
                f"engine {self.engine} {why} (see {self.log}); `koen-batch doctor` says what this machine can run"
            )

    def _after_death(self, replica: _Replica, reason: str) -> None:
        """Start it again, up to a limit; its requests are the caller's to ask again, or to suspect."""
        replica.end()
        lost = self._wanted(replica.in_flight.values())
        replica.deaths += 1
        most = FRUITLESS_DEATHS + self.capacity.bit_length()
        deaths = [other.deaths for other in self._replicas]
        if all(deaths) and sum(deaths) > most:
            raise StoppedError(
                f"engine {self.engine} died {sum(deaths)} times without one answer: {first_line(reason)} "
                f"(see {self.log}); the same command resumes"
            )
        if replica.deaths > most:
            self._give_up(replica, f"died {replica.deaths} times without one answer: {first_line(reason)}")
        else:
            self.say(f"engine {self.engine} died ({first_line(reason)}): starting it again")
            if replica.ran_out_of_memory(reason):
                replica.spec = smaller(replica.spec)
            replica.start()
        raise ReplicaDied(lost, reason)

    def _give_up(self, replica: _Replica, why: str) -> None:
        """Go on without one of several replicas, as with one GPU that has failed."""
        self._replicas.remove(replica)
        self._specs = [other.spec for other in self._replicas]
        left = len(self._replicas)
        self.say(f"one replica of engine {replica.spec.name} {why} (see {self.log}): going on with {left}")


def smaller(spec: EngineSpec) -> EngineSpec:
    """The same engine with half as many sequences at once, where it has that setting: what died of memory lives."""
    sequences = spec.settings.get("max_num_seqs")
    if not isinstance(sequences, int) or sequences <= 1:
        return spec
    return msgspec.structs.replace(spec, settings={**spec.settings, "max_num_seqs": sequences // 2})


def first_line(reason: str) -> str:
    """The first line of an error's text, at most 200 characters."""
    return (reason.strip().splitlines() or ["no reason given"])[0][:200]
