"""From what the user calls a model to a folder with its configuration, tokenizer and weights."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koen_batch import catalog, prompts, starter
from koen_batch.chat_templates import template_of
from koen_batch.conversion import content_id, convert_gguf
from koen_batch.errors import UsageError

if TYPE_CHECKING:
    from koen_batch.adapters import Adapter

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
INSTEAD = "give --model a folder, or use --model starter, which needs no hub"


@dataclass(frozen=True)
class Model:
    """A model on this machine. Sizes are what the planner needs to know of it."""

    name: str
    """What the user called it."""
    folder: Path
    """Holds ``config.json``, ``tokenizer.json`` and the weights."""
    revision: str
    """The hub's commit, a converted file's identity, or 12 hex digits of the folder's content."""
    family: prompts.Family
    architecture: str
    """``architectures[0]`` of its configuration, e.g. ``Lfm2ForCausalLM``."""
    model_type: str
    is_encoder_decoder: bool
    dtype: str
    """Of the stored weights: ``bfloat16``, ``float16`` or ``float32``."""
    parameters: int
    layers: int
    attention_layers: int
    """Those that keep keys and values: fewer than ``layers`` in a hybrid model."""
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    """Tokens of prompt and answer together that the model was made for."""
    vocabulary: int
    adapter: Adapter | None = None
    """That it is used with, unmerged."""

    def kv_bytes_per_token(self, itemsize: int = 2) -> int:
        """Bytes that one token of one sequence holds in the cache: keys and values of every attention layer."""
        return 2 * self.attention_layers * self.kv_heads * self.head_dim * itemsize


def resolve(name: str, *, revision: str | None = None, family: str | None = None, weights: bool = True) -> Model:
    """The model that ``name`` means: a name of the catalogue, a folder, a GGUF file or a hub id, in this order.

    The hub is asked only for what is not on this machine yet. Without ``weights``, configuration and tokenizer are
    enough, and nothing else is fetched; where there are none, ``parameters`` is 0. Raises UsageError, in one line,
    where the model cannot be had or used.
    """
    entry = catalog.load().get(name)
    folder, commit = _folder(name, entry, revision, weights)
    config = read_config(folder, weights=weights)
    chosen = family or (entry.family if entry else "") or guess_family(folder, config)
    return _describe(name, folder, commit or folder_id(folder), prompts.family(chosen, folder), config)


def _folder(name: str, entry: catalog.Entry | None, revision: str | None, weights: bool) -> tuple[Path, str]:
    """Where the model lies, and which it is: the hub's commit, or the name of a converted file's folder, which holds
    the file's identity; empty for a folder of the user's."""
    if entry is not None and entry.engine == "none":
        raise UsageError(f"{name}: not a model that can be run here; its output is scored with `koen-batch score`")
    if entry is not None and not (entry.hub or entry.package):
        raise UsageError(f"{name}: id unknown: pass a path (--model FOLDER or --model FILE.gguf)")
    if entry is not None and entry.hub:
        return _from_hub(entry.hub, revision, entry.file, weights)
    path = Path(name).expanduser()
    if entry is None and not path.exists() and HUB_ID.fullmatch(name):
        return _from_hub(name, revision, "", weights)
    if revision:
        raise UsageError(f"--revision {revision}: {name} is not from the hub, only models from there have revisions")
    if entry is not None:
        folder = starter.folder(adapted=entry.adapted)
        return folder, folder.name
    if path.is_dir():
        return path, ""
    if path.is_file():
        folder = convert_gguf(path)
        return folder, folder.name
    raise UsageError(f"--model {name}: no such folder or GGUF file, and no name that `koen-batch models` lists")


def _from_hub(hub_id: str, revision: str | None, file: str, weights: bool) -> tuple[Path, str]:
    """A snapshot from the hub, the local copy first, and its commit; a GGUF ``file`` of it is converted."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(
            f"{hub_id}: the hub's client is not installed (pip install 'koen-batch[hf]'); {INSTEAD}"
        ) from error
    snapshot = _local_snapshot(hub_id, revision, file, weights)
    if snapshot is None:
        snapshot = Path(_download(huggingface_hub, hub_id, revision, file, weights))
    return (convert_gguf(snapshot / file) if file else snapshot), snapshot.name


def _local_snapshot(hub_id: str, revision: str | None, file: str, weights: bool) -> Path | None:
    """The local copy, if it is complete: a download that was cut short leaves a folder without all its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    if file:
        complete = (snapshot / file).is_file()
    elif weights:
        complete = _weights_complete(snapshot)
    else:
        complete = (snapshot / "config.json").is_file() and (snapshot / "tokenizer.json").is_file()
    return snapshot if complete else None


def _weights_complete(folder: Path) -> bool:
    for index in folder.glob("*.index.json"):
        return all((folder / shard).is_file() for shard in set(json.loads(index.read_bytes())["weight_map"].values()))
    return (folder / "config.json").is_file() and bool(weight_files(folder))


def _download(hub: Any, hub_id: str, revision: str | None, file: str, weights: bool) -> str:
    """Fetch a snapshot. One request with a short timeout goes first, so that a machine without the hub learns it in
    seconds; the client alone would retry for minutes."""
    try:
        info = hub.HfApi().model_info(hub_id, revision=revision, timeout=5)
        names = [sibling.rfilename for sibling in info.siblings or []]
        kind = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "pytorch_model*"
        wanted = [file] if file else ["*.json", "*.jinja", *([kind] if weights else [])]
        return str(hub.snapshot_download(hub_id, revision=info.sha, allow_patterns=wanted))
    except hub.errors.GatedRepoError as error:
        raise UsageError(
            f"{hub_id}: its terms must be accepted on the hub first, and HF_TOKEN set; {INSTEAD}"
        ) from error
    except hub.errors.RevisionNotFoundError as error:
        raise UsageError(f"{hub_id}: the hub has no revision {revision!r} of it") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise UsageError(f"{hub_id}: no such folder here, and no such model on the hub (or a private one)") from error
    except Exception as error:  # DNS, connection, proxy, offline mode: each of its own class
        reason = str(error).strip().splitlines()
        why = reason[0] if reason else type(error).__name__
        raise UsageError(f"{hub_id}: no local copy, and the hub cannot be reached ({why}); {INSTEAD}") from error


def weight_files(folder: Path) -> list[Path]:
    """The weights in ``folder``: safetensors, or PyTorch's own files where there are none."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def folder_id(folder: Path) -> str:
    """12 hex digits of a folder's configuration, tokenizer, template and weights (each by ``content_id``)."""
    small = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    digest = hashlib.sha256()
    for file in [*(folder / name for name in small), *weight_files(folder)]:
        if file.is_file():
            digest.update(f"{file.name} {content_id(file)}\n".encode())
    return digest.hexdigest()[:12]


def read_config(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """The ``config.json`` of a model; UsageError, in one line, where the folder holds no model that can be run."""
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").is_file():
            raise UsageError(
                f"{folder}: a LoRA adapter, not a model: give it with its base (--model BASE --adapter {folder}), or "
                "merge it (python -m train merge)"
            )
        raise UsageError(f"{folder}: no config.json in it, so it holds no model")
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file}: not valid JSON: {error}") from error
    if weights and not weight_files(folder):
        raise UsageError(f"{folder}: no weights (*.safetensors or pytorch_model*.bin) in it")
    return config


def guess_family(folder: Path, config: dict[str, Any]) -> str:
    """The family of a model that the catalogue does not name: the one that `train` has written into its
    configuration, else what configuration and chat template look like."""
    if trained_as := config.get("koen_family"):
        return str(trained_as)
    model_type, template = str(config.get("model_type", "")), template_of(folder)
    if config.get("is_encoder_decoder"):
        return "nllb"
    if not template:
        return "completion"
    if "translation" in template and "<start_of_turn>" in template:
        return "yanolja"
    if model_type.startswith("gemma3"):
        return "gemma3"
    if model_type == "lfm2":
        return "lfm2"
    if model_type == "qwen3" and "enable_thinking" in template:
        return "qwen3"
    if model_type.startswith("hunyuan") and "<|extra_0|>" in template:
        return "hunyuan"
    return "template"


def _describe(name: str, folder: Path, revision: str, family: prompts.Family, config: dict[str, Any]) -> Model:
    text = {**config, **config.get("text_config", {})}  # models that also see pictures keep their sizes there
    layers = int(text.get("num_hidden_layers") or text.get("decoder_layers") or 0)
    hidden = int(text.get("hidden_size") or text.get("d_model") or 0)
    heads = int(text.get("num_attention_heads") or text.get("decoder_attention_heads") or 1)
    kinds = text.get("layer_types")
    weights = weight_files(folder)
    parameters, dtype = _stored(weights)
    return Model(
        name=name,
        folder=folder,
        revision=revision,
        family=family,
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        model_type=str(config.get("model_type", "")),
        is_encoder_decoder=bool(config.get("is_encoder_decoder")),
        dtype=dtype or str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        parameters=parameters or sum(file.stat().st_size for file in weights) // 4,
        layers=layers,
        attention_layers=sum("attention" in kind for kind in kinds) if kinds else layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or hidden // heads),
        context=int(text.get("max_position_embeddings") or 0),
        vocabulary=int(text.get("vocab_size") or 0),
    )


_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def _stored(weights: list[Path]) -> tuple[int, str]:
    """How many parameters the weights hold, and of which type most of them are, from the heads of the safetensors
    files; (0, "") for other files."""
    counts: dict[str, int] = {}
    for file in weights:
        if file.suffix != ".safetensors":
            return 0, ""
        for described in tensors(file).values():
            counts[described["dtype"]] = counts.get(described["dtype"], 0) + prod(described["shape"])
    most = max(counts, key=lambda kind: counts[kind], default="")
    return sum(counts.values()), _DTYPES.get(most, "")


def tensors(file: Path) -> dict[str, dict[str, Any]]:
    """The `dtype` and the `shape` of each tensor, by name, from the head of a safetensors file: a length of 8 bytes,
    little-endian, then that much JSON (https://github.com/huggingface/safetensors#format). UsageError where it is none.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            head: dict[str, dict[str, Any]] = json.loads(stream.read(length))
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise UsageError(f"{file}: cut short or no safetensors file: {error}") from error
    head.pop("__metadata__", None)
    return head
