"""Real clients against a real server, each in an environment of its own: `make clients-test`.

A client's program (tests/clients) is asked in JSON and prints what its client gave. OpenAI's client for Python has
tests/serve/http/chat, since it is in the project's own environment; guidellm and nginx have files of their own.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from checkout import ENVIRONMENTS
from served import Served
from tiny import ROWS, endless

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]
PROGRAMS = Path(__file__).parent
PYTHON = ("langchain", "litellm", "llamaindex", "instructor")
NODE = ("openai", "ai-sdk")
CLIENTS = (*PYTHON, *NODE)
QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
Said = dict[str, Any]
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""LiteLLM would fetch a table of prices when it is imported."""


def command(client: str) -> list[str]:
    if client in PYTHON:
        return [str(ENVIRONMENTS / client / "bin" / "python"), str(PROGRAMS / f"ask_{client}.py")]
    folder = ENVIRONMENTS / "npm"  # a program finds its packages in the folders above it
    for program in (PROGRAMS / "npm").glob("*.mjs"):
        shutil.copy(program, folder)
    return ["node", str(folder / f"{client}.mjs")]


def model_of(server: Served) -> str:
    (only,) = httpx2.get(f"{server.url}/v1/models", timeout=60).json()["data"]
    return str(only["id"])


def start(client: str, server: Served, *requests: dict[str, Any]) -> "subprocess.Popen[str]":
    """The client's program, which puts the requests to the server's one model, one after the other."""
    common = {"url": f"{server.url}/v1", "model": model_of(server), "question": QUESTION, "want": "answer"}
    asked = [{**common, "extra": {}, "options": {}, **request} for request in requests]
    return subprocess.Popen(
        [*command(client), json.dumps(asked)], env={**os.environ, **OFFLINE}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def results(program: "subprocess.Popen[str]") -> list[Said]:
    output, errors = program.communicate(timeout=120)
    assert program.returncode == 0, errors
    said: list[Said] = json.loads(output.splitlines()[-1])
    return said


UNKNOWN: dict[str, Any] = {
    "max_token": 3,
    "guided_json": {"type": "object"},
    "structured_outputs": {"json": {}},
    "stop_token_ids": [5],
    "logits_processors": ["a.b"],
}
TWELVE = {"top_k": 1, "min_tokens": 12, "ignore_eos": True}
REQUESTS: dict[str, dict[str, Any]] = {
    "answer": {},
    "stream": {"want": "stream"},
    "answer, no limit": {"options": {"max_tokens": 100_000}},
    "stream, no limit": {"options": {"max_tokens": 100_000}, "want": "stream"},
    "answer, too long": {"question": QUESTION * 100},
    "stream, too long": {"question": QUESTION * 100, "want": "stream"},
    "twelve tokens": {"extra": TWELVE, "options": {"max_tokens": 12}},
    "tools": {"want": "tools"},
    "structured": {"want": "structured"},
    "schema": {"want": "schema"},
    **{f"with {field}": {"extra": {field: value}} for field, value in UNKNOWN.items()},
}


def has(client: str, name: str) -> bool:
    """LlamaIndex asks for an object in words or by tools; only instructor has two ways in JSON."""
    return not (name == "schema" and client != "instructor" or name == "structured" and client == "llamaindex")


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def said(client: str, server: Served) -> dict[str, Said]:
    """What the client made of each of REQUESTS."""
    asked = {name: request for name, request in REQUESTS.items() if has(client, name)}
    return dict(zip(asked, results(start(client, server, *asked.values())), strict=True))


@pytest.fixture(scope="module")
def narrow(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server in which one request fits, and whose answers go on for longer than a client takes to start."""
    folder = endless(fetched, tmp_path_factory.mktemp("narrow") / "tiny", context=16384)
    with Served(folder, "--max-running", "1", "--max-waiting", "0") as running:
        yield running


def test_every_client_has_its_pins_and_its_program() -> None:
    lists = {path.stem for path in PROGRAMS.glob("*.txt")}
    assert lists == {*PYTHON, "guidellm"}
    for path in PROGRAMS.glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines and all(line.count("==") == 1 for line in lines), path
    assert {path.stem for path in (PROGRAMS / "npm").glob("*.mjs")} == {*NODE, "asking"}
    lock = json.loads((PROGRAMS / "npm" / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values()), "a registry's address"


def test_a_client_reads_a_whole_answer(said: dict[str, Said]) -> None:
    answer = said["answer"]
    assert (answer["text"], answer["finish"], answer["tokens"][1]) == (ANSWER, "stop", 7), answer
    assert answer["tokens"][0] > 0


def test_a_client_reads_the_same_answer_from_a_stream(said: dict[str, Said]) -> None:
    assert said["stream"]["pieces"] > 1
    assert {**said["stream"], "pieces": 1} == said["answer"]


@pytest.mark.parametrize("want", ["answer", "stream"])
def test_a_limit_above_the_context_is_no_error(said: dict[str, Said], want: str) -> None:
    assert {**said[f"{want}, no limit"], "pieces": 1} == said["answer"]


TOO_LONG = {
    # by which each client tells it from other errors; those that know no such class pass on the status and the words
    "langchain": "ContextOverflowError",
    "litellm": "ContextWindowExceededError",
    "llamaindex": "BadRequestError",
    "instructor": "BadRequestError",
    "openai": "BadRequestError",
    "ai-sdk": "AI_APICallError",
}


@pytest.mark.parametrize("want", ["answer", "stream"])
def test_a_long_prompt_raises_the_clients_context_error(client: str, said: dict[str, Said], want: str) -> None:
    error = said[f"{want}, too long"]
    assert TOO_LONG[client] in error["error"], error
    assert "maximum context length" in error["message"]
    assert error["status"] == 400


@pytest.mark.parametrize("want", ["answer", "stream"])
def test_a_client_retries_an_overloaded_server(client: str, narrow: Served, want: str) -> None:
    def refused() -> float:
        return narrow.metric("kickoff_rejected_total", reason="overload")

    before = refused()
    body = {"question": "Go on.", "stream": True}
    with httpx2.stream("POST", f"{narrow.url}/predict", json=body, timeout=60) as busy:
        assert busy.status_code == 200
        program = start(client, narrow, {"want": want, "options": {"max_tokens": 3}})
        while refused() == before:
            assert program.poll() is None, results(program)
            time.sleep(0.05)
    (answer,) = results(program)
    assert (answer.get("finish"), answer.get("tokens", [0, 0])[1]) == ("length", 3), answer


@pytest.mark.parametrize("field", UNKNOWN)
def test_an_unknown_field_is_refused_by_name(said: dict[str, Said], field: str) -> None:
    answer = said[f"with {field}"]
    assert "error" in answer, f"{field} was ignored: {answer}"
    assert field in answer["message"]
    assert answer["status"] in (400, 422)


def test_fields_that_are_known_arrive(said: dict[str, Said]) -> None:
    answer = said["twelve tokens"]
    assert (answer.get("finish"), answer.get("tokens", [0, 0])[1]) == ("length", 12), answer


@pytest.mark.parametrize(
    ("want", "named"), [("tools", "tools"), ("structured", "response_format"), ("schema", "response_format")]
)
def test_features_that_the_server_lacks_are_refused_with_a_message(
    client: str, said: dict[str, Said], want: str, named: str
) -> None:
    assert (want in said) == has(client, want)
    if want in said:
        assert "error" in said[want], f"{named} was ignored: {said[want]}"
        assert named in said[want]["message"]
