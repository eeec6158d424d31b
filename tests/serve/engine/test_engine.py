"""The engine against transformers' own generate, in every company, and with all that can be asked of it."""

import random
from pathlib import Path

import pytest
import torch
from generated import EOS, answers, generate, ids, requests, run
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from serve.engine import attention
from serve.engine.engine import Engine
from serve.engine.model import load
from serve.engine.request import Request, Token


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped key-value heads and rotary positions."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400, max_position_embeddings=256, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def llama(llama_folder: Path) -> PreTrainedModel:
    return load(llama_folder, "cpu", "auto", threads=1)


@pytest.fixture(scope="module")
def exact_llama(llama_folder: Path) -> PreTrainedModel:
    return load(llama_folder, "cpu", "float32", threads=1)


def test_greedy_answers_equal_those_of_generate(never_ending: Path) -> None:
    exact = load(never_ending, "cpu", "float32", threads=1)
    asked = requests(12)
    engine = Engine(exact, max_rows=5)
    for one in asked:
        engine.submit(one)
    made = run(engine)
    for one in asked:
        assert ids(made[one.id]) == generate(exact, one)


def test_llama_answers_equal_those_of_generate(llama: PreTrainedModel) -> None:
    asked = requests(8, seed=3)
    engine = Engine(llama)
    for one in asked:
        engine.submit(one)
    made = run(engine)
    alone = Engine(llama, max_rows=1)
    for one in asked:
        alone.submit(one)
        assert ids(made[one.id]) == ids(run(alone)[one.id])


def test_an_answer_does_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    asked = requests(20, seed=1)
    alone = Engine(model, max_rows=1)
    for one in asked:
        alone.submit(one)
    expected = {id: ids(tokens) for id, tokens in run(alone).items()}
    together = Engine(model, max_rows=7)
    draw, made = random.Random(2), dict[str, list[int]]()
    waiting = list(asked)
    while waiting or not together.idle:
        for _ in range(draw.randrange(3)):
            if waiting:
                together.submit(waiting.pop())
        for token in together.step():
            made.setdefault(token.id, []).append(token.token)
    assert [id for id in expected if expected[id] != made[id]] == []


def test_sampling_with_a_seed_does_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    one = Request("x", [5, 6, 7], 30, temperature=1.0, top_p=0.9, top_k=50, seed=7)
    engine = Engine(model)
    engine.submit(one)
    alone = ids(run(engine)["x"])
    for other in requests(6):
        engine.submit(other)
    engine.submit(one)
    assert ids(run(engine)["x"]) == alone
    engine.submit(Request("y", [5, 6, 7], 30, temperature=1.0, top_p=0.9, top_k=50, seed=8))
    assert ids(run(engine)["y"]) != alone


def test_a_short_request_may_join_an_answer_that_has_grown_long(model: PreTrainedModel) -> None:
    long, short = Request("long", [5, 6, 7], 200), Request("short", [8, 9], 4)
    alone = Engine(model)
    alone.submit(long)
    expected = ids(run(alone)["long"])
    engine = Engine(model)
    engine.submit(long)
    grown = [engine.step() for _ in range(150)]
    engine.submit(short)
    rest = run(engine)
    assert ids([token for step in grown for token in step] + rest["long"]) == expected
    assert len(rest["short"]) == 4


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_come_and_go_at_any_time_are_answered_as_alone(exact_llama: PreTrainedModel, seed: int) -> None:
    draw = random.Random(seed)
    waiting, gone, made = requests(8, seed), set(), dict[str, list[Token]]()
    expected = {}
    for request in waiting:
        alone = Engine(exact_llama)
        alone.submit(request)
        expected[request.id] = ids(run(alone)[request.id])
    engine = Engine(exact_llama, max_rows=draw.choice([2, 5, 32]), prefill_tokens=draw.choice([64, 128]))
    while waiting or not engine.idle:
        if waiting and (engine.idle or draw.random() < 0.05):
            engine.submit(waiting.pop())
        elif made and draw.random() < 0.005:
            left = draw.choice(sorted(made))
            engine.cancel(left)
            gone.add(left)
        for token in engine.step():
            made.setdefault(token.id, []).append(token)
    assert {id: ids(tokens) for id, tokens in made.items() if id not in gone} == {
        id: answer for id, answer in expected.items() if id not in gone
    }


def test_an_answer_ends_at_the_end_of_text(published: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(published)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 plus 3?"}], add_generation_prompt=True, tokenize=False
    )
    engine = Engine(load(published, "cpu", "auto", threads=1))
    engine.submit(Request("x", tokenizer(text)["input_ids"], 30))
    tokens = run(engine)["x"]
    assert tokens[-1].token == EOS
    assert [token.finish for token in tokens] == [None] * (len(tokens) - 1) + ["stop"]
    assert tokenizer.decode(ids(tokens), skip_special_tokens=True) == "3 plus 3 is 6."


def test_a_cancelled_request_is_gone_at_the_next_step(model: PreTrainedModel) -> None:
    engine = Engine(model, max_rows=2)
    for one in requests(4, seed=5):
        engine.submit(Request(one.id, one.prompt, 50))
    engine.step()
    assert (engine.running, engine.waiting) == (2, 2)
    engine.cancel("r0")
    engine.cancel("r3")
    assert (engine.running, engine.waiting) == (1, 1)
    made = run(engine)
    assert set(made) == {"r1", "r2"}
    assert [len(made["r2"])] == [50]
    engine.cancel("nobody")


def test_a_request_whose_logits_are_no_numbers_fails_and_leaves_nothing_behind(never_ending: Path) -> None:
    """Also not in its row of the cache, where zero times what is not a number would reach who comes next."""
    model = load(never_ending, "cpu", "float32", threads=1)
    model.get_input_embeddings().weight.data[300] = float("nan")
    engine, good = Engine(model, max_rows=2), Request("good", [5, 6, 7], 30)
    engine.submit(good)
    engine.submit(Request("bad", [5] * 40 + [300] + [6] * 20, 30))
    made = run(engine)
    assert made.keys() == {"good"}
    (failure,) = engine.failures()
    assert failure.id == "bad"
    assert "NaN or infinite" in failure.reason
    for index in range(4):
        engine.submit(Request(str(index), [5, 6, 7], 30))
    made |= run(engine)
    assert engine.failures() == []
    assert len({tuple(ids(tokens)) for tokens in made.values()}) == 1


def test_on_a_gpu_answers_equal_those_of_generate(
    exact_llama: PreTrainedModel, never_ending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way that a GPU takes, computed on this CPU."""
    monkeypatch.setattr(attention, "_row_by_row", lambda query: False)
    for exact in (exact_llama, load(never_ending, "cpu", "float32", threads=1)):
        engine = Engine(exact, prefill_tokens=48)
        asked = [one for one in requests(10, seed=4) if len(one.prompt) + one.max_new_tokens <= 256]
        assert answers(engine, asked) == {one.id: generate(exact, one) for one in asked}


def test_memory_bounds_how_many_run(model: PreTrainedModel) -> None:
    per_token = Engine(model).passes.bytes_per_token
    engine = Engine(model, cache_bytes=2 * per_token * 600)
    for index in range(4):
        engine.submit(Request(str(index), [5] * 100, 100))
    engine.step()
    assert (engine.running, engine.waiting) == (2, 2)
    assert {id: len(tokens) for id, tokens in run(engine).items()}.keys() == {"0", "1", "2", "3"}


def test_the_largest_accepted_request_can_run(model: PreTrainedModel) -> None:
    per_token = Engine(model).passes.bytes_per_token
    engine = Engine(model, cache_bytes=2 * per_token * 300)
    assert engine.limits.context < 4096
    engine.submit(Request("x", [5] * (engine.limits.context - 1), 1))
    assert len(run(engine)["x"]) == 1


@pytest.mark.parametrize(
    "request_",
    [
        Request("x", [], 5),
        Request("x", [5], 0),
        Request("x", [5] * 4000, 200),
        Request("x", [400], 5),
        Request("x", [-1], 5),
    ],
    ids=["empty", "nothing wanted", "too long", "unknown id", "negative id"],
)
def test_a_request_that_would_break_a_step_is_refused(model: PreTrainedModel, request_: Request) -> None:
    engine = Engine(model)
    with pytest.raises(ValueError, match="expected|outside"):
        engine.submit(request_)
    engine.submit(Request("y", [5], 3))
    assert len(run(engine)["y"]) == 3


def test_published_penalties_are_applied(never_ending: Path) -> None:
    model = load(never_ending, "cpu", "float32", threads=1)
    one = Request("x", [5, 6, 7], 20)
    plain = Engine(model)
    plain.submit(one)
    before = ids(run(plain)["x"])
    model.generation_config.repetition_penalty = 1.5
    engine = Engine(model)
    engine.submit(one)
    after = ids(run(engine)["x"])
    assert after == generate(model, one)
    assert after != before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(never_ending: Path) -> None:
    with pytest.raises(ValueError, match="found cuda:0, and torch .* can use no GPU here; give the container one"):
        load(never_ending, "cuda:0", "auto")
