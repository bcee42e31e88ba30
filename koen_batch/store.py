"""The segment store of a job: what was translated, and what was in flight (SQLite, one writer).

A segment is known by a key: a digest of its source and of everything that decides its translation. Each commit
holds the completions of one poll and the attempts about to be submitted, so that a crash loses what was in
flight, and what was in flight at a crash can be told.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from koen_batch.errors import UsageError
from koen_batch.failpoints import failpoint

BUSY_SECONDS = 10.0
"""How long to wait for another process that is writing to the same file."""

KEY_BYTES = 16

_CHECKPOINT = 10_000
"""Pages of 4 KiB in the write-ahead log before they are moved into the database: keys are random, so a page of the
index is changed by many commits, and the fewer moves, the fewer times it is written (SQLite's 1,000 take twice as
long for 200,000 segments)."""

_LOOKUP = 500
"""Keys per SELECT; SQLite allows 32,766 variables, but statements of one size are prepared once."""


class Segment(NamedTuple):
    """A finished segment: its translation, flags (empty if acceptable), confidence and how it was made.

    ``steps`` are the names of the ladder's steps that were taken, joined by ``,``; ``model`` made the kept one.
    """

    key: bytes
    text: str
    flags: str
    confidence: float | None
    steps: str
    model: str


class Suspicion(NamedTuple):
    """How often a segment was in flight when an engine died, and how often it was so alone."""

    deaths: int = 0
    alone: int = 0


def segment_key(answer: bytes, source: str) -> bytes:
    """Key of ``source`` under ``answer``, the digest of all that decides the translation."""
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES, key=answer).digest()


SEGMENTS = """
    CREATE TABLE IF NOT EXISTS segments(
        key BLOB PRIMARY KEY, text TEXT, flags TEXT, confidence REAL, steps TEXT, model TEXT);
"""
"""Rows stand in the order in which they came, and only the index is in the order of the keys, which is random: so a
commit changes half as many pages as it would WITHOUT ROWID."""

_ATTEMPTS = """
    CREATE TABLE IF NOT EXISTS in_flight(id INTEGER PRIMARY KEY CHECK (id = 0), keys BLOB);
    CREATE TABLE IF NOT EXISTS attempts(
        key BLOB PRIMARY KEY, deaths INTEGER DEFAULT 0, alone INTEGER DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS quarantine(key BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS set_aside(
        key BLOB PRIMARY KEY, text TEXT, flags TEXT, confidence REAL, steps TEXT, model TEXT);
"""


class Store:
    """Segments and attempts in one SQLite file.

    What is in flight is one row, written anew with each commit: a window of keys takes a fraction of the time of a
    row for each. ``attempts`` holds those that were in flight at a death and are not finished.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, SEGMENTS + _ATTEMPTS)
        self._has_set_aside = self._db.execute("SELECT 1 FROM set_aside LIMIT 1").fetchone() is not None
        self._in_flight = dict.fromkeys(self._recorded())
        self._suspect = {key for (key,) in self._db.execute("SELECT key FROM attempts")}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Segment]:
        """Those of ``keys`` that are finished."""
        return lookup(self._db, keys)

    def set_aside(self, only: Sequence[str]) -> None:
        """For a second pass: take the segments with any of the flags ``only`` (all flagged ones, if there is none)
        out, and give those that killed the engine another chance."""
        where = " OR ".join("',' || flags || ',' LIKE ?" for _ in only) or "flags != ''"
        values = [f"%,{flag},%" for flag in only]
        with self._db:
            self._db.execute(f"INSERT OR REPLACE INTO set_aside SELECT * FROM segments WHERE {where}", values)
            self._db.execute(f"DELETE FROM segments WHERE {where}", values)
            if not only or "killed_engine" in only:
                self._db.execute("DELETE FROM quarantine")
        self._has_set_aside = True

    def adopt(self, other: Path) -> None:
        """Copy the finished and the quarantined segments of another store."""
        with refusing(other):
            self._db.execute("ATTACH ? AS other", (str(other),))
            with self._db:
                for table in ("segments", "quarantine"):
                    self._db.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}")
            self._db.execute("DETACH other")

    def previous(self, keys: Sequence[bytes]) -> dict[bytes, Segment]:
        """What an earlier pass made of ``keys``, to be bettered."""
        return lookup(self._db, keys, "set_aside") if self._has_set_aside else {}

    def commit(self, finished: Sequence[Segment], attempts: Iterable[bytes]) -> None:
        """Record finished segments and, before they are submitted, new attempts, in one transaction. What is both has
        nothing in it to be sent."""
        done = [segment.key for segment in finished]
        self._in_flight.update(dict.fromkeys(attempts))
        self._land(done)
        with self._db:
            if finished:
                self._db.executemany("INSERT OR REPLACE INTO segments VALUES (?,?,?,?,?,?)", finished)
                self._absolve(self._suspect.intersection(done))
            self._record()
            failpoint("store: before commit")
        failpoint("store: after commit")

    def suspicions(self) -> dict[bytes, Suspicion]:
        """Segments that were in flight at a death and are not finished."""
        rows = self._db.execute("SELECT key, deaths, alone FROM attempts WHERE deaths > 0")
        return {key: Suspicion(deaths, alone) for key, deaths, alone in rows}

    def blame_all(self) -> None:
        """The job itself died: whatever was in flight is under suspicion."""
        self._blame(list(self._in_flight), alone=False)

    def blame(self, keys: Sequence[bytes]) -> None:
        """An engine died with exactly ``keys`` in flight."""
        self._blame(keys, alone=len(keys) == 1)
        failpoint("store: deaths recorded")

    def absolve(self) -> None:
        """A clean stop: what is in flight is under no suspicion that it was not under before."""
        self._in_flight.clear()
        with self._db:
            self._record()

    def quarantine(self, key: bytes) -> None:
        """This segment kills the engine: it is never sent again."""
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO quarantine VALUES (?)", (key,))
            self._absolve({key})
        failpoint("store: quarantined")

    def quarantined(self) -> set[bytes]:
        return {key for (key,) in self._db.execute("SELECT key FROM quarantine")}

    def close(self) -> None:
        self._db.close()

    def _blame(self, keys: Sequence[bytes], *, alone: bool) -> None:
        self._land(keys)
        with self._db:
            self._record()
            self._db.executemany(
                "INSERT INTO attempts VALUES (?, 1, ?) "
                "ON CONFLICT DO UPDATE SET deaths = deaths + 1, alone = alone + excluded.alone",
                [(key, alone) for key in keys],
            )
        self._suspect.update(keys)

    def _absolve(self, keys: Collection[bytes]) -> None:
        self._db.executemany("DELETE FROM attempts WHERE key = ?", [(key,) for key in keys])
        self._suspect.difference_update(keys)

    def _land(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._in_flight.pop(key, None)

    def _record(self) -> None:
        self._db.execute("INSERT OR REPLACE INTO in_flight VALUES (0, ?)", (b"".join(self._in_flight),))

    def _recorded(self) -> list[bytes]:
        row = self._db.execute("SELECT keys FROM in_flight").fetchone()
        keys: bytes = row[0] if row else b""
        return [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open a database in WAL mode and see that ``schema`` is there.

    ``synchronous=NORMAL``: a commit survives the death of the process; one lost in a power failure costs a
    translation, not a record, since parts are synced on their own.
    """
    with refusing(path):
        db = sqlite3.connect(path, timeout=BUSY_SECONDS)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
        db.executescript(schema)
    return db


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """A database that is none, is damaged or stays locked is refused in one line; a full disk is not its fault."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:  # the machine, not the file
            raise
        raise UsageError(
            f"{path}: cannot be opened or used ({error}): name another file, or end the program that uses it"
        ) from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path}: not a database, or damaged ({error}): name another file, or remove it") from error


def lookup(db: sqlite3.Connection, keys: Sequence[bytes], table: str = "segments") -> dict[bytes, Segment]:
    """Those of ``keys`` that stand in a table of segments of ``db``."""
    found: dict[bytes, Segment] = {}
    for start in range(0, len(keys), _LOOKUP):
        some = keys[start : start + _LOOKUP]
        rows = db.execute(f"SELECT * FROM {table} WHERE key IN ({','.join('?' * len(some))})", some)
        found.update((row[0], Segment._make(row)) for row in rows)
    return found
