"""Finding the one segment that the engine dies of, by asking ever fewer of the suspects at a time.

What was in flight at two deaths is suspect. Suspects are asked in groups with nothing else in flight, half as many
after each death, so that a group that lives clears its members. A segment that was alone in flight at two deaths
that this process has seen is guilty: it is never sent again. (That the whole job was killed raises suspicion, too,
but condemns nobody: the engine's own process is the one that a request can kill.)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from koen_batch.store import Store, Suspicion
from koen_batch.work import Work

DEATHS_TO_SUSPECT = 2
DEATHS_ALONE_TO_CONDEMN = 2


class Suspected(Enum):
    NO = auto()
    YES = auto()
    GUILTY = auto()


class Suspects:
    """The segments under suspicion, over all runs of the job."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._suspicions = store.suspicions()
        self._waiting: list[Work] = []
        self.guilty = store.quarantined()

    def __bool__(self) -> bool:
        """Whether some wait to be asked."""
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def suspected(self, key: bytes) -> bool:
        return key in self._suspicions and self._suspicions[key].deaths >= DEATHS_TO_SUSPECT

    def add(self, work: Work) -> None:
        self._waiting.append(work)

    def clear(self, key: bytes) -> None:
        """This segment was answered."""
        self._suspicions.pop(key, None)

    def next_group(self, capacity: int) -> list[Work]:
        """Those to be asked next, with nothing else in flight: the most suspect first."""
        self._waiting.sort(key=lambda work: -self._suspicions[work.key].deaths)
        deaths = self._suspicions[self._waiting[0].key].deaths
        size = max(1, capacity >> (deaths - 1))
        group = [work for work in self._waiting[:size] if self._suspicions[work.key].deaths == deaths]
        self._waiting = self._waiting[len(group) :]
        return group

    def blame(self, keys: Sequence[bytes]) -> dict[bytes, Suspected]:
        """An engine died with exactly ``keys`` in flight: record it, and say of each what it is now."""
        self._store.blame(keys)
        verdicts = {}
        for key in keys:
            deaths, alone = self._suspicions.get(key, Suspicion())
            suspicion = self._suspicions[key] = Suspicion(deaths + 1, alone + (len(keys) == 1))
            if suspicion.alone >= DEATHS_ALONE_TO_CONDEMN:
                self._store.quarantine(key)
                self.guilty.add(key)
                verdicts[key] = Suspected.GUILTY
            else:
                verdicts[key] = Suspected.YES if suspicion.deaths >= DEATHS_TO_SUSPECT else Suspected.NO
        return verdicts
