"""The slow path out of memory, and rows that are half moved: who fails, and who goes on."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from no_memory import CPU, GPU, PYTHON, expected, failing, run
from transformers import GPT2LMHeadModel, PreTrainedModel

from serve.engine import sampling
from serve.engine.engine import Engine
from serve.engine.memory import is_out_of_memory
from serve.engine.model import load
from serve.engine.request import Request
from serve.engine.single import SinglePasses
from serve.engine.warmup import warm_up

CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
ERRORS = pytest.mark.parametrize("error", [GPU, CPU, PYTHON, CUBLAS], ids=["gpu", "cpu", "python", "cublas"])


@pytest.fixture
def slow(never_ending: Path) -> PreTrainedModel:
    """A model on the slow path, as one whose attention is its own."""
    model = GPT2LMHeadModel.from_pretrained(never_ending, dtype=torch.float32).eval()
    assert isinstance(Engine(model).passes, SinglePasses)
    return model


@pytest.fixture
def fast(never_ending: Path) -> PreTrainedModel:
    return load(never_ending, "cpu", "float32", threads=1)


def start(engine: Engine, *asked: Request, made: dict[str, list[int]] | None = None) -> dict[str, list[int]]:
    """Each of them has its first token; `made` has what came before."""
    made = {} if made is None else made
    for request in asked:
        engine.submit(request)
    while not {request.id for request in asked} <= made.keys():
        for token in engine.step():
            made.setdefault(token.id, []).append(token.token)
    return made


def finish(engine: Engine, made: dict[str, list[int]]) -> dict[str, list[int]]:
    for id, tokens in run(engine).items():
        made[id] = made.get(id, []) + tokens
    return made


def other(index: int) -> Request:
    return Request(f"other {index}", [5 + index, 6] * 5, 30, temperature=1.0, seed=index)


@ERRORS
@pytest.mark.parametrize("in_", ["prefill", "decode"])
def test_on_the_slow_path_it_fails_that_request_only(slow: PreTrainedModel, error: Exception, in_: str) -> None:
    others = [other(index) for index in range(3)]
    engine = Engine(slow)
    made = start(engine, *others[:2])
    length = 90 if in_ == "prefill" else 1
    if in_ == "decode":
        start(engine, Request("big", [7] * 90, 9), made=made)
    else:
        engine.submit(Request("big", [7] * 90, 9))
    engine.submit(others[2])

    def is_big(hidden: torch.Tensor) -> bool:
        computing = [row for row in engine._rows if row.turn == engine.steps]
        return hidden.shape[1] == length and (in_ == "prefill" or computing[0].request.id == "big")

    with failing(slow, error, is_big):
        while not (failures := engine.failures()):
            for token in engine.step():
                made.setdefault(token.id, []).append(token.token)
    assert [failure.id for failure in failures] == ["big"]
    assert failures[0].reason.startswith("out of memory (")
    made.pop("big", None)
    assert finish(engine, made) == {request.id: expected(slow, request) for request in others}
    assert engine.failures() == []


@ERRORS
def test_on_the_slow_path_the_engine_survives_twenty_failures(slow: PreTrainedModel, error: Exception) -> None:
    engine, long = Engine(slow), Request("long", [5, 6, 7], 200, temperature=1.0, seed=3)
    made = start(engine, long)
    with failing(slow, error, lambda hidden: hidden.shape[1] > 1):
        for index in range(20):
            engine.submit(Request(str(index), [7] * 40, 5, temperature=index % 2))
            while not (failures := engine.failures()):
                for token in engine.step():
                    made[token.id].append(token.token)
            assert [failure.id for failure in failures] == [str(index)]
    assert finish(engine, made) == {"long": expected(slow, long)}
    engine.submit(other(1))
    assert run(engine) == {"other 1": expected(slow, other(1))}


def test_on_the_slow_path_a_step_is_one_pass_and_all_take_turns(slow: PreTrainedModel) -> None:
    """Else a step of many slow passes would count as a hung engine."""
    engine, passes = Engine(slow), []
    hook = slow.register_forward_hook(lambda *_: passes.append(1))
    start(engine, *[other(index) for index in range(4)])
    order = []
    while not engine.idle:
        before = len(passes)
        order += [token.id for token in engine.step()]
        assert len(passes) == before + 1
    hook.remove()
    assert [order[at : at + 4] for at in range(0, 40, 4)] == [order[:4]] * 10
    assert len(set(order[:4])) == 4


@ERRORS
@pytest.mark.parametrize("path", ["fast", "slow"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampling_that_runs_out_of_memory_fails_its_group(
    request: pytest.FixtureRequest, path: str, error: Exception, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = request.getfixturevalue(path)
    engine = Engine(model, prefill_tokens=32)
    start(engine, Request("a", [5], 50, temperature=temperature, seed=1))
    long = Request("long", [9, 8, 7] * 50, 5, temperature=temperature, seed=1)
    engine.submit(long)
    while engine.running == 1:
        engine.step()

    def run_out(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Penalties, "apply", run_out)
        while not (failures := engine.failures()):
            engine.step()
    assert [failure.id for failure in failures] == ["a"]
    assert run(engine) == {"long": expected(model, long)}


@ERRORS
@pytest.mark.parametrize("path", ["fast", "slow"])
def test_a_warm_up_that_runs_out_of_memory_is_a_refusal(
    request: pytest.FixtureRequest, path: str, error: Exception
) -> None:
    model = request.getfixturevalue(path)
    with failing(model, error, lambda hidden: hidden.shape[1] > 1), pytest.raises(ValueError, match="out of memory"):
        warm_up(Engine(model), 30)


@ERRORS
@pytest.mark.parametrize("calls", [1, 2, 5])
@pytest.mark.parametrize("by", ["end", "cancel"])
def test_rows_that_are_half_moved_are_not_answered_from(
    fast: PreTrainedModel, error: Exception, calls: int, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moving rows needs memory too. Where it ends in the middle, some layers have moved and others have not."""
    engine = Engine(fast)
    start(engine, Request("short", [5] * 9, 3), *[other(index) for index in range(3)])
    clone, count = torch.Tensor.clone, [0]

    def run_out(tensor: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
        count[0] += tensor.dim() == 3  # a row of one layer
        if count[0] >= calls and tensor.dim() == 3:
            raise error
        return clone(tensor, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "clone", run_out)
        if by == "cancel":
            engine.cancel("short")
        while not (failures := engine.failures()):
            engine.step()
    assert {failure.id for failure in failures} >= {f"other {index}" for index in range(3)}
    assert engine.idle
    for index in range(3):
        engine.submit(other(index))
    assert run(engine) == {f"other {index}": expected(fast, other(index)) for index in range(3)}


def test_a_request_whose_rows_were_half_moved_fails_as_well(
    fast: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no part in the pass that ran out of memory, but some of its layers lie elsewhere than the others."""
    engine = Engine(fast, prefill_tokens=32)
    long = Request("long", [9, 8, 7] * 50, 20, temperature=1.0, seed=1)
    engine.submit(long)
    engine.step()
    engine.submit(Request("short", [5, 6] * 16, 20))
    clone, count = torch.Tensor.clone, [0]

    def run_out_once(tensor: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
        count[0] += tensor.dim() == 3
        if count[0] == 21 and tensor.dim() == 3:
            raise GPU
        return clone(tensor, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "clone", run_out_once)
        while count[0] < 21:
            assert engine.step() == []
    assert {failure.id for failure in engine.failures()} == {"long", "short"}
    engine.submit(long)
    assert run(engine) == {"long": expected(fast, long)}


def test_a_request_began_with_its_first_piece(fast: PreTrainedModel) -> None:
    """And not with the pass that made its first token."""
    engine = Engine(fast, prefill_tokens=32)
    engine.submit(Request("long", [7] * 100, 2))
    before = time.monotonic()
    engine.step()
    after = time.monotonic()
    tokens = [token for _ in range(4) for token in engine.step()]
    assert len(tokens) == 2
    assert all(before <= token.began <= after for token in tokens)


@pytest.mark.parametrize(("slow_by", "hang_seconds", "tokens"), [(0.0, 30, 512), (0.05, 4, 128), (0.05, 0.1, 32)])
def test_a_piece_of_a_prompt_takes_little_of_the_silence_that_ends_an_engine(
    fast: PreTrainedModel, caplog: pytest.LogCaptureFixture, slow_by: float, hang_seconds: float, tokens: int
) -> None:
    def wait(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        time.sleep(slow_by * arguments[0].shape[1] / 32)

    hook = fast.transformer.h[0].register_forward_pre_hook(wait)
    engine = Engine(fast)
    warm_up(engine, hang_seconds)
    hook.remove()
    assert engine.prefill_tokens == tokens
    assert ("raise --hang-seconds" in caplog.text) == (hang_seconds == 0.1)


def test_out_of_memory_messages_of_libraries_are_recognized() -> None:
    memory, kernel = (RuntimeError(f"could not create a {what}") for what in ("memory object", "primitive"))
    for error in (GPU, CPU, PYTHON, CUBLAS, RuntimeError("std::bad_alloc"), memory, kernel):
        assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("path", ["fast", "slow"])
@pytest.mark.parametrize(("ends", "refused"), [(400, True), ([5000, 400], True), ([5000, 0], False), (399, False)])
def test_a_model_whose_end_token_is_outside_its_vocabulary_is_refused(
    request: pytest.FixtureRequest, path: str, ends: int | list[int], refused: bool
) -> None:
    """Its answers would go on to the end of the context, each time."""
    model = request.getfixturevalue(path)
    model.generation_config.eos_token_id = ends
    if refused:
        with pytest.raises(ValueError, match="found the end-of-sequence token 400, expected one below 400"):
            warm_up(Engine(model), 30)
    else:
        warm_up(Engine(model), 30)
