"""Everything durable of one output: its working folder ``OUT.koen/``.

::

    OUT.koen/
      lock             held while a job runs on this output (flock; its text names the holder)
      job.json         the fingerprint, and where the input came from
      parts/000000/    a committed part: data, rejects.jsonl, flagged.jsonl, part.json
      segments.sqlite  the segment store (of the job's first output, for all of them)
      final/           the assembled output, until it is renamed into place
      done.json        the finished job: counts, hash of the output
      flagged.jsonl    every flagged record with its verdicts
      models.jsonl     the records that another model than the job's has made, in a second pass
      second_pass.json a second pass is under way
      engine.log       what the engine's processes printed

A part is written to a temporary name, synced and renamed: **the rename is the commit**. ``done.json`` is written
when the final file is complete but not yet in place, so that a crash at any point leaves a state from which the
same command goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from koen_batch.errors import UsageError
from koen_batch.failpoints import failpoint
from koen_batch.records import START, Position


def folder_of(output: Path) -> Path:
    """``OUT`` → ``OUT.koen``."""
    return output.with_name(output.name + ".koen")


def rejects_of(output: Path) -> Path:
    return output.with_name(output.name + ".rejects.jsonl")


def flagged_of(output: Path) -> Path:
    return output.with_name(output.name + ".flagged.jsonl")


def sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit_rename(temporary: Path, final: Path) -> None:
    """Rename a synced file or folder into place, and sync the folder that holds it."""
    failpoint(f"rename {final.name}")
    temporary.rename(final)
    failpoint(f"renamed {final.name}")
    sync(final.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    failpoint(f"write {path.name}")
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n"
    # A name of a file that is not UTF-8 holds surrogates; replaced so, they are JSON's own escapes.
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    sync(temporary)
    commit_rename(temporary, path)


def read_json(path: Path, *names: str) -> dict[str, Any]:
    """What :func:`write_json` wrote, with at least ``names`` in it; raises UsageError where somebody else has written
    there since."""
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: damaged ({error}): --restart starts over") from error
    if not isinstance(value, dict) or not value.keys() >= set(names):
        raise UsageError(f"{path}: damaged (not all that a job writes is in it): --restart starts over")
    return value


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """An exclusive lock on a working folder. The kernel drops it when the process ends, whatever way."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UsageError(f"{folder}: {holder} is working on this output: wait for it, or end it") from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


class Workdir:
    """The working folder of one output."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = folder_of(output)
        self.parts_folder = self.folder / "parts"
        self._lock: Lock | None = None
        self._next_part = 0

    # --- begin ---------------------------------------------------------------------------------------------

    def refuse_foreign(self) -> None:
        """Raise UsageError where the output is there and no job of ours made it."""
        if self.output.exists() and not self.job_file.exists():
            raise UsageError(
                f"{self.output} exists and was not made by this job: --overwrite replaces it, -o names another"
            )

    def take(self, *, overwrite: bool) -> None:
        """Take the lock: nobody else works on this output from now on."""
        if not overwrite:
            self.refuse_foreign()
        failpoint("create working folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.folder)

    def open(
        self, fingerprint: Mapping[str, Any], *, restart: bool, overwrite: bool, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Begin the job, or go on with it if its fingerprint is the same; refuse otherwise. Takes the lock, too, where
        that was not done before.

        ``facts`` is what else a later command must know of the job; it decides nothing.
        """
        if self._lock is None:
            self.take(overwrite=overwrite)
        ours = self.job_file.exists()
        if restart and ours:
            self._forget()
            ours = False
        if ours:
            ours = self._goes_on(read_json(self.job_file, "fingerprint"), fingerprint)
        if not ours:
            write_json(self.job_file, {"id": uuid4().hex, "fingerprint": dict(fingerprint), **(facts or {})})
        if self.second_pass_file.exists() and not restart:
            raise UsageError(f"{self.output}: a second pass over it is unfinished: run `koen-batch retry` on it again")
        if not self.done_file.exists():
            self.prepare_parts()

    def prepare_parts(self) -> None:
        """A place for parts, where those of an earlier run may be; ``open`` does it, too."""
        self.parts_folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.parts_folder.glob("*.tmp"):
            shutil.rmtree(leftover)
        self._next_part = len(self.parts())

    def _goes_on(self, job: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether the job that was begun is the one that is asked for; raises UsageError where it is another.

        An input that could not be read to its end may have been repaired, or its bad rows are no reason to stop any
        more: its parts are made again, from the segments that are kept.
        """
        old = job["fingerprint"]
        changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        if changed and job.get("damaged") and {"input", "on bad row"}.issuperset(changed):
            shutil.rmtree(self.parts_folder, ignore_errors=True)
            return False
        if changed:
            differences = "; ".join(f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in changed)
            raise UsageError(f"{self.output}: begun with other settings ({differences}): --restart starts over")
        return True

    def mark_damaged(self) -> None:
        """The input could not be read to its end; after its repair the same command goes on."""
        self.note({"damaged": True})

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add to what ``job.json`` says; decides nothing."""
        write_json(self.job_file, {**read_json(self.job_file), **facts})

    def fact(self, name: str) -> Any:
        """What ``job.json`` says of ``name``; None if nothing."""
        return read_json(self.job_file).get(name)

    def _forget(self) -> None:
        """Start over: all but the lock goes; an output that was in place stays until it is replaced."""
        for entry in self.folder.iterdir():
            # job.json is replaced next: this stays a job of ours throughout. An engine that is starting writes its log.
            if entry in {self.folder / "lock", self.job_file, self.log_file}:
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def close(self) -> None:
        if self._lock:
            self._lock.release()

    # --- a second pass -------------------------------------------------------------------------------------

    def reopen(self) -> dict[str, Any]:
        """Take the lock of a job that was done before; returns what ``job.json`` says of it."""
        if not self.job_file.exists():
            raise UsageError(f"{self.output}: no working folder {self.folder.name} beside it: no job made this file")
        self._lock = Lock(self.folder)
        return read_json(self.job_file, "fingerprint", "input", "config", "model", "answer", "store")

    def begin_second_pass(self, settings: Mapping[str, Any], set_aside: Callable[[], None], *, force: bool) -> bool:
        """Begin a second pass, or go on with it; False if it is finished already.

        ``set_aside`` takes what is to be made again out of the segment store. From ``done.json`` going away until
        it comes back, the output that is in place is the first pass's.
        """
        done = self.finished() if self.done_file.exists() else None
        if self.second_pass_file.exists():
            begun = read_json(self.second_pass_file, "settings", "passes")
            if begun["settings"] != settings:
                raise UsageError(
                    f"{self.output}: a second pass with {begun['settings']} is unfinished, not with {dict(settings)}: "
                    "finish that one first"
                )
        elif done is None:
            raise UsageError(f"{self.output}: not finished yet: run the command that began it again")
        else:
            if not force and file_hash(self.output) != done["sha256"]:
                raise UsageError(
                    f"{self.output}: changed since it was written: --force retries it all the same, "
                    "and your changes are lost"
                )
            set_aside()
            begun = {"settings": dict(settings), "passes": done["passes"] + 1}
            write_json(self.second_pass_file, begun)
        if done and done["passes"] == begun["passes"]:
            self.second_pass_file.unlink()
            return False
        self.done_file.unlink(missing_ok=True)
        sync(self.folder)
        self.prepare_parts()
        return True

    @property
    def passes(self) -> int:
        """How often the output has been made when the present pass is finished."""
        if not self.second_pass_file.exists():
            return 1
        passes: int = read_json(self.second_pass_file, "passes")["passes"]
        return passes

    # --- files ---------------------------------------------------------------------------------------------

    @property
    def job_file(self) -> Path:
        return self.folder / "job.json"

    @property
    def done_file(self) -> Path:
        return self.folder / "done.json"

    @property
    def second_pass_file(self) -> Path:
        return self.folder / "second_pass.json"

    @property
    def store_file(self) -> Path:
        return self.folder / "segments.sqlite"

    @property
    def log_file(self) -> Path:
        return self.folder / "engine.log"

    # --- parts ---------------------------------------------------------------------------------------------

    def parts(self) -> list[Path]:
        """The committed parts, in order; raises UsageError where somebody has taken one away."""
        parts = sorted(path for path in self.parts_folder.iterdir() if path.suffix != ".tmp")
        for number, part in enumerate(parts):
            if part.name != f"{number:06d}":
                raise UsageError(f"{self.parts_folder}: part {number:06d} has gone: --restart starts over")
        return parts

    def new_part(self) -> Path:
        """An empty temporary folder for the next part."""
        folder = self.parts_folder / f"{self._next_part:06d}.tmp"
        self._next_part += 1
        failpoint("create part")
        folder.mkdir()
        return folder

    def commit_part(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Sync what stands in ``folder``, add ``facts`` as ``part.json``, and commit it by its rename."""
        write_json(folder / "part.json", facts)
        for file in folder.iterdir():
            sync(file)
        sync(folder)
        failpoint("part synced")
        commit_rename(folder, folder.with_suffix(""))

    def part_facts(self) -> list[dict[str, Any]]:
        return [read_json(part / "part.json", "next") for part in self.parts()]

    def resume_position(self, start: Position = START) -> Position:
        """Where reading goes on after the last committed part; ``start`` where there is none."""
        facts = self.part_facts()
        return Position(*facts[-1]["next"]) if facts else start

    # --- end -----------------------------------------------------------------------------------------------

    def finished(self) -> dict[str, Any] | None:
        """What ``done.json`` says, once the output is complete; brings it into place if a crash came between."""
        if not self.done_file.exists():
            return None
        done = read_json(self.done_file, "sha256", "side_files", "passes")
        assembled = self.folder / "final" / self.output.name
        if assembled.exists():
            self._put_in_place(done["side_files"])
        elif not self.output.exists():
            raise UsageError(f"{self.output}: finished before, but it is gone: --restart translates it again")
        self._clean_up()
        return done

    def finalise(self, assemble: Callable[[Path], None], facts: Mapping[str, Any], *, verdict_column: bool) -> None:
        """Assemble the output and its side files from the parts, write ``done.json``, rename, clean up."""
        final = self.folder / "final"
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
        assembled = final / self.output.name
        failpoint("assemble")
        assemble(assembled)
        sync(assembled)
        self._gather("rejects.jsonl", final / rejects_of(self.output).name)
        for name in ("flagged.jsonl", "models.jsonl"):
            (self.folder / name).unlink(missing_ok=True)
            self._gather(name, self.folder / name)
        if not verdict_column:
            self._gather("flagged.jsonl", final / flagged_of(self.output).name)
        side_files = sorted(file.name for file in final.iterdir() if file != assembled)
        failpoint("assembled")
        own = {"sha256": file_hash(assembled), "side_files": side_files, "passes": self.passes}
        write_json(self.done_file, {**facts, **own})
        self._put_in_place(side_files)
        self._clean_up()

    def _gather(self, name: str, target: Path) -> None:
        """Join the parts' files of that name; no file where there is nothing to say."""
        sources = [part / name for part in self.parts() if (part / name).exists()]
        if sources:
            with target.open("wb") as out:
                for source in sources:
                    with source.open("rb") as file:
                        shutil.copyfileobj(file, out)
            sync(target)

    def _put_in_place(self, side_files: Sequence[str]) -> None:
        """Rename side files first and the output last: while ``final/OUT`` is there, this is to be done again."""
        final = self.folder / "final"
        for side in (rejects_of(self.output), flagged_of(self.output)):
            if (final / side.name).exists():
                commit_rename(final / side.name, side)
            elif side.name not in side_files:
                side.unlink(missing_ok=True)  # an earlier run's, which is no longer true
        commit_rename(final / self.output.name, self.output)

    def _clean_up(self) -> None:
        failpoint("clean up")
        for folder in (self.folder / "final", self.parts_folder):
            shutil.rmtree(folder, ignore_errors=True)
        self.second_pass_file.unlink(missing_ok=True)
        failpoint("cleaned up")

    def remove(self) -> None:
        """``--clean``: nothing of the working folder stays."""
        self.close()
        shutil.rmtree(self.folder)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; none where there is no such file."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                yield json.loads(line)
