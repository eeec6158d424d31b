"""Streams that have to wait: for a place, for a long prompt, in the middle. They stay alive, and they end honestly."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from served import Served
from tiny import endless

QUESTION = "What is 1 plus 1?"
CHAT: Any = [{"role": "user", "content": QUESTION}]
SECONDS = 60
COMMENT = ": waiting"
BODIES: dict[str, dict[str, Any]] = {
    "/predict": {"question": QUESTION, "stream": True, "max_new_tokens": 3},
    "/v1/chat/completions": {"messages": CHAT, "stream": True, "max_tokens": 3},
}


@pytest.fixture(scope="module")
def folder(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers take a minute."""
    return endless(fetched, tmp_path_factory.mktemp("slow") / "tiny", context=16384)


@pytest.fixture(scope="module")
def narrow(folder: Path) -> Iterator[Served]:
    """A server that computes one request at a time."""
    with Served(folder, "--max-running", "1", "--max-waiting", "3") as running:
        yield running


def inside(server: Served) -> tuple[float, float]:
    return server.metric("kickoff_running"), server.metric("kickoff_waiting")


def until_inside(server: Served, expected: tuple[int, int]) -> None:
    give_up = time.monotonic() + SECONDS
    while inside(server) != expected:
        assert time.monotonic() < give_up, inside(server)
        time.sleep(0.05)


@contextmanager
def busy(server: Served) -> Iterator[tuple[httpx2.Response, Iterator[str]]]:
    """The one place is taken for as long as this holds, or until the response is closed."""
    body = {"question": "Go on.", "stream": True}
    with httpx2.stream("POST", f"{server.url}/predict", json=body, timeout=SECONDS) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: delta"
        yield response, lines
    until_inside(server, (0, 0))


def data(lines: Iterator[str] | list[str]) -> list[Any]:
    texts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@pytest.mark.parametrize("path", BODIES)
def test_a_stream_that_waits_has_its_headers_and_comments_until_its_first_token(narrow: Served, path: str) -> None:
    with (
        busy(narrow) as (other, _),
        httpx2.stream("POST", narrow.url + path, json=BODIES[path], timeout=SECONDS) as waiting,
    ):
        assert waiting.status_code == 200
        assert waiting.headers["content-type"].startswith("text/event-stream")
        lines = waiting.iter_lines()
        assert [next(lines) for _ in range(4)] == [COMMENT, "", COMMENT, ""]
        assert inside(narrow) == (1, 1)
        other.close()
        rest = list(lines)
    assert COMMENT not in rest, "it has begun"
    *_, last = [event for event in data(rest) if event != "[DONE]"]
    assert (last["choices"][0] if "choices" in last else last)["finish_reason"] == "length"


@pytest.mark.parametrize("n", [1, 2])
def test_openais_client_reads_a_stream_that_has_waited(narrow: Served, n: int) -> None:
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    (model,) = client.models.list()
    sampled: Any = {"model": model.id, "messages": CHAT, "max_tokens": 5, "temperature": 1.0, "seed": 3, "n": n}
    expected = [choice.message.content for choice in client.chat.completions.create(**sampled).choices]
    with busy(narrow) as (other, _):
        stream = client.chat.completions.create(
            stream=True, **sampled
        )  # it gives the stream when the headers are there
        assert inside(narrow) == (1, n)
        other.close()
        texts, reasons = [""] * n, [""] * n
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] += choice.finish_reason or ""
    assert (texts, reasons) == (expected, ["length"] * n)


@pytest.mark.parametrize("path", BODIES)
def test_a_time_limit_that_is_over_in_the_queue_is_an_error_and_no_empty_answer(narrow: Served, path: str) -> None:
    with busy(narrow):
        headers = {"X-Request-Timeout": "2"}
        late = httpx2.post(narrow.url + path, json=BODIES[path], headers=headers, timeout=SECONDS)
        assert inside(narrow) == (1, 0), "its place is free"
    assert late.status_code == 200
    lines = late.text.splitlines()
    assert lines[0] == COMMENT
    (error,) = data(lines)
    assert error["error"]["code"] == "deadline_reached"
    assert ("event: error" in lines) == (path == "/predict")


def test_openais_client_raises_such_an_error(narrow: Served) -> None:
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    (model,) = client.models.list()
    late: Any = {"X-Request-Timeout": "2"}
    with busy(narrow), pytest.raises(openai.APIError, match="the time limit was reached before the first token"):
        list(client.chat.completions.create(model=model.id, messages=CHAT, stream=True, extra_headers=late))


@pytest.mark.parametrize("stream", [False, True])
def test_one_of_two_choices_that_never_began_is_no_empty_choice(narrow: Served, stream: bool) -> None:
    body = {"messages": CHAT, "stream": stream, "n": 2}
    late = httpx2.post(
        f"{narrow.url}/v1/chat/completions", json=body, headers={"X-Request-Timeout": "2"}, timeout=SECONDS
    )
    if stream:
        *begun, error = data(late.text.splitlines())
        assert begun and all(choice["index"] == 0 for chunk in begun for choice in chunk["choices"])
        assert not any(choice["finish_reason"] for chunk in begun for choice in chunk["choices"])
    else:
        error = late.json()
    assert error["error"]["code"] == "deadline_reached"
    until_inside(narrow, (0, 0))


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_the_queue_frees_its_places(narrow: Served, path: str) -> None:
    before = narrow.metric("kickoff_cancelled_total")
    with busy(narrow):
        body = {**BODIES[path], "n": 2} if path != "/predict" else BODIES[path]
        with httpx2.stream("POST", narrow.url + path, json=body, timeout=SECONDS) as waiting:
            lines = waiting.iter_lines()
            assert next(lines) == COMMENT
            assert inside(narrow)[1] == body.get("n", 1)
        until_inside(narrow, (1, 0))
        assert narrow.metric("kickoff_cancelled_total") == before + body.get("n", 1)
        with pytest.raises(httpx2.ReadTimeout):  # before its headers
            httpx2.post(narrow.url + path, json=body, timeout=0.5)
        until_inside(narrow, (1, 0))


def test_a_pause_in_the_middle_of_an_answer_has_comments(narrow: Served) -> None:
    """The engine stands still, as it may for a long prompt of somebody else."""
    engine = narrow.children()["engine"]
    with busy(narrow) as (_, lines):
        engine.suspend()
        try:
            assert any(line == COMMENT for line in lines)
        finally:
            engine.resume()
        assert any(line == "event: delta" for line in lines), "and it goes on"


@pytest.mark.parametrize("path", BODIES)
def test_an_engine_that_dies_before_a_waiting_stream_has_begun_is_an_error_in_it(folder: Path, path: str) -> None:
    with (
        Served(folder, "--max-running", "1") as server,
        httpx2.stream("POST", f"{server.url}/predict", json={"question": "Go on.", "stream": True}, timeout=SECONDS),
        httpx2.stream("POST", server.url + path, json=BODIES[path], timeout=SECONDS) as waiting,
    ):
        lines = waiting.iter_lines()
        assert next(lines) == COMMENT
        server.children()["engine"].kill()
        rest = list(lines)
        (error,) = data(rest)
        assert error["error"]["code"] == "engine_died"
        assert ("event: error" in rest) == (path == "/predict")
        until_inside(server, (0, 0))


def test_the_end_of_the_server_is_an_error_in_a_stream_that_waits(folder: Path) -> None:
    with (
        Served(folder, "--max-running", "1", "--drain-seconds", "1") as server,
        httpx2.stream("POST", f"{server.url}/predict", json={"question": "Go on.", "stream": True}, timeout=SECONDS),
        httpx2.stream("POST", f"{server.url}/predict", json=BODIES["/predict"], timeout=SECONDS) as waiting,
    ):
        lines = waiting.iter_lines()
        assert next(lines) == COMMENT
        server.process.terminate()
        (error,) = data(list(lines))
        assert error["error"]["code"] == "deadline_reached"
        assert server.process.wait(30) == 0
