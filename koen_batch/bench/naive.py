"""The loop of a model's card, in a process of its own: tokenise, ``generate``, decode, one sentence after the other.

``python -m koen_batch.bench.naive`` reads a :class:`Task` as a line of JSON, loads the model, answers with a line, and
then runs the loop once for each line that it reads, answering each with seconds and tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import msgspec

from koen_batch.errors import StoppedError


class Task(msgspec.Struct):
    """What the loop translates, and with what."""

    model: str
    """Folder."""
    dtype: str
    device: str
    encoder_decoder: bool
    prompts: list[str]
    budgets: list[int]
    """New tokens that each answer may have."""
    stop: list[int]
    forced_first_token: int | None = None


class Naive:
    """The process, from the parent's side."""

    def __init__(self, task: Task, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "koen_batch.bench.naive"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
            )
        self._task = task
        self.pid = self._process.pid

    def load(self) -> None:
        """Load the model, and wait until it is there."""
        self._ask(msgspec.json.encode(self._task).decode())

    def run(self, count: int | None = None) -> tuple[float, int]:
        """Translate the first ``count`` prompts (default: all); seconds and output tokens."""
        answer = self._ask(str(len(self._task.prompts) if count is None else count))
        return float(answer["seconds"]), int(answer["tokens"])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            print(line, file=self._process.stdin, flush=True)
            return cast("dict[str, Any]", json.loads(self._process.stdout.readline()))
        except (OSError, ValueError) as error:
            raise StoppedError(f"the naive loop does not run here (see {self._log})") from error


def main() -> None:
    """The child."""
    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print is no answer
    import torch
    import transformers

    library: Any = transformers  # its annotations are partial
    library.utils.logging.set_verbosity_error()
    loader = library.AutoModelForSeq2SeqLM if task.encoder_decoder else library.AutoModelForCausalLM
    tokenizer = library.AutoTokenizer.from_pretrained(task.model)
    model = loader.from_pretrained(task.model, dtype=getattr(torch, task.dtype)).eval().to(task.device)
    forced = {} if task.forced_first_token is None else {"forced_bos_token_id": task.forced_first_token}
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        tokens = 0
        for prompt, budget in list(zip(task.prompts, task.budgets, strict=True))[: int(line)]:
            inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(task.device)
            with torch.inference_mode():
                output = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=budget,
                    do_sample=False,
                    eos_token_id=task.stop,
                    pad_token_id=task.stop[0],
                    **forced,
                )[0]
            answer = output if task.encoder_decoder else output[inputs["input_ids"].shape[1] :]
            tokenizer.decode(answer, skip_special_tokens=True)
            tokens += sum(token not in task.stop for token in answer.tolist())
        print(json.dumps({"seconds": time.monotonic() - began, "tokens": tokens}), file=answers, flush=True)


if __name__ == "__main__":
    main()
