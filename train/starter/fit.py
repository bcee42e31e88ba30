"""Fine-tune the starter model into a LoRA adapter. Self-contained: torch, transformers and peft are all it needs.

So it runs on a lent GPU machine to which nothing else travels, and, with a loss that looks at the tokens that answers
hold, several times as fast on a CPU as a general trainer. The README beside it has the commands before and after::

    python train/starter/fit.py --model FOLDER --examples examples.jsonl.gz --steps 3000 -o adapter

The same command again goes on from what was saved last, also with other ``--steps``: the learning rate is level until
its decay begins, so that a run can be lengthened or cut short without losing its worth.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

WARMUP_STEPS = 40
DECAY = 0.3
"""The share of the steps over which the learning rate falls to nothing, linearly."""
NEGATIVES = 8192
"""Tokens drawn anew for every step to stand for the many that no answer holds."""


def fit(arguments: argparse.Namespace) -> None:
    """Train and save ``adapter_model.safetensors`` with its configuration, in bf16."""
    import torch
    from transformers import AutoTokenizer

    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    examples = encoded(arguments.examples, tokenizer, arguments.max_length)
    held_out, examples = examples[: arguments.held_out], examples[arguments.held_out :]
    model = adapted(arguments, device)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=arguments.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    step = resume(arguments.output, model, optimizer)
    vocabulary = Vocabulary(model, examples, whole=device == "cuda")
    write_settings(arguments, device)
    print(f"{len(examples)} examples, {len(held_out)} held out, from step {step} on, on {device}", flush=True)
    begin, first, losses, saved = time.monotonic(), step, [], time.monotonic()
    for batch in batches(examples, arguments.batch, arguments.seed, step):
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * share_of_rate(step, arguments.steps)
        losses.append(learn(model, batch, vocabulary, arguments.tokens))
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = step >= arguments.steps
        if last or step % arguments.log == 0:
            rate = arguments.batch * (step - first) / (time.monotonic() - begin)
            log(arguments.output, step=step, loss=sum(losses) / len(losses), examples_per_second=round(rate, 2))
            losses = []
        if last or time.monotonic() - saved > arguments.save_seconds:
            log(arguments.output, step=step, held_out=held_out_loss(model, held_out, arguments.tokens))
            save(arguments.output, model, optimizer, step)
            saved = time.monotonic()
        if last:
            return


def write_settings(arguments: argparse.Namespace, device: str) -> None:
    import torch

    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    settings["device"] = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores"
    (arguments.output / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")


def learn(model: Any, batch: list[Any], vocabulary: Vocabulary, tokens: int) -> float:
    """Add the gradients of a batch, ``tokens`` tokens at a time; its mean loss a token."""
    learned = sum(len(answer) for _, answer in batch)
    total = 0.0
    for part in parts(batch, tokens):
        loss = answer_loss(model, part, vocabulary) / learned
        loss.backward()
        total += float(loss.detach())
    return total


def encoded(path: Path, tokenizer: Any, longest: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and completion ids of every example of at most ``longest`` tokens."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    columns = [
        tokenizer([row[name] for row in rows], add_special_tokens=False)["input_ids"]
        for name in ("prompt", "completion")
    ]
    return [(prompt, answer) for prompt, answer in zip(*columns, strict=True) if len(prompt) + len(answer) <= longest]


def adapted(arguments: argparse.Namespace, device: str) -> Any:
    """The base model, frozen in bf16, with adapters in float32 on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa")
    config = LoraConfig(
        r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base.to(device), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.train()


def share_of_rate(step: int, steps: int) -> float:
    return min(1.0, step / WARMUP_STEPS, (steps - step + 1) / (DECAY * steps))


def batches(examples: list[Any], size: int, seed: int, done: int) -> Any:
    """Batches of like length, for ever, from the ``done``-th on: a pure function of the seed."""
    epoch = 0
    while True:
        order = list(range(len(examples)))
        draw = random.Random(seed * 1000 + epoch)
        draw.shuffle(order)
        pool = 50 * size
        for start in range(0, len(order), pool):
            order[start : start + pool] = sorted(
                order[start : start + pool], key=lambda i: len(examples[i][0]) + len(examples[i][1])
            )
        chosen = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        draw.shuffle(chosen)
        for indices in chosen:
            if done:
                done -= 1
            else:
                yield [examples[i] for i in indices]
        epoch += 1


def parts(batch: list[Any], tokens: int) -> list[list[Any]]:
    """A batch in pieces of at most ``tokens`` tokens, padding included."""
    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    size = max(1, tokens // longest)
    return [batch[start : start + size] for start in range(0, len(batch), size)]


class Vocabulary:
    """The rows of the output matrix that the loss looks at.

    On a GPU all 262,144. On a CPU the softmax over all of them costs more than the layers: there, the tokens of all
    answers and a sample of the others, drawn anew at each step.
    """

    def __init__(self, model: Any, examples: list[Any], *, whole: bool) -> None:
        import torch

        self._weights = model.get_output_embeddings().weight
        self._all = len(self._weights)
        self._whole = whole
        if whole:
            self._rows = self._weights.detach()
            return
        used = sorted({token for _, answer in examples for token in answer})
        self._rows = self._weights.detach()[torch.tensor(used)].clone()
        self._position = torch.full((self._all,), -1)
        self._position[used] = torch.arange(len(used))

    def loss(self, hidden: Any, targets: Any) -> Any:
        """The summed cross-entropy of hidden states (n, width) against token ids (n,)."""
        import torch

        rows, places = self._rows, targets
        if not self._whole:
            others = torch.randint(0, self._all, (NEGATIVES,))
            others = others[self._position[others] < 0]
            rows = torch.cat([rows, self._weights.detach()[others]])
            places = self._position[targets]
        hidden = hidden.to(rows.dtype)
        total: Any = 0.0
        for start in range(0, len(hidden), 512):
            logits = (hidden[start : start + 512] @ rows.T).float()
            total = total + torch.nn.functional.cross_entropy(logits, places[start : start + 512], reduction="sum")
        return total


def answer_loss(model: Any, batch: list[Any], vocabulary: Vocabulary) -> Any:
    """The summed loss over the tokens of the answers: the prompts' are not learned, nor computed."""
    import torch

    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    asks = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        asks[row, len(prompt) - 1 : end - 1] = True
    targets = torch.cat([torch.tensor(answer) for _, answer in batch])
    ids, mask, asks, targets = (tensor.to(model.device) for tensor in (ids, mask, asks, targets))
    with torch.autocast(model.device.type, torch.bfloat16):
        hidden = model.get_base_model().model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return vocabulary.loss(hidden[asks], targets)


def held_out_loss(model: Any, examples: list[Any], tokens: int) -> float:
    """The mean loss a token over the whole vocabulary."""
    import torch

    answered = sum(len(answer) for _, answer in examples)
    ordered = sorted(examples, key=lambda example: len(example[0]) + len(example[1]))
    whole = Vocabulary(model, [], whole=True)
    model.eval()
    with torch.no_grad():
        total = sum(float(answer_loss(model, part, whole)) for part in parts(ordered, tokens))
    model.train()
    return total / max(answered, 1)


def resume(folder: Path, model: Any, optimizer: Any) -> int:
    import torch

    path = folder / "state.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    missing = model.load_state_dict(state["adapter"], strict=False).unexpected_keys
    if missing:
        sys.exit(f"{path}: of another model or rank: {missing[0]}")
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save(folder: Path, model: Any, optimizer: Any, step: int) -> None:
    import torch

    adapter = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    torch.save({"adapter": adapter, "optimizer": optimizer.state_dict(), "step": step}, folder / "state.pt.new")
    (folder / "state.pt.new").replace(folder / "state.pt")
    model.save_pretrained(folder, state_dict={name: value.to(torch.bfloat16) for name, value in adapter.items()})


def log(folder: Path, **row: float) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    if not all(math.isfinite(value) for value in row.values()):
        sys.exit("the loss is no number: lower --learning-rate")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--examples", type=Path, required=True, help="what train.starter.export wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rank", type=int, default=31, help="31 in bf16 is just under 15 MB (default: 31)")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=32, help="examples of one step")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of one forward pass")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of the longest example that is used")
    parser.add_argument("--held-out", type=int, default=256, help="examples that are not trained on")
    parser.add_argument("--save-seconds", type=float, default=300)
    parser.add_argument("--log", type=int, default=10, help="steps between two lines of metrics.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    fit(parser.parse_args(argv))


if __name__ == "__main__":
    main()
