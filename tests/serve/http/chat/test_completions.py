"""/v1 through OpenAI's own client, as every program that speaks to OpenAI would use it; and once at the wire."""

import json
from typing import Any

import httpx2
import openai
import pytest
from openai_client import ANSWER, ASKED, SECONDS, by_choice, client_of
from served import Served
from tiny import ROWS


def test_the_one_model_is_listed_with_its_revision(client: openai.OpenAI, published: Any) -> None:
    (only,) = client.models.list()
    assert (only.id, only.object, only.owned_by) == (str(published), "model", "local")
    shown: Any = only
    assert shown.revision.startswith("sha256:")
    assert shown.max_model_len == 128


def test_an_answer_is_a_chat_completion(client: openai.OpenAI, model: str) -> None:
    completion: Any = client.chat.completions.create(model=model, messages=ASKED)
    (choice,) = completion.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", ANSWER)
    assert choice.finish_reason == "stop"
    assert (completion.object, completion.model) == ("chat.completion", model)
    assert completion.id.startswith("chatcmpl-")
    assert completion.usage.completion_tokens == 7
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 7
    assert completion.system_fingerprint == completion.revision
    assert completion.deadline_reached is False
    assert 0 <= completion.timing["queued_ms"] <= completion.timing["first_token_ms"] <= completion.timing["total_ms"]


def test_no_two_answers_have_the_same_id(client: openai.OpenAI, model: str) -> None:
    ids = {client.chat.completions.create(model=model, messages=ASKED, max_tokens=1).id for _ in range(3)}
    assert len(ids) == 3


def test_a_request_need_not_name_the_model(server: Served, model: str) -> None:
    response = httpx2.post(f"{server.url}/v1/chat/completions", json={"messages": ASKED}, timeout=SECONDS)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == model


def test_chat_and_predict_give_the_same_answer(server: Served, client: openai.OpenAI, model: str) -> None:
    question = ROWS[15]["question"]
    predicted = httpx2.post(f"{server.url}/predict", json={"question": question}, timeout=SECONDS).json()
    completion = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    assert completion.choices[0].message.content == predicted["answer"]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == predicted["usage"]["prompt_tokens"]


def test_a_stream_joined_is_the_answer(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True))
    assert by_choice(chunks) == {0: (ANSWER, "stop")}
    assert len(chunks) > 3
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {model}
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_the_usage_if_asked_for(client: openai.OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True, stream_options=options))
    *before, last = chunks
    assert by_choice(before) == {0: (ANSWER, "stop")}
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == []
    whole = client.chat.completions.create(model=model, messages=ASKED)
    assert last.usage == whole.usage


def test_a_raw_stream_is_data_lines_and_done(server: Served) -> None:
    body = {"messages": ASKED, "stream": True}
    response = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=SECONDS)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = [event for event in response.text.removesuffix("\n\n").split("\n\n") if event != ": waiting"]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    first = chunks[0]["choices"][0]["delta"]  # of one token or, on a busy machine, of more
    assert (first["role"], first["content"][0]) == ("assistant", "2")
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert all("usage" not in chunk for chunk in chunks)


def test_a_stream_without_text_has_a_role_and_a_finish_reason(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True, stop="2"))
    assert by_choice(chunks) == {0: ("", "stop")}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_number_of_tokens_is_limited_by_either_name(client: openai.OpenAI, model: str, name: str) -> None:
    limit: Any = {name: 2}
    completion = client.chat.completions.create(model=model, messages=ASKED, **limit)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("2 plus", "length")
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True, **limit))
    assert by_choice(chunks) == {0: ("2 plus", "length")}


def test_max_completion_tokens_takes_precedence_over_max_tokens(client: openai.OpenAI, model: str) -> None:
    completion = client.chat.completions.create(model=model, messages=ASKED, max_tokens=5, max_completion_tokens=1)
    assert completion.choices[0].message.content == "2"


@pytest.mark.parametrize("stop", [" is", "plus 2 i", ["4", " is"]])
def test_a_stop_string_is_not_in_the_answer(client: openai.OpenAI, model: str, stop: Any) -> None:
    expected = "2 " if stop == "plus 2 i" else "2 plus 2"
    completion = client.chat.completions.create(model=model, messages=ASKED, stop=stop)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == (expected, "stop")
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stop=stop, stream=True))
    assert by_choice(chunks) == {0: (expected, "stop")}


def test_three_choices_are_three_answers(client: openai.OpenAI, model: str) -> None:
    # hot enough that no two are alike, although the model knows one answer by heart
    sampled: Any = {"model": model, "messages": ASKED, "temperature": 2.0, "seed": 5}
    completion = client.chat.completions.create(n=3, **sampled)
    texts = [choice.message.content for choice in completion.choices]
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    again = client.chat.completions.create(n=3, **sampled)
    assert [choice.message.content for choice in again.choices] == texts
    first = client.chat.completions.create(**sampled)
    assert first.choices[0].message.content == texts[0]
    assert completion.usage is not None and first.usage is not None
    assert completion.usage.prompt_tokens == first.usage.prompt_tokens
    assert completion.usage.completion_tokens > first.usage.completion_tokens


def test_three_choices_stream_interleaved_and_complete(client: openai.OpenAI, model: str) -> None:
    sampled: Any = {"model": model, "messages": ASKED, "temperature": 1.5, "seed": 5, "n": 3}
    whole = client.chat.completions.create(**sampled)
    options: Any = {"include_usage": True}
    *chunks, last = client.chat.completions.create(stream=True, stream_options=options, **sampled)
    expected = {choice.index: (choice.message.content, choice.finish_reason) for choice in whole.choices}
    assert by_choice(chunks) == expected
    assert last.usage == whole.usage
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order), "one choice after the other"


def test_the_right_key_is_accepted(guarded: Served) -> None:
    client = client_of(guarded, guarded.key)
    (only,) = client.models.list()
    assert client.chat.completions.create(model=only.id, messages=ASKED).choices[0].message.content == ANSWER


def test_the_right_key_is_accepted_as_x_api_key(guarded: Served) -> None:
    client = client_of(guarded, default_headers={"X-API-Key": guarded.key})
    (only,) = client.models.list()
    assert client.chat.completions.create(model=only.id, messages=ASKED).choices[0].message.content == ANSWER


@pytest.mark.parametrize("key", ["none", "a-secret-of-the-test", "a-secret-of-the-tests-", "A-SECRET-OF-THE-TESTS"])
def test_a_wrong_key_is_refused(guarded: Served, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        client_of(guarded, key).chat.completions.create(model="any", messages=ASKED)
    assert refused.value.code == "invalid_api_key"
    assert guarded.key not in refused.value.message
    with pytest.raises(openai.AuthenticationError):
        client_of(guarded, default_headers={"X-API-Key": key}).models.list()


def test_a_missing_key_is_refused(guarded: Served) -> None:
    response = httpx2.post(f"{guarded.url}/v1/chat/completions", json={"messages": ASKED}, timeout=SECONDS)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]
