"""Translate FLORES-200 and score it: each sentence one segment, once, greedily, by the pipeline of `translate`.

No splitting, no protection, no memory, and no ladder unless ``retry`` asks for it, which the record then says. The job
lies in ``RUN/work`` until its figures are saved: killed at any point, the same call resumes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from koen_batch import adapters, catalog, job, models
from koen_batch.config import JobConfig
from koen_batch.engines.pool import Pool
from koen_batch.engines.start import Prepared, Wishes, prepare
from koen_batch.errors import InputError, KoenError, StoppedError, UsageError
from koen_batch.evaluation import attempts, flores, lines, metrics, scoring, systems
from koen_batch.evaluation import run as runs
from koen_batch.evaluation.flores import FloresData
from koen_batch.evaluation.run import Run, System, Texts
from koen_batch.eventlog import EventLog
from koen_batch.languages import FLORES_CODES, Direction
from koen_batch.records import OK
from koen_batch.session import RunOptions

WORK = "work"
FLAGGED = 3
NO_ANSWER = attempts.Attempt("error", 0, "")
"""Of a sentence that the engine died of, again and again."""


@dataclass(frozen=True)
class Options:
    """What holds for every model and direction. ``figures`` goes to `scoring.record`: ``spm``, ``ter``, COMET."""

    data: str | None
    output: Path
    split: str = "devtest"
    limit: int | None = None
    retry: bool = False
    restart: bool = False
    quiet: bool = False
    max_new_tokens: int | None = None
    seed: int = 0
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One model in one direction: all that is known of it before an engine starts."""

    name: str
    folder: Path
    data: FloresData
    limit: int | None
    config: JobConfig
    engine: Prepared
    system: System


def plan(names: Sequence[str], directions: Sequence[Direction], wishes: Wishes, options: Options) -> list[Task]:
    """The tasks of a command, in its order. All that can be refused is refused here, before anything starts.

    Raises:
        UsageError: a model cannot be had or run here, is not asked in a direction, or two of them share a name.
        InputError: FLORES is not there, or not whole.
    """
    if options.data is None:
        raise InputError(
            f"no FLORES-200: unpack {flores.ARCHIVE} and name its folder with --data, or set KOEN_DATA to it"
        )
    if wishes.revision and len(names) > 1:
        raise UsageError(f"--revision {wishes.revision}: with {len(names)} models; give it with one model at a time")
    if wishes.adapter and len(names) > 1:
        raise UsageError(f"--adapter {wishes.adapter}: with {len(names)} models; give it with one model at a time")
    if spm := options.figures.get("spm"):
        metrics.evaluate(metrics.SPBLEU, ["x"], [["x"]], spm)  # a file that is no model is refused now, not in the end
    found = {direction: flores.load(options.data, options.split, direction) for direction in directions}
    tasks: dict[Path, Task] = {}
    for name in dict.fromkeys(names):
        for data in found.values():
            task = _task(name, data, wishes, options)
            if task.folder in tasks and task.system != tasks[task.folder].system:
                raise UsageError(f"--model {name}: its run would lie in the same folder as another's ({task.folder})")
            tasks.setdefault(task.folder, task)
    return list(tasks.values())


def _task(model: str, data: FloresData, wishes: Wishes, options: Options) -> Task:
    _check_pair(model, data.direction, wishes)
    limit = options.limit if options.limit and options.limit < len(data.sources) else None
    size = sum(len(source.encode()) for source in data.sources[:limit])
    engine = prepare(data.direction, replace(wishes, model=model, input_bytes=size))
    name = engine.identity.name
    name = Path(name).name if Path(name).exists() else name
    name += f" + {adapters.name_of(wishes.adapter)}" if wishes.adapter and engine.identity.adapter else ""
    name += " (retry)" if options.retry else ""
    folder = f"{scoring.folder_name(name, data.direction)}.{data.split}{f'.first-{limit}' if limit else ''}"
    config = JobConfig(
        direction=data.direction,
        on_bad_row="keep",
        with_confidence=True,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        ladder=options.retry,
        protect=False,
        split=False,
    )
    system = systems.describe(engine, config)
    return Task(name, options.output / folder, data, limit, config, engine, system)


def _check_pair(model: str, direction: Direction, wishes: Wishes) -> None:
    """NLLB takes any pair of FLORES; every other family is asked in words for English or Korean."""
    if {direction.source, direction.target} <= FLORES_CODES.keys():
        return
    entry = catalog.load().get(model)
    if entry is not None or wishes.engine == "echo":
        family = entry.family if entry else ""
    else:
        family = models.resolve(model, revision=wishes.revision).family.name
    if family != "nllb":
        raise UsageError(
            f"--direction {direction}: {model} is asked for English and Korean only; "
            "models of the NLLB family take any pair of FLORES"
        )


class Engines:
    """One engine at a time, which goes on running while tasks want the same: a model is loaded once for both of its
    directions. Its output is kept, outside the runs, where a task failed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._pool: Pool | None = None
        self._log = Path(tempfile.mkdtemp(prefix="koen-flores-")) / "engine.log"
        self._log_is_wanted = False

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if not self._log_is_wanted:
            shutil.rmtree(self._log.parent)

    def run(self, task: Task, options: Options) -> Run:
        """As :func:`run`, on the engine of the task before where that is the one."""
        engine = task.engine
        if self._pool is None or self._pool.plan != engine.plan:
            self._end()
            self._pool = Pool(engine.plan, self._log, self.say)
        if self._pool.ready:  # a task before has said why it is this engine
            engine = replace(engine, reasons=())
        try:
            return run(replace(task, engine=replace(engine, running=self._pool)), options, self.say)
        except KoenError:
            self._log_is_wanted |= self._log.exists()
            self._end()
            raise

    def _end(self) -> None:
        if self._pool:
            self._pool.close()
            self._pool = None


def run(task: Task, options: Options, say: Callable[[str], None]) -> Run:
    """Translate, score and save; a run that is there already is returned as it is.

    Raises KoenError in one line, or Interrupted on a signal; the same call resumes.
    """
    say(task.data.describe() + (f", the first {task.limit} of them: a partial run" if task.limit else ""))
    work = task.folder / WORK
    if options.restart:
        (task.folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    run = _finished(task)
    if run is not None:
        say(f"already done: {task.folder}")
    else:
        if not _is_checked(task.data.direction):
            say(f"{task.data.direction}: script and length checks are off, they know English and Korean only")
        _translate(task, work, options)
        run = _record(task, work, options)
    shutil.rmtree(work, ignore_errors=True)
    return run


def status(run: Run) -> int:
    """The exit status of a finished run: 3 if a sentence was flagged. The echo engine's verdict is always ``ok``."""
    flagged = run.system.engine != "echo" and set(run.output.verdicts or OK) - set(OK)
    return FLAGGED if flagged else 0


def _is_checked(direction: Direction) -> bool:
    return {direction.source, direction.target} <= FLORES_CODES.keys()


def _finished(task: Task) -> Run | None:
    """The run in the task's folder, if it is the one that is asked for; raises UsageError where it is another."""
    if not (task.folder / "run.json").exists():
        return None
    run = runs.load(task.folder)
    wanted = {
        **_decisive(task.system, retry=task.config.ladder),
        "reference": (task.data.reference_sha256,),
        "source": task.data.source_sha256,
        "segments": task.limit or len(task.data.sources),
    }
    there = {
        **_decisive(run.system, retry=run.retry),
        "reference": run.data.reference_sha256,
        "source": run.data.source_sha256,
        "segments": run.data.segments,
    }
    changed = [f"{key}: {there[key]!r} then, {value!r} now" for key, value in wanted.items() if there[key] != value]
    if changed:
        raise UsageError(f"{task.folder}: a run with other settings ({'; '.join(changed)}): --restart starts over")
    return run


def _decisive(system: System, *, retry: bool) -> dict[str, Any]:
    """What decides the answers, as `koen_batch.config.answer_settings` does for a job."""
    return {
        "model": system.model,
        "revision": system.revision,
        "adapter": system.adapter,
        "prompt": system.prompt_hash,
        "decoding": system.decoding,
        "retry": retry,
    }


def _translate(task: Task, work: Path, options: Options) -> None:
    work.mkdir(parents=True, exist_ok=True)
    sources = work / "sources.jsonl"
    rows = [json.dumps({"text": source}, ensure_ascii=False) for source in task.data.sources[: task.limit]]
    if not sources.exists() or lines.read(sources) != task.data.sources[: task.limit]:
        sources.write_bytes(lines.encode(rows))
    log = work / f"events-{len(_logs(work)) + 1:03d}.jsonl"
    with EventLog(log) as events:
        events.write(
            "begin",
            hardware=task.system.hardware,
            engine=task.system.engine,
            window=task.engine.plan.window * len(task.engine.plan.specs),
        )
    how = RunOptions(log_json=log, quiet=options.quiet)
    job.run([str(sources)], str(_translations(work)), task.config, how, task.engine)


def _logs(work: Path) -> list[Path]:
    return sorted(work.glob("events-*.jsonl"))


def _translations(work: Path) -> Path:
    return work / "translations.jsonl"


class _Row(msgspec.Struct):
    """A line of the job's output."""

    text: str
    translation: str | None
    translation_confidence: float | None = None


def _record(task: Task, work: Path, options: Options) -> Run:
    """Score what the job has made, and save the run."""
    rows = [msgspec.json.decode(line, type=_Row) for line in _translations(work).read_bytes().splitlines()]
    answers = attempts.read(_logs(work))
    ends = [_attempt(row, answers, work) for row in rows]
    texts = Texts(
        hypotheses=[row.translation or "" for row in rows],
        references=[task.data.references],
        sources=task.data.sources,
        finish_reasons=[end.finish_reason for end in ends],
    )
    system = _as_it_ran(task, answers)
    run, files = scoring.record(
        task.name,
        task.data.direction,
        task.data.name,
        texts,
        limit=task.limit,
        system=system,
        timing=answers.timing(),
        retry=task.config.ladder,
        **options.figures,
    )
    files["engine.tsv"] = _engine_rows(rows, ends)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    run = msgspec.structs.replace(run, files=digests)
    runs.save(task.folder, run, files)
    return run


def _as_it_ran(task: Task, answers: attempts.Answers) -> System:
    """With the engines and machines that answered, which a resumption or a fallback may have changed."""
    system = task.system
    fallback = task.engine.plan.fallback
    if fallback and answers.engines == [fallback[0].name]:
        system = msgspec.structs.replace(system, dtype=systems.dtype(fallback[0]))
    broken = len([stretch for stretch in answers.stretches if stretch.sources]) > 1
    timing = answers.timing()
    return msgspec.structs.replace(
        system,
        engine=", then ".join(answers.engines) or system.engine,
        hardware=", then ".join(answers.hardware) or system.hardware,
        note=f"resumed; speed of its longest stretch, {timing.sentences} sentences" if broken and timing else None,
    )


def _attempt(row: _Row, answers: attempts.Answers, work: Path) -> attempts.Attempt:
    """How the answer that was kept had ended."""
    if row.translation is None:
        return NO_ANSWER
    found = answers.attempts.get((row.text, row.translation))
    if found is None:
        raise StoppedError(f"{work}: the log of some answers is lost: --restart translates again")
    return found


def _engine_rows(rows: Sequence[_Row], ends: Sequence[attempts.Attempt]) -> bytes:
    """``engine.tsv``: of each segment how its answer ended, its tokens, their mean log-probability, and the step."""
    out = ["segment\tfinish_reason\ttokens\tconfidence\tstep"]
    for number, (row, end) in enumerate(zip(rows, ends, strict=True), 1):
        confidence = "" if row.translation_confidence is None else f"{row.translation_confidence:.4f}"
        out.append(f"{number}\t{end.finish_reason}\t{end.tokens}\t{confidence}\t{end.step}")
    return lines.encode(out)
