"""Running out of memory fails the requests of that pass only, in the engine and over HTTP."""

import os
from pathlib import Path

import httpx2
import pytest
import torch
from checkout import ROOT
from no_memory import CPU, GPU, ONEDNN, PYTHON, expected, failing, run
from served import Served
from transformers import PreTrainedModel

from serve.engine.batched import BatchedPasses
from serve.engine.cache import RowCache
from serve.engine.engine import BACKOFF_STEPS, Engine
from serve.engine.model import load
from serve.engine.request import Request


@pytest.fixture(scope="module")
def model(never_ending: Path) -> PreTrainedModel:
    return load(never_ending, "cpu", "float32", threads=1)


def is_prefill(hidden: torch.Tensor) -> bool:
    return hidden.shape[1] > 1


@pytest.mark.parametrize("error", [GPU, CPU, ONEDNN, PYTHON], ids=["gpu", "cpu", "onednn", "python"])
def test_a_prefill_that_runs_out_of_memory_fails_its_requests_only(model: PreTrainedModel, error: Exception) -> None:
    running, later = Request("running", [5] * 9, 20), Request("later", [8] * 70, 5)
    engine = Engine(model)
    engine.submit(running)
    made = {"running": [token.token for token in engine.step()]}
    engine.submit(Request("big", [6] * 90, 5))
    engine.submit(Request("big too", [7] * 91, 5))
    with failing(model, error, is_prefill):
        while not (failures := engine.failures()):
            made["running"] += [token.token for token in engine.step()]
    assert {failure.id for failure in failures} == {"big", "big too"}
    for failure in failures:
        assert failure.reason.startswith("out of memory (")
        assert "\n" not in failure.reason
    engine.submit(later)
    for id, tokens in run(engine).items():
        made[id] = made.get(id, []) + tokens
    assert made == {"running": expected(model, running), "later": expected(model, later)}
    assert engine.failures() == []


def test_a_decode_that_runs_out_of_memory_spares_requests_in_prefill(model: PreTrainedModel) -> None:
    long = Request("long", [9, 8, 7] * 50, 5)
    engine = Engine(model, prefill_tokens=32)
    engine.submit(Request("a", [5], 50))
    engine.step()
    engine.submit(long)
    while engine.running == 1:
        engine.step()
    with failing(model, CPU, lambda hidden: not is_prefill(hidden)):
        while not (failures := engine.failures()):
            engine.step()
    assert [failure.id for failure in failures] == ["a"]
    assert engine.running == 1
    assert run(engine) == {"long": expected(model, long)}


def test_repeated_out_of_memory_shrinks_groups_and_ends_nothing(model: PreTrainedModel) -> None:
    engine, largest = Engine(model, max_rows=8), []

    def too_many(hidden: torch.Tensor) -> bool:
        largest.append(len(hidden))
        return len(hidden) > 2

    asked = [Request(str(index), [5 + index] * 4, 3) for index in range(40)]
    for request in asked:
        engine.submit(request)
    with failing(model, GPU, too_many):
        made = run(engine)
    failed = {failure.id for failure in engine.failures()}
    assert largest[0] == 8
    assert failed | made.keys() == {request.id for request in asked}
    assert not failed & made.keys()
    assert len(failed) <= 8 + 4
    assert made["39"] == expected(model, asked[39])
    engine.submit(Request("long", [5], 3 * BACKOFF_STEPS))
    run(engine)
    for request in asked[:8]:
        engine.submit(request)
    engine.step()
    assert engine.running == 8


def test_memory_is_free_after_a_failure(model: PreTrainedModel) -> None:
    engine = Engine(model)
    assert isinstance(engine.passes, BatchedPasses)
    engine.submit(Request("x", [5] * 3000, 5))
    with failing(model, CPU, is_prefill):
        run(engine)
    assert held(engine.passes.cache) == 0


def test_an_error_other_than_out_of_memory_is_raised(model: PreTrainedModel) -> None:
    engine = Engine(model)
    engine.submit(Request("x", [5], 5))
    with failing(model, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), is_prefill), pytest.raises(
        RuntimeError, match="mat1"
    ):  # fmt: skip
        engine.step()


def held(cache: RowCache) -> int:
    return sum(tensor.numel() * tensor.element_size() for layer in cache.rows for tensor in layer.held)


def test_the_cache_stays_within_its_bytes(model: PreTrainedModel) -> None:
    torch.manual_seed(0)
    engine = Engine(model, cache_bytes=Engine(model).passes.bytes_per_token * 4000, prefill_tokens=64)
    assert isinstance(engine.passes, BatchedPasses)
    most = 0
    lengths = [1, 3, 700, 40, 1200, 2, 64, 65, 300]
    for index in range(30):
        engine.submit(Request(str(index), [5] * lengths[index % len(lengths)], [2, 30, 90][index % 3]))
    while not engine.idle:
        engine.step()
        most = max(most, held(engine.passes.cache))
    assert engine.failures() == []
    assert 0 < most <= engine.passes.bytes_per_token * 4000


def test_over_http_out_of_memory_is_a_503_and_others_are_answered(published: Path, tmp_path: Path) -> None:
    """The engine's process gets a torch whose embeddings hold as many tokens as a file says."""
    room = tmp_path / "room"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, torch\n"
        "plain = torch.nn.Embedding.forward\n"
        "def forward(self, ids):\n"
        f"    if ids.shape[-1] > (int(open({str(room)!r}).read()) if os.path.exists({str(room)!r}) else 10**6):\n"
        "        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')\n"
        "    return plain(self, ids)\n"
        "torch.nn.Embedding.forward = forward\n"
    )
    with Served(published, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])) as served:

        def ask(question: str, **options: object) -> httpx2.Response:
            body = {"question": question, "max_new_tokens": 12, **options}
            return httpx2.post(f"{served.url}/predict", json=body, timeout=30)

        short, long = "x", "What is 3 plus 3? " * 12
        before, engine = [ask(one).json()["answer"] for one in (short, long)], served.children()["engine"].pid
        room.write_text("24")
        for _ in range(5):
            answer = ask(long)
            assert answer.status_code == ask(long, stream=True).status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "engine_failed"
            assert "out of memory" in answer.json()["error"]["message"]
            assert ask(short).json()["answer"] == before[0]
        room.write_text("32")  # what the smallest piece of a prompt needs
        assert ask(long).json()["answer"] == before[1]
        assert served.children()["engine"].pid == engine
        assert served.metric("kickoff_running") == 0
