"""From the user's wishes to an engine that is ready to start, with its tokenizer and prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from koen_batch import adapters, models, prompts, tokenization
from koen_batch.asking import Asking
from koen_batch.config import JobConfig, ModelIdentity
from koen_batch.engines import choose, hardware
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.pool import Pool, PoolPlan
from koen_batch.languages import Direction
from koen_batch.tokenization import CodePoints, Tokenizer

DEFAULT_MODEL = "koen-v4"

ECHO_CONTEXT = 1 << 20
ECHO_SEQUENCES = 256


@dataclass(frozen=True)
class Wishes:
    """What the user said of the model and the engine; None leaves a choice to the planner."""

    engine: str = "auto"
    model: str | None = None
    revision: str | None = None
    adapter: Path | None = None
    dtype: str | None = None
    tensor_parallel: int | None = None
    replicas: int | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    echo_latency: float = 0.0
    input_bytes: int | None = None
    """Size of the files to be translated; None where it is not known, or where speed is what is measured."""


@dataclass(frozen=True)
class Prepared:
    """All that is known before the engine's processes start."""

    plan: PoolPlan
    family: prompts.Family
    read_tokenizer: Callable[[], Tokenizer]
    """Called when it is first needed: a large vocabulary takes seconds, in which the engine can be loading."""
    identity: ModelIdentity
    context: int
    """Tokens that a prompt and its answer may have together."""
    reasons: tuple[str, ...] = ()
    """Each decision with its reason, for the user."""
    accept_all: bool = False
    """Whether every answer's verdict is ``ok`` (echo)."""
    parameters: int = 0
    """Of the model; 0 where there is none."""
    running: Pool | None = None
    """The engine, where it runs already; it then goes on running after the job."""

    def asking(self, config: JobConfig) -> Asking:
        """How a job asks this model."""
        return Asking(
            self.family,
            self.read_tokenizer(),
            config.direction,
            self.context,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
        )


def prepare(direction: Direction, wishes: Wishes) -> Prepared:
    """Find the model and plan the engine; raises UsageError where either cannot be had."""
    return _echo(direction, wishes) if wishes.engine == "echo" else _real(direction, wishes)


def identity(direction: Direction, wishes: Wishes) -> ModelIdentity:
    """Which model would answer, and how it would be asked, found without planning an engine: a machine that only cuts
    a job into shards need not be able to run it, and fetches no weights. Raises UsageError where the model cannot be
    had."""
    if wishes.engine == "echo":
        return ModelIdentity("echo", "", prompts.prompt_hash(prompts.family("plain"), direction))
    return identity_of(find_model(wishes, weights=False), direction)


def find_model(wishes: Wishes, *, weights: bool = True) -> models.Model:
    """The model, with the adapter and asked as that was trained to be, where there is one; ``weights`` as in
    :func:`koen_batch.models.resolve`."""
    name = wishes.model or DEFAULT_MODEL
    if wishes.adapter is None:
        return models.resolve(name, revision=wishes.revision, weights=weights)
    adapter = adapters.read(wishes.adapter)
    return adapters.attach(
        adapter, models.resolve(name, revision=wishes.revision, family=adapter.family or None, weights=weights)
    )


def identity_of(model: models.Model, direction: Direction) -> ModelIdentity:
    prompt = prompts.prompt_hash(model.family, direction)
    return ModelIdentity(model.name, model.revision, prompt, model.adapter.id if model.adapter else "")


def _echo(direction: Direction, wishes: Wishes) -> Prepared:
    sequences = wishes.max_num_seqs or ECHO_SEQUENCES
    spec = EngineSpec("echo", {"latency": wishes.echo_latency, "max_num_seqs": sequences})
    family = prompts.family("plain")
    return Prepared(
        plan=PoolPlan((spec,) * (wishes.replicas or 1), window=2 * sequences),
        family=family,
        read_tokenizer=CodePoints,
        identity=identity(direction, wishes),
        context=wishes.max_model_len or ECHO_CONTEXT,
        accept_all=True,
    )


def _real(direction: Direction, wishes: Wishes) -> Prepared:
    return planned(find_model(wishes), direction, wishes)


def planned(model: models.Model, direction: Direction, wishes: Wishes) -> Prepared:
    """As :func:`prepare`, of a model that was found."""
    plan = choose.plan(hardware.detect(), model, wishes)
    return Prepared(
        plan=plan.pool,
        family=model.family,
        read_tokenizer=partial(tokenization.read, model.folder),
        identity=identity_of(model, direction),
        context=plan.max_model_len,
        parameters=model.parameters,
        reasons=plan.reasons,
    )
