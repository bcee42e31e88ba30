"""This program against ``vllm run-batch``: the same sentences in the same prompts, each as a command of its own.

Both load a model before they begin, and run-batch does not say how long that took. So each runs twice, with one
sentence and with all of them, and what is compared is the difference: the time of all sentences but one. The prompts
are given to run-batch through a Jinja template, as chat requests; budgets, stop tokens and the engine's settings are
those of the job.

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
from pathlib import Path

from koen_batch.bench import sentences
from koen_batch.bench.sentences import Text
from koen_batch.config import JobConfig
from koen_batch.engines.start import Prepared, Wishes, prepare
from koen_batch.languages import Direction
from koen_batch.models import read_config


def template(prepared: Prepared, direction: Direction) -> str:
    """The family's prompt as a Jinja template of one user's turn."""
    before, after = prepared.family.frame(direction, "default")
    return f"{{{{ {json.dumps(before)} }}}}{{{{ messages[0]['content'] }}}}{{{{ {json.dumps(after)} }}}}"


def requests(texts: list[Text], stop: list[int]) -> str:
    """The lines of run-batch's input."""
    asked = [pair for text in texts for pair in zip(text.segments, text.questions, strict=True)]
    return "".join(
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "model",
                    "messages": [{"role": "user", "content": segment}],
                    "temperature": 0,
                    "max_tokens": question.decoding.max_new_tokens,
                    "stop_token_ids": stop,
                },
            },
            ensure_ascii=False,
        )
        + "\n"
        for number, (segment, question) in enumerate(asked)
    )


def engine_options(prepared: Prepared) -> list[str]:
    """The job's engine settings as options of vLLM's commands."""
    from koen_batch.engines.vllm import llm_arguments

    settings = prepared.plan.specs[0].settings
    eager = bool(settings.get("enforce_eager"))
    cpu = "CUDA_VISIBLE_DEVICES" not in prepared.plan.specs[0].environment
    fixed = llm_arguments(read_config(Path(str(settings["model"]))), cpu=cpu, enforce_eager=eager)
    options = ["--model", str(settings["model"]), "--served-model-name", "model", "--generation-config", "vllm"]
    for name in ("dtype", "max_model_len", "max_num_seqs", "gpu_memory_utilization"):
        options += [f"--{name.replace('_', '-')}", str(settings[name])]
    if cpu and settings.get("kv_cache_gib"):
        options += ["--kv-cache-memory-bytes", str(int(float(str(settings["kv_cache_gib"])) * 2**30))]
    if eager:
        options.append("--enforce-eager")
    if "compilation_config" in fixed:
        options += ["--compilation-config", json.dumps(fixed["compilation_config"])]
    options.append("--enable-prefix-caching" if fixed["enable_prefix_caching"] else "--no-enable-prefix-caching")
    return options


def timed(command: list[str], log: Path, environment: dict[str, str], accepted: tuple[int, ...] = (0,)) -> float:
    """Wall seconds of a command; ends the program, with the last lines of what it said, where it fails."""
    began = time.monotonic()
    with log.open("wb") as out:
        status = subprocess.run(
            command, stdout=out, stderr=out, env={**os.environ, **environment}, check=False
        ).returncode
    if status not in accepted:
        lines = log.read_text(errors="replace").splitlines()
        raise SystemExit(f"{' '.join(command[:3])}: status {status}\n" + "\n".join(lines[-15:]))
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--input", type=Path)
    parser.add_argument("--data", default=os.environ.get("KOEN_DATA"))
    parser.add_argument("--to", choices=("ko", "en"), default="ko")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    config = JobConfig(direction=Direction.to(arguments.to))
    prepared = prepare(config.direction, Wishes(engine="vllm", model=arguments.model))
    name, sources = sentences.read(arguments.input, arguments.data, config)
    texts = sentences.choose(sources, prepared.asking(config), arguments.sentences)
    stop = list(texts[0].questions[0].decoding.stop_token_ids)
    environment = {k: v for k, v in prepared.plan.specs[0].environment.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    print(f"{name}: {sum(len(text.segments) for text in texts)} segments", flush=True)
    with tempfile.TemporaryDirectory(prefix="koen-run-batch-") as made:
        folder = Path(made)
        (folder / "template.jinja").write_text(template(prepared, config.direction), encoding="utf-8")

        def run_batch(part: list[Text]) -> float:
            (folder / "in.jsonl").write_text(requests(part, stop), encoding="utf-8")
            vllm = str(Path(sys.executable).with_name("vllm"))
            files = ["-i", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]
            chat = ["--chat-template", str(folder / "template.jinja")]
            command = [vllm, "run-batch", *files, *chat, *engine_options(prepared)]
            seconds = timed(command, folder / "run-batch.log", environment)
            answers = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
            failed = [answer for answer in answers if answer.get("error") or not answer.get("response")]
            assert not failed, failed[0]
            return seconds

        def ours(part: list[Text]) -> float:
            sentences.write(part, folder / "corpus.jsonl")
            command = [sys.executable, "-m", "koen_batch.cli", "translate", str(folder / "corpus.jsonl")]
            options = ["--to", arguments.to, "--model", arguments.model, "--engine", "vllm", "--restart", "--overwrite"]
            return timed([*command, *options], folder / "translate.log", {}, accepted=(0, 3))

        ratios = []
        for number in range(arguments.rounds):
            ways = (ours, run_batch) if number % 2 else (run_batch, ours)
            spent = {way.__name__: way(texts) - way(texts[:1]) for way in ways}
            ratios.append(spent["run_batch"] / spent["ours"])
            figures = ", ".join(f"{who} {seconds:.1f} s" for who, seconds in spent.items())
            print(f"round {number + 1}: {figures}; ours is {ratios[-1]:.2f} times as fast", flush=True)
        print(f"run-batch over koen-batch, seconds: {min(ratios):.2f} to {max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
