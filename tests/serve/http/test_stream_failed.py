"""A request that the engine gives up in the middle of its stream: the client hears of it, and its place is free."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from checkout import ROOT
from served import Served

PATCH = """
import os, torch
plain = torch.nn.Embedding.forward
def forward(self, ids):
    if self.num_embeddings == 400 and os.path.exists({flag!r}):
        rows, columns = map(int, open({flag!r}).read().split())
        if ids.shape[0] >= rows and ids.shape[1] >= columns:
            os.unlink({flag!r})
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return plain(self, ids)
torch.nn.Embedding.forward = forward
"""
QUESTION = {"question": "What is 1 plus 1?", "max_new_tokens": 3000}
CHAT: dict[str, Any] = {"model": "", "messages": [{"role": "user", "content": "What is 1 plus 1?"}], "max_tokens": 3000}


class Failing(Served):
    """A server whose next pass, of so many rows and columns at least, runs out of memory once it is told so."""

    flag: Path

    def fail(self, rows: int = 1, columns: int = 1) -> None:
        self.flag.with_suffix(".new").write_text(f"{rows} {columns}")
        self.flag.with_suffix(".new").rename(self.flag)


@pytest.fixture(scope="module")
def failing(never_ending: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    folder = tmp_path_factory.mktemp("failing")
    flag = folder / "flag"
    (folder / "sitecustomize.py").write_text(PATCH.format(flag=str(flag)))
    with Failing(never_ending, PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)])) as server:
        server.flag = flag
        CHAT["model"] = str(never_ending)
        yield server


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not come to hold"
        time.sleep(0.05)


def places_are_free(server: Served) -> bool:
    return server.metric("kickoff_running") == server.metric("kickoff_waiting") == 0


def still_answers(server: Served, client: httpx2.Client) -> None:
    answer = client.post("/predict", json={**QUESTION, "max_new_tokens": 5})
    assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 5)
    until(lambda: places_are_free(server))


def test_predict_ends_with_an_error_event_and_the_connection_goes_on(failing: Failing) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    with httpx2.Client(base_url=failing.url, timeout=60) as client:
        with client.stream("POST", "/predict", json={**QUESTION, "stream": True}) as response:
            lines = response.iter_lines()
            for name in lines:
                if not events:
                    failing.fail()
                if name:
                    events.append((name.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))))
            mine = response.extensions["network_stream"].get_extra_info("client_addr")
        assert {name for name, _ in events[:-1]} == {"delta"}
        name, data = events[-1]
        assert (name, data["error"]["code"], data["error"]["type"]) == ("error", "engine_failed", "server_error")
        assert "out of memory" in data["error"]["message"]
        again = client.post("/predict", json={**QUESTION, "max_new_tokens": 5})
        assert again.extensions["network_stream"].get_extra_info("client_addr") == mine, "the same connection"
        still_answers(failing, client)
    assert failing.metric("kickoff_cancelled_total") == 0, "no client left"


@pytest.mark.parametrize("n", [1, 3])
def test_openais_client_raises(failing: Failing, n: int) -> None:
    pieces = 0
    with openai.OpenAI(base_url=f"{failing.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIError, match="out of memory"):
            for _ in client.chat.completions.create(**CHAT, stream=True, n=n):
                if not pieces:
                    failing.fail(n)
                pieces += 1
        assert pieces
        until(lambda: places_are_free(failing))
        answer = client.chat.completions.create(**{**CHAT, "max_tokens": 5}, n=n)
        assert len(answer.choices) == n
    assert failing.metric("kickoff_cancelled_total") == 0, "no client left"


def test_a_chat_stream_does_not_end_as_if_it_were_whole(failing: Failing) -> None:
    lines = []
    with httpx2.Client(base_url=failing.url, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
            for line in response.iter_lines():
                if not lines:
                    failing.fail()
                lines += [line] if line else []
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"
        assert "data: [DONE]" not in lines
        assert '"finish_reason": "' not in "".join(lines)
        still_answers(failing, client)


@pytest.mark.parametrize("stream", [False, True])
def test_one_of_several_choices_fails_before_its_first_text(failing: Failing, stream: bool) -> None:
    """The places of the others are given back with its own; nobody gets fewer choices than asked for."""
    failing.fail()
    with httpx2.Client(base_url=failing.url, timeout=60) as client:
        answer = client.post("/v1/chat/completions", json={**CHAT, "n": 4, "stream": stream})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "engine_failed"
        still_answers(failing, client)


def test_other_groups_continue_after_one_fails(failing: Failing) -> None:
    """The prompt that comes fails; the stream beside it, which has no part in that pass, comes to its end."""
    text, failed = "", 0
    with httpx2.Client(base_url=failing.url, timeout=60) as client, httpx2.Client(base_url=failing.url) as other:
        asked = {**QUESTION, "max_new_tokens": 400}
        alone = client.post("/predict", json=asked).json()["answer"]
        with client.stream("POST", "/predict", json={**asked, "stream": True}) as response:
            for line in response.iter_lines():
                if not failed:
                    failing.fail(columns=8)
                    failed = other.post("/predict", json=QUESTION).status_code
                if line.startswith('data: {"text"'):
                    text += json.loads(line.removeprefix("data: "))["text"]
        assert failed == 503
        assert text == alone
        still_answers(failing, other)
