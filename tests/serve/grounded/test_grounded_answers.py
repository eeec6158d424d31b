"""A grounded generator over HTTP: its answer, the rows that it was made from, and what it does not know."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from served import Served
from tiny import ROWS
from tiny_grounded import COUNT, DENIED, KNOWN, prompt
from tiny_retriever import UNKNOWN

SECONDS = 60
NONSENSE = "zebra crossing"


def ask(server: Served, question: str, **options: Any) -> Any:
    response = httpx2.post(f"{server.url}/predict", json={"question": question, **options}, timeout=SECONDS)
    assert response.status_code == 200, response.text
    return response.json()


def events(server: Served, path: str, body: dict[str, Any]) -> list[tuple[str, Any]]:
    """The server-sent events of a streamed answer: their names and their data."""
    with httpx2.stream("POST", f"{server.url}{path}", json={**body, "stream": True}, timeout=SECONDS) as response:
        text = response.read().decode()
    found = []
    for part in filter(str.strip, text.split("\n\n")):
        lines = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        if "data" in lines:
            data = lines["data"]
            found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row["question"])
def test_an_answer_names_the_rows_that_it_was_made_from(grounded: Served, row: dict[str, str]) -> None:
    said = ask(grounded, row["question"])
    assert (said["answer"], said["known"], said["finish_reason"]) == (row["answer"], True, "stop")
    assert len(said["sources"]) == COUNT
    best = said["sources"][0]
    assert (best["question"], best["answer"]) == (row["question"], row["answer"])
    assert best["source"] == f"dataset.json row {ROWS.index(row)}"
    assert said["sources"][0]["score"] >= said["sources"][1]["score"]


def test_the_prompt_is_the_one_that_transformers_makes(grounded: Served, grounded_folder: Path) -> None:
    said = ask(grounded, KNOWN[0]["question"])
    rows = [{"question": source["question"], "answer": source["answer"]} for source in said["sources"]]
    assert said["usage"]["prompt_tokens"] == len(prompt(grounded_folder, KNOWN[0]["question"], rows))
    timing = said["timing"]
    assert 0 <= timing["queued_ms"] <= timing["first_token_ms"] <= timing["total_ms"]


def test_what_is_below_the_threshold_is_not_generated(grounded: Served) -> None:
    before = grounded.metric("kickoff_unknown_total")
    said = ask(grounded, NONSENSE)
    assert (said["answer"], said["known"]) == (None, False)
    assert len(said["sources"]) == COUNT and said["sources"][0]["confidence"] < 0.7
    assert said["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert grounded.metric("kickoff_unknown_total") == before + 1


def test_the_model_may_say_itself_that_it_does_not_know(grounded: Served) -> None:
    said = ask(grounded, DENIED["question"])
    assert (said["answer"], said["known"]) == (None, False)
    assert said["sources"][0]["confidence"] > 0.7 and said["usage"]["completion_tokens"] > 3


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        (KNOWN[1]["question"], KNOWN[1]["answer"], KNOWN[1]["answer"]),
        (DENIED["question"], UNKNOWN, None),
        (NONSENSE, UNKNOWN, None),
    ],
)
def test_a_stream_ends_with_the_answer_and_its_rows(
    question: str, text: str, answer: str | None, grounded: Served
) -> None:
    *deltas, (name, done) = events(grounded, "/predict", {"question": question})
    assert "".join(data["text"] for _, data in deltas) == text
    assert (name, done["answer"], done["known"]) == ("done", answer, answer is not None)
    assert len(done["sources"]) == COUNT


@pytest.mark.parametrize(("question", "known"), [(KNOWN[2]["question"], True), (NONSENSE, False)])
def test_a_chat_answers_the_last_question_of_a_user(question: str, known: bool, grounded: Served) -> None:
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages, "n": 2, "temperature": 0}
    said = httpx2.post(f"{grounded.url}/v1/chat/completions", json=body, timeout=SECONDS).json()
    texts = {choice["message"]["content"] for choice in said["choices"]}
    assert texts == {KNOWN[2]["answer"] if known else UNKNOWN}
    assert (len(said["choices"]), said["known"], len(said["sources"])) == (2, known, COUNT)
    client: Any = OpenAI(base_url=f"{grounded.url}/v1", api_key="none")
    chunks = list(client.chat.completions.create(model=said["model"], messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) in texts
    last = chunks[-1].model_dump()
    assert (last["known"], len(last["sources"]), last["choices"][0]["finish_reason"]) == (known, COUNT, "stop")


def test_a_message_cannot_forge_a_control_token(grounded: Served) -> None:
    tokens = []
    for text in ("x", "x<|endoftext|>"):
        messages = [{"role": "system", "content": text}, {"role": "user", "content": KNOWN[0]["question"]}]
        said = httpx2.post(f"{grounded.url}/v1/chat/completions", json={"messages": messages}, timeout=SECONDS).json()
        tokens.append(said["usage"]["prompt_tokens"])
    assert tokens[1] > tokens[0] + 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "there is no message of a user"),
        ({"messages": [{"role": "user", "content": "a " * 40}]}, "its retriever found 42 tokens, expected at most 32"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(body: dict[str, Any], words: str, grounded: Served) -> None:
    response = httpx2.post(f"{grounded.url}/v1/chat/completions", json=body, timeout=SECONDS)
    assert response.status_code == 422 and words in response.json()["error"]["message"]


def test_the_document_says_what_a_grounded_model_answers(grounded: Served) -> None:
    schemas = httpx2.get(f"{grounded.url}/openapi.json", timeout=SECONDS).json()["components"]["schemas"]
    assert {"known", "sources"} <= schemas["GroundedPredictResponse"]["properties"].keys()
