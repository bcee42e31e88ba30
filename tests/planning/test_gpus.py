"""The roofline, by the arithmetic that the project's design was made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from koen_batch import prompts
from koen_batch.models import Model
from koen_batch.planning import gpus

LFM2 = Model(
    name="lfm2", folder=Path("lfm2"), revision="", family=prompts.family("koen"), architecture="Lfm2ForCausalLM",
    model_type="lfm2", is_encoder_decoder=False, dtype="bfloat16", parameters=1_170_000_000, layers=16,
    attention_layers=6, hidden=2048, heads=32, kv_heads=8, head_dim=64, context=128_000, vocabulary=65_536,
)  # fmt: skip
BY_NAME = {gpu.name: gpu for gpu in gpus.KNOWN}


def test_a_sentence_costs_what_was_reckoned_by_hand() -> None:
    """53 prompt and 35 output tokens: 191.8 GFLOP; at most 339 sentences/s on a T4 and 5,158 on an H200."""
    cost = gpus.flops(LFM2, 53, 35, 1)
    assert cost / 1e9 == pytest.approx(191.8, abs=0.2)
    for name, most in (("T4", 339), ("H200 SXM", 5158)):
        found = gpus.roofline(LFM2, BY_NAME[name], 53e6, 35e6, 1e6)
        assert not isinstance(found, str)
        assert 1e6 / found[0].compute == pytest.approx(most, rel=0.002)


def test_memory_traffic_is_the_weights_shared_by_a_batch_and_each_ones_cache() -> None:
    moved = gpus.traffic(LFM2, 53, 35, 1, sequences=256, item=2)
    assert moved == pytest.approx(35 * (2.34e9 / 256 + 70.5 * 12_288))
    found = gpus.roofline(LFM2, BY_NAME["T4"], 53, 35, 1)
    assert not isinstance(found, str)
    assert found[0].memory == pytest.approx(moved / 320e9)
    assert found[1] == "float16"


def test_a_model_that_overflows_in_float16_is_float32_on_a_t4() -> None:
    found = gpus.roofline(replace(LFM2, model_type="gemma3_text"), BY_NAME["T4"], 53, 35, 1)
    assert not isinstance(found, str)
    assert found[1] == "float32"


def test_a_model_too_large_does_not_fit() -> None:
    large = replace(LFM2, parameters=30_000_000_000)
    assert gpus.roofline(large, BY_NAME["L4"], 53, 35, 1) == "does not fit"
    assert not isinstance(gpus.roofline(large, BY_NAME["H200 SXM"], 53, 35, 1), str)


def test_more_work_takes_longer_on_every_gpu() -> None:
    for gpu in gpus.KNOWN:
        once, twice = (gpus.roofline(LFM2, gpu, 53e3 * n, 35e3 * n, 1e3 * n) for n in (1, 2))
        assert not isinstance(once, str)
        assert not isinstance(twice, str)
        assert twice[0].seconds == pytest.approx(2 * once[0].seconds)
