"""The vLLM engine itself, on a small random LFM2, in its child process as in a job."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from koen_batch.engines.base import Decoding, Request
from koen_batch.engines.parity import collect
from koen_batch.engines.pool import Pool

pytestmark = [pytest.mark.real, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]

PROMPT = [10, 11, 12]


def test_refused_requests_cost_only_themselves(lfm2_in_vllm: Pool) -> None:
    refused = {
        1: Request(1, [], Decoding(4)),
        2: Request(2, [9] * 2000, Decoding(4)),
        3: Request(3, [100_000], Decoding(4)),
        4: Request(4, PROMPT, Decoding(4, repetition_penalty=-1.0)),
    }
    answers = collect(lfm2_in_vllm, [*refused.values(), Request(5, PROMPT, Decoding(4))])
    assert all(answers[number].finish_reason == "error" and answers[number].error for number in refused)
    assert (answers[5].finish_reason, len(answers[5].tokens)) == ("length", 4)


def test_stop_token_is_left_out(lfm2_in_vllm: Pool) -> None:
    free = collect(lfm2_in_vllm, [Request(0, PROMPT, Decoding(8))])[0].tokens
    assert len(free) == 8
    stopped = collect(lfm2_in_vllm, [Request(0, PROMPT, Decoding(8, stop_token_ids=(free[3],)))])[0]
    assert (stopped.finish_reason, stopped.tokens) == ("stop", free[: free.index(free[3])])


def test_loop_ends_as_repetition(lfm2_in_vllm: Pool) -> None:
    """A penalty below 1 draws tokens back until the model loops."""
    wanted = [Request(n, [20 + n, 30 + n], Decoding(200, repetition_penalty=0.2)) for n in range(8)]
    loops = [a.tokens for a in collect(lfm2_in_vllm, wanted).values() if a.finish_reason == "repetition"]
    assert loops
    for tokens in loops:
        assert any(tokens[-size * 4 :] == tokens[-size:] * 4 for size in range(4, 25))


def test_sampling_follows_its_seed(lfm2_in_vllm: Pool) -> None:
    def sample(seed: int, others: int) -> list[int]:
        crowd = [Request(100 + n, [40 + n], Decoding(12)) for n in range(others)]
        return collect(lfm2_in_vllm, [Request(0, PROMPT, Decoding(12, temperature=1.0, seed=seed)), *crowd])[0].tokens

    assert sample(1, 0) == sample(1, 5) != sample(2, 0)


def test_greater_priority_is_answered_sooner(lfm2_in_vllm: Pool) -> None:
    """16 run at once and 32 wait: the last one submitted is the first of those that waited."""
    crowd = [Request(n, [40 + n], Decoding(12)) for n in range(47)]
    answered = list(collect(lfm2_in_vllm, [*crowd, Request(47, PROMPT, Decoding(8), priority=1)]))
    assert answered.index(47) <= 16


def test_what_is_cancelled_stops_and_the_others_go_on(lfm2_in_vllm: Pool) -> None:
    """Of 20 requests 16 run and 4 wait: both kinds are cancelled."""
    alone = collect(lfm2_in_vllm, [Request(0, [20], Decoding(100))])[0]
    for number in range(20):
        lfm2_in_vllm.submit(Request(number, [20 + number], Decoding(100)))
    lfm2_in_vllm.submit(Request(20, PROMPT, Decoding(4), priority=1))
    found = {}
    while not found:
        found.update((completion.id, completion) for completion in lfm2_in_vllm.poll())
    lfm2_in_vllm.cancel([20, *range(5, 20)])  # one of them is answered, 15 run or wait
    (replica,) = lfm2_in_vllm._replicas
    while replica.in_flight:
        found.update((completion.id, completion) for completion in lfm2_in_vllm.poll())
    assert sorted(found) == [*range(5), 20]
    assert (found[20].finish_reason, len(found[20].tokens)) == ("length", 4)
    assert found[0].tokens == alone.tokens
    assert collect(lfm2_in_vllm, [Request(7, [20], Decoding(100))])[7].tokens == alone.tokens


def test_penalised_answers_are_hugging_faces(lfm2: Path, lfm2_in_vllm: Pool) -> None:
    """On a CPU the penalty is ours, not vLLM's; both engines apply it to prompt and answer alike."""
    from koen_batch.engines.huggingface import HuggingFaceEngine

    wanted = [Request(n, [20 + n, 30 + n, 40], Decoding(16, repetition_penalty=1.4)) for n in range(6)]
    plain = [Request(n, request.tokens, Decoding(16)) for n, request in enumerate(wanted)]
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    for request in wanted:
        engine.submit(request)
    expected: dict[int, list[int]] = {}
    while len(expected) < len(wanted):
        expected |= {answer.id: answer.tokens for answer in engine.poll()}
    assert {number: answer.tokens for number, answer in collect(lfm2_in_vllm, wanted).items()} == expected
    assert {number: answer.tokens for number, answer in collect(lfm2_in_vllm, plain).items()} != expected


def test_vllm_with_its_own_rotary_embedding_is_refused(lfm2: Path) -> None:
    """What would run if the adapter did not say otherwise does not get past the check after the start."""
    code = f"""
from koen_batch.engines import vllm
safe = vllm.llm_arguments
def careless(config, **how):
    arguments = safe(config, **how)
    del arguments["compilation_config"]
    return arguments
vllm.llm_arguments = careless
try:
    vllm.VllmEngine({str(lfm2)!r}, dtype="float32", max_num_seqs=2, max_model_len=256, kv_cache_gib=0.25,
                    enforce_eager=True)
except RuntimeError as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "refused: vLLM started with its wrong rotary embedding" in done.stdout, done.stderr[-2000:]
