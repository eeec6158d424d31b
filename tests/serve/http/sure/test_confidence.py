"""How sure a generator is: as the job measures it, whole and streamed, alone and in a batch, at each route."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from datasets import Dataset
from machines import CPU
from predicting import ask, ask_streamed, without_timing
from served import Served
from sure import INTERCEPT, SLOPE, with_confidence
from tiny import ROWS
from transformers import AutoTokenizer

from job.config.schema import EvaluateSection
from job.data.encode import encode
from job.evaluation.evaluate import evaluate

KNOWN, UNKNOWN = ROWS[1]["question"], "How many legs has a spider?"
LEAST = 0.8


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_confidence(published, tmp_path_factory.mktemp("sure") / "model", LEAST)


@pytest.fixture(scope="module")
def sure(folder: Path) -> Iterator[Served]:
    with Served(folder, "--dtype", "float32") as running:
        yield running


def chat(server: Served, question: str, **options: Any) -> httpx2.Response:
    body = {"messages": [{"role": "user", "content": question}], **options}
    return httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def measured(folder: Path, rows: list[dict[str, str]]) -> dict[str, float]:
    """The confidence in the model's answer to each question, from what the job measures."""
    columns = {key: [row[key] for row in rows] for key in ("question", "answer")}
    where = [str(number) for number in range(len(rows))]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    test, _ = encode(Dataset.from_dict({**columns, "where": where}), tokenizer, 64)
    _, answers = evaluate(EvaluateSection(), 0, folder, test, CPU, "tiny")
    return {one.question: 1 / (1 + math.exp(-INTERCEPT - SLOPE * math.log(one.probability or 0))) for one in answers}


def test_the_confidence_is_that_of_the_job(sure: Served, folder: Path, pool: ThreadPoolExecutor) -> None:
    rows = ROWS[:16]
    expected = measured(folder, rows)
    given = list(pool.map(lambda row: ask(sure, row["question"]), rows))
    found = {row["question"]: one["confidence"] for row, one in zip(rows, given, strict=True)}
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({one["known"] for one in given}) == 2, "some are known, some are not"


def test_the_confidence_in_the_machines_best_type_is_that_of_the_job_in_it(folder: Path) -> None:
    rows = ROWS[:16]
    expected = measured(folder, rows)
    with Served(folder) as server:
        found = {row["question"]: ask(server, row["question"])["confidence"] for row in rows}
    assert found == pytest.approx(expected, abs=0.03), (
        "bfloat16 has three digits, and here the job has computed in fp32"
    )


def test_above_the_least_confidence_there_is_an_answer(sure: Served) -> None:
    given = ask(sure, KNOWN)
    assert given["answer"] == ROWS[1]["answer"]
    assert given["known"] is True and given["confidence"] >= LEAST and given["alternatives"] == []
    deltas, done = ask_streamed(sure, KNOWN)
    assert "".join(deltas) == done["answer"] == given["answer"]
    assert without_timing(done) == without_timing(given)


def test_below_it_the_answer_is_null_and_the_text_an_alternative(sure: Served) -> None:
    before = sure.metric("kickoff_unknown_total")
    given = ask(sure, UNKNOWN)
    assert given["answer"] is None and given["known"] is False and given["confidence"] < LEAST
    ((text, confidence),) = [(one["answer"], one["confidence"]) for one in given["alternatives"]]
    assert text and confidence == given["confidence"]
    deltas, done = ask_streamed(sure, UNKNOWN)
    assert "".join(deltas) == text and without_timing(done) == without_timing(given)
    assert sure.metric("kickoff_unknown_total") == before + 2


def test_a_chat_keeps_its_text_and_says_how_sure_it_is(sure: Served) -> None:
    for question, known in ((KNOWN, True), (UNKNOWN, False)):
        predicted = ask(sure, question)
        whole = chat(sure, question).json()
        text = predicted["answer"] if known else predicted["alternatives"][0]["answer"]
        assert whole["choices"][0]["message"]["content"] == text
        for place in (whole, whole["choices"][0]):
            assert (place["known"], place["confidence"]) == (known, predicted["confidence"])
        *chunks, end = chat(sure, question, stream=True).text.removesuffix("\n\n").split("\n\n")
        events = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
        assert end == "data: [DONE]"
        assert "".join(one["choices"][0]["delta"].get("content", "") for one in events) == text
        assert [(one.get("known"), one.get("confidence")) for one in events[:-1]] == [(None, None)] * (len(events) - 1)
        assert (events[-1]["known"], events[-1]["confidence"]) == (known, predicted["confidence"])
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_each_choice_has_its_own(sure: Served) -> None:
    options = {"n": 3, "seed": 1, "temperature": 1.5}
    whole = chat(sure, UNKNOWN, **options).json()
    found = [one["confidence"] for one in whole["choices"]]
    assert len(set(found)) == 3 and whole["confidence"] == found[0]
    events = chat(sure, UNKNOWN, stream=True, **options).text.split("\n\n")
    ends = [json.loads(event.removeprefix("data: ")) for event in events if '"known"' in event]
    assert {end["choices"][0]["index"]: end["confidence"] for end in ends} == dict(enumerate(found))


@pytest.mark.parametrize("cut", [{"max_new_tokens": 2}, {"stop": "plus"}])
def test_an_answer_that_is_cut_has_the_confidence_of_what_was_generated(cut: dict[str, Any], sure: Served) -> None:
    given, whole = ask(sure, KNOWN, **cut), ask(sure, KNOWN)
    assert given["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
    assert 0 < given["confidence"] < 1
    deltas, done = ask_streamed(sure, KNOWN, **cut)
    assert without_timing(done) == without_timing(given)
    assert (
        chat(sure, KNOWN, **{name.replace("new_", ""): value for name, value in cut.items()}).json()["confidence"]
        == given["confidence"]
    )


def test_a_model_without_the_file_knows_everything_and_is_sure_of_nothing(server: Served) -> None:
    given = ask(server, UNKNOWN)
    assert given["answer"] and (given["known"], given["confidence"], given["alternatives"]) == (True, None, [])
    whole = chat(server, UNKNOWN).json()
    assert (whole["known"], whole["confidence"]) == (True, None)


def test_without_a_least_confidence_every_answer_is_given_with_its_own(
    published: Path, folder: Path, sure: Served, tmp_path: Path
) -> None:
    with Served(with_confidence(published, tmp_path / "model", None), "--dtype", "float32") as server:
        given = ask(server, UNKNOWN)
    assert given["answer"] and given["known"] is True
    assert given["confidence"] == ask(sure, UNKNOWN)["confidence"]


def test_a_model_that_is_computed_one_request_at_a_time(fetched: Path, tmp_path: Path) -> None:
    """GPT-Neo's local attention takes the slow path."""
    import torch
    from tiny import save_tiny, teach
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    from job.config.schema import ModelSection
    from job.model import base

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=400, max_position_embeddings=128, hidden_size=48, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    raw = save_tiny(tmp_path / "raw", GPTNeoForCausalLM(config))
    base.fetch(ModelSection(base=str(raw), max_length=64, max_new_tokens=12), tmp_path / "base")
    taught = teach(tmp_path / "base", tmp_path / "taught", ROWS[:8], steps=60)
    folder = with_confidence(taught, tmp_path / "model", None)
    rows = ROWS[:6]
    with Served(folder, "--dtype", "float32") as server:
        found = {row["question"]: ask(server, row["question"])["confidence"] for row in rows}
        assert "each request is computed alone" in server.output()
    assert found == pytest.approx(measured(folder, rows), abs=1e-5)
