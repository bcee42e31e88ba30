"""The Hugging Face engine on tiny models of real architectures, made here with random weights."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from koen_batch.engines.base import Completion, Decoding, Request
from koen_batch.engines.huggingface import HuggingFaceEngine, batches, cost, is_out_of_memory

VOCABULARY = 96
GREEDY = Decoding(max_new_tokens=12)


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short-convolution hybrid, whose left padding must not leak into the answer."""
    import torch
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(3)
    config = Lfm2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        max_position_embeddings=64,
        initializer_range=0.5,
        eos_token_id=7,
    )
    folder = tmp_path_factory.mktemp("lfm2")
    Lfm2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NLLB's architecture."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(3)
    config = M2M100Config(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.5,
        decoder_start_token_id=2,
    )
    folder = tmp_path_factory.mktemp("nllb")
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def requests(count: int, **decoding: object) -> list[Request]:
    rng = random.Random(5)
    return [
        Request(
            number,
            [rng.randrange(8, VOCABULARY) for _ in range(rng.randint(1, 20))],
            Decoding(**{"max_new_tokens": rng.randint(3, 14), "seed": number, **decoding}),  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


def run(engine: HuggingFaceEngine, wanted: list[Request]) -> dict[int, Completion]:
    for request in wanted:
        engine.submit(request)
    done: list[Completion] = []
    while len(done) < len(wanted):
        done += engine.poll()
    assert len(done) == len(wanted)
    return {completion.id: completion for completion in done}


def one_by_one(engine: HuggingFaceEngine, wanted: list[Request]) -> dict[int, Completion]:
    return {request.id: run(engine, [request])[request.id] for request in wanted}


def assert_same(left: dict[int, Completion], right: dict[int, Completion]) -> None:
    for number, completion in left.items():
        other = right[number]
        assert (completion.tokens, completion.finish_reason) == (other.tokens, other.finish_reason)
        assert completion.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"repetition_penalty": 1.5},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 1.3, "repetition_penalty": 1.2},
    ],
    ids=["greedy", "penalty", "nucleus", "sampled"],
)
def test_a_batch_answers_as_each_row_alone(lfm2: Path, decoding: dict[str, object]) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    wanted = requests(12, **decoding)
    alone = one_by_one(engine, wanted)
    assert_same(alone, run(engine, wanted))
    assert len({tuple(completion.tokens) for completion in alone.values()}) > 6, "a degenerate model proves nothing"


def test_requests_of_any_settings_share_a_batch(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    kinds = [{}, {"repetition_penalty": 1.4}, {"temperature": 1.0}, {"stop_token_ids": (9, 11, 13)}]
    wanted = [requests(8, **kind)[number] for number, kind in enumerate(kinds * 2)]
    assert_same(one_by_one(engine, wanted), run(engine, wanted))


def test_what_is_cancelled_is_not_computed_and_the_others_are(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32", batch_tokens=64)
    wanted = requests(12)
    alone = one_by_one(engine, wanted)
    for request in wanted:
        engine.submit(request)
    engine.cancel([0, 1])
    done = [completion for _ in range(2) for completion in engine.poll()]  # cut into batches by now
    unbegun = [request.id for request in wanted if request.id not in {completion.id for completion in done}]
    engine.cancel([*unbegun[1:4], *range(12)[:2], 99])
    while len(done) < len(wanted):
        done += engine.poll()
    found = {completion.id: completion for completion in done}
    assert len(found) == len(done) == len(wanted)
    assert {number for number in found if found[number].error} == {0, 1, *unbegun[1:4]}
    kept = {number: completion for number, completion in found.items() if not completion.error}
    assert_same(kept, {number: alone[number] for number in kept})


def test_encoder_decoder_batch_with_forced_first_token(nllb: Path) -> None:
    engine = HuggingFaceEngine(str(nllb), dtype="float32")
    korean, english = requests(6, forced_first_token=20), requests(12, forced_first_token=21)[6:]
    alone = one_by_one(engine, [*korean, *english])
    assert_same(alone, run(engine, [*korean, *english]))
    other = one_by_one(engine, requests(6, forced_first_token=21))
    assert any(alone[number].tokens != other[number].tokens for number in other)


def test_forced_first_token_is_what_generate_calls_forced_bos(nllb: Path) -> None:
    import torch
    from transformers import M2M100ForConditionalGeneration

    request = requests(1, forced_first_token=20, max_new_tokens=8)[0]
    answer = run(HuggingFaceEngine(str(nllb), dtype="float32"), [request])[0]
    model = M2M100ForConditionalGeneration.from_pretrained(nllb)
    ids = model.generate(torch.tensor([request.tokens]), forced_bos_token_id=20, max_new_tokens=9, num_beams=1)
    assert ids[0, 1] == 20
    assert answer.tokens == ids[0, 2 : 2 + len(answer.tokens)].tolist()


def test_logprob_is_the_mean_over_the_generated_tokens(lfm2: Path) -> None:
    import torch
    from transformers import Lfm2ForCausalLM

    request = requests(1)[0]
    answer = run(HuggingFaceEngine(str(lfm2), dtype="float32"), [request])[0]
    end = [7] if answer.finish_reason == "stop" else []
    generated = [*answer.tokens, *end]
    with torch.inference_mode():
        logits = Lfm2ForCausalLM.from_pretrained(lfm2)(torch.tensor([[*request.tokens, *generated]])).logits[0]
    scores = logits.log_softmax(-1)[len(request.tokens) - 1 : -1]
    assert answer.logprob == pytest.approx(scores.gather(1, torch.tensor(generated)[:, None]).mean().item(), abs=1e-4)


def test_stop_token_is_left_out_and_the_budget_kept(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    free = run(engine, [Request(0, [10, 11], Decoding(max_new_tokens=6))])[0]
    assert (free.finish_reason, len(free.tokens)) == ("length", 6)
    last = free.tokens[3]
    first = free.tokens.index(last)
    stopped = run(engine, [Request(0, [10, 11], Decoding(max_new_tokens=6, stop_token_ids=(last,)))])[0]
    assert (stopped.finish_reason, stopped.tokens) == ("stop", free.tokens[:first])


def test_models_own_end_token_stops(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    answers = run(engine, requests(40, temperature=2.0, max_new_tokens=40))
    stopped = [answer for answer in answers.values() if answer.finish_reason == "stop"]
    assert stopped
    assert all(7 not in answer.tokens for answer in answers.values())


def test_loop_ends_as_repetition(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    answers = run(engine, requests(24, max_new_tokens=40, repetition_penalty=0.3))  # below 1 it draws tokens back
    loops = [answer.tokens for answer in answers.values() if answer.finish_reason == "repetition"]
    assert loops
    for tokens in loops:
        assert any(tokens[-size * 4 :] == tokens[-size:] * 4 for size in range(4, 25))
        assert not any(tokens[-size * 4 - 1 : -1] == tokens[-size - 1 : -1] * 4 for size in range(4, 25))


@pytest.mark.parametrize("tokens", [[], [VOCABULARY], [-1], [9] * 64], ids=["empty", "unknown", "negative", "long"])
def test_impossible_request_fails_alone(lfm2: Path, tokens: list[int]) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    answers = run(engine, [Request(0, tokens, GREEDY), Request(1, [9, 10], GREEDY)])
    assert (answers[0].finish_reason, answers[1].finish_reason) == ("error", "length")
    assert answers[0].error


def test_budget_ends_where_the_model_does(lfm2: Path) -> None:
    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    answer = run(engine, [Request(0, list(range(8, 68)), Decoding(max_new_tokens=40))])[0]
    assert (answer.finish_reason, len(answer.tokens)) == ("length", 4)


def test_out_of_memory_halves_retries_and_remembers(lfm2: Path) -> None:
    """A hook stands for the memory that this machine has too much of: more than 4 rows raise torch's own error."""
    import torch

    engine = HuggingFaceEngine(str(lfm2), dtype="float32", batch_tokens=400)
    wanted = [Request(number, [10 + number] * 8, Decoding(max_new_tokens=12)) for number in range(20)]
    expected = one_by_one(engine, wanted)
    sizes: list[int] = []

    def full(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        sizes.append(inputs["input_ids"].shape[0])
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    engine._model.register_forward_pre_hook(full, with_kwargs=True)
    assert_same(expected, run(engine, wanted))
    assert [size for size in dict.fromkeys(sizes) if size > 4] == [20, 10, 5]
    sizes.clear()
    assert_same(expected, run(engine, wanted))
    assert max(sizes) <= 4, "the size that fitted is remembered"


def test_row_that_does_not_fit_alone_fails_alone(lfm2: Path) -> None:
    import torch

    engine = HuggingFaceEngine(str(lfm2), dtype="float32")

    def full(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs["input_ids"].shape[1] > 20:
            raise MemoryError

    engine._model.register_forward_pre_hook(full, with_kwargs=True)
    answers = run(engine, [Request(0, [9] * 30, GREEDY), Request(1, [9] * 5, GREEDY), Request(2, [8] * 5, GREEDY)])
    assert [answers[number].finish_reason == "error" for number in range(3)] == [True, False, False]


def test_torchs_own_allocation_failure_is_recognised() -> None:
    import torch

    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_batches_keep_every_request_within_the_budget() -> None:
    window = [*requests(50), *requests(20, forced_first_token=3)]
    cut = batches(window, 120)
    assert sorted(id(request) for batch in cut for request in batch) == sorted(map(id, window))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * max(map(cost, batch)) <= 120
        assert len({request.decoding.forced_first_token for request in batch}) == 1
    assert len(cut) < len(window) / 2


def test_model_that_computes_nan_is_not_believed(lfm2: Path) -> None:
    import torch

    engine = HuggingFaceEngine(str(lfm2), dtype="float32")
    with torch.no_grad():
        engine._model.model.layers[1].feed_forward.w2.weight[0, 0] = torch.nan
    engine.submit(requests(1)[0])
    with pytest.raises(RuntimeError, match="NaN"):
        engine.poll()
