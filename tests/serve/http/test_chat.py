"""/v1 through OpenAI's own client, as every program that speaks to OpenAI would use it; and once at the wire."""

import json
from typing import Any

import httpx2
import openai
import pytest
from served import Served
from tiny import ROWS
from transformers import PreTrainedTokenizerBase

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
ASKED: Any = [{"role": "user", "content": QUESTION}]
SECONDS = 60


def client_of(server: Served, key: str = "none", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=SECONDS, **options)


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    (only,) = client.models.list()
    return only.id


def by_choice(chunks: list[Any]) -> dict[int, tuple[str, str]]:
    """Text and reason to end of each choice of a stream; each has to begin with its role and end once."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            assert choice.index not in reasons, "a choice goes on after its end"
            assert (choice.delta.role == "assistant") == (choice.index not in texts)
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert texts.keys() == reasons.keys()
    return {index: (texts[index], reasons[index]) for index in sorted(texts)}


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


def test_a_stream_at_the_wire_is_data_lines_and_done(server: Served) -> None:
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


def test_a_stream_without_text_still_has_its_role_and_its_end(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True, stop="2"))
    assert by_choice(chunks) == {0: ("", "stop")}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_number_of_tokens_is_limited_by_either_name(client: openai.OpenAI, model: str, name: str) -> None:
    limit: Any = {name: 2}
    completion = client.chat.completions.create(model=model, messages=ASKED, **limit)
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("2 plus", "length")
    chunks = list(client.chat.completions.create(model=model, messages=ASKED, stream=True, **limit))
    assert by_choice(chunks) == {0: ("2 plus", "length")}


def test_the_new_name_of_the_limit_counts_before_the_old(client: openai.OpenAI, model: str) -> None:
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


def test_three_choices_stream_side_by_side_and_each_to_its_end(client: openai.OpenAI, model: str) -> None:
    sampled: Any = {"model": model, "messages": ASKED, "temperature": 1.5, "seed": 5, "n": 3}
    whole = client.chat.completions.create(**sampled)
    options: Any = {"include_usage": True}
    *chunks, last = client.chat.completions.create(stream=True, stream_options=options, **sampled)
    expected = {choice.index: (choice.message.content, choice.finish_reason) for choice in whole.choices}
    assert by_choice(chunks) == expected
    assert last.usage == whole.usage
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order), "one choice after the other"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "Be brief."}, *ASKED],
        [{"role": "developer", "content": "Be brief."}, *ASKED],
        [*ASKED, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": ROWS[2]["question"]}],
        [*ASKED, {"role": "assistant", "content": "2 plus"}],
    ],
    ids=["system", "developer", "history", "assistant last"],
)
def test_a_conversation_goes_through_the_models_template(
    client: openai.OpenAI, model: str, tokenizer: PreTrainedTokenizerBase, messages: Any
) -> None:
    completion = client.chat.completions.create(model=model, messages=messages)
    text = str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(tokenizer(text)["input_ids"])
    assert completion.choices[0].message.content


def test_parts_of_text_are_one_text(client: openai.OpenAI, model: str) -> None:
    parts: Any = [{"type": "text", "text": QUESTION[:9]}, {"type": "text", "text": QUESTION[9:]}]
    completion = client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert completion.choices[0].message.content == ANSWER


def test_too_many_tokens_are_counted_in_the_error(
    client: openai.OpenAI, model: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    long: Any = [{"role": "user", "content": "plus " * 500}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=long)
    text = str(tokenizer.apply_chat_template(long, add_generation_prompt=True, tokenize=False))
    assert f"resulted in {len(tokenizer(text)['input_ids'])} tokens" in refused.value.message
    assert "maximum context length is 128 tokens" in refused.value.message
    assert refused.value.code == "context_length_exceeded"


def test_another_model_is_not_found(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert "'gpt-4o'" in refused.value.message and repr(model) in refused.value.message
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    "field, value",
    [
        ("tools", [TOOL]),
        ("tool_choice", "required"),
        ("logprobs", True),
        ("top_logprobs", 2),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("logit_bias", {"1": 5}),
        ("n", 0),
        ("n", 9),
        ("max_tokens", 0),
        ("max_completion_tokens", -2),
        ("max_token", 5),
        ("guided_json", {}),
        ("structured_outputs", {"choice": ["a"]}),
        ("stop_token_ids", [1]),
        ("min_tokens", -1),
        ("min_tokens", 3.0),
        ("min_tokens", True),
        ("min_tokens", 13),
        ("min_tokens", 10**9),
        ("ignore_eos", 1),
        ("ignore_eos", "true"),
        ("temperature", 3),
        ("messages", []),
        ("messages", [{"role": "user", "content": " "}]),
        ("messages", [{"role": "tool", "content": None}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
        ("messages", [{"role": "user", "content": []}]),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_would_change_the_answer_and_is_not_known_is_refused_by_name(
    client: openai.OpenAI, model: str, field: str, value: Any, stream: bool
) -> None:
    options: Any = {"model": model, "messages": ASKED, "stream": stream, "extra_body": {field: value}}
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(**options)
    assert refused.value.param is not None and refused.value.param.split(".")[0] == field
    assert field in refused.value.message
    assert "function-after" not in refused.value.message


def test_what_changes_nothing_is_taken(client: openai.OpenAI, model: str) -> None:
    neutral: Any = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "logit_bias": {}}
    neutral |= {"response_format": {"type": "text"}, "user": "ada", "metadata": {"a": "b"}, "store": False}
    neutral |= {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False, "service_tier": "auto"}
    neutral |= {"max_tokens": 10**6, "extra_body": {"top_k": -1, "min_tokens": 0, "ignore_eos": False, "best_of": 1}}
    completion = client.chat.completions.create(model=model, messages=ASKED, **neutral)
    assert completion.choices[0].message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_no_limit_and_null_is_the_published_one(
    client: openai.OpenAI, model: str, name: str, stream: bool
) -> None:
    """Clients that were given no limit may send null: LangChain's invoke and the AI SDK do."""
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    for limit, expected in (({}, 12), ({name: None}, 12), ({name: -1}, None), ({name: 10**6}, None)):
        options: Any = {"extra_body": {"ignore_eos": True, **limit}, **more}
        made: Any = client.chat.completions.create(model=model, messages=ASKED, **options)
        usage = list(made)[-1].usage if stream else made.usage
        if expected is None:
            assert usage.total_tokens == 128, "the context"
        else:
            assert usage.completion_tokens == expected, limit


@pytest.mark.parametrize("other", [{}, {"max_completion_tokens": None}])
def test_null_under_one_name_leaves_the_limit_to_the_other(client: openai.OpenAI, model: str, other: Any) -> None:
    options: Any = {"extra_body": {"ignore_eos": True, "max_tokens": 5, **other}}
    completion = client.chat.completions.create(model=model, messages=ASKED, **options)
    assert completion.usage is not None and completion.usage.completion_tokens == 5


CALLED = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.mark.parametrize("said", [{}, {"content": None}, {"content": "Let me see."}], ids=str)
def test_a_history_with_a_tool_call_is_read(client: openai.OpenAI, model: str, said: Any) -> None:
    history: Any = [
        *ASKED,
        {"role": "assistant", **said, "tool_calls": [CALLED], "name": "ada", "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
        *ASKED,
    ]
    completion = client.chat.completions.create(model=model, messages=history, tool_choice="none", max_tokens=3)
    without: Any = [*ASKED, {"role": "assistant", "content": said.get("content") or ""}, *history[2:]]
    same = client.chat.completions.create(model=model, messages=without, max_tokens=3)
    assert completion.usage == same.usage, "this model's template knows no tool calls"


@pytest.mark.parametrize(
    ("message", "says"),
    [({"role": "assistant"}, None), ({"role": "user"}, "content: is missing or null"),
     ({"role": "tool", "tool_call_id": "a"}, "content: is missing or null"),
     ({"role": "user", "content": "x", "tool_calls": [CALLED]}, "tool_calls: found in a turn of the user"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "f", "arguments": "{"}}]}, "are no JSON"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "f", "arguments": "[1]"}}]},
      "but no object"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "type": "custom"}]}, "tool_calls.0.type"),
     ({"role": "assistant", "content": "x", "prefix": True}, "prefix"),
     ({"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
     ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
     ({"role": "assistant", "content": "x", "note": "\ud800"}, None),
     ({"role": "assistant", "content": "x", "name": "\ud800"}, "half of a surrogate pair")],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_message_that_is_not_understood_is_refused_in_one_line(
    server: Served, message: Any, says: str | None
) -> None:
    body = json.dumps({"messages": [message, *ASKED], "max_tokens": 1})
    headers = {"content-type": "application/json"}
    response = httpx2.post(f"{server.url}/v1/chat/completions", content=body, headers=headers, timeout=SECONDS)
    if says is None:
        assert response.status_code == 200, response.text
        return
    error = response.json()["error"]
    assert (response.status_code, error["param"].split(".")[0]) == (422, "messages")
    assert says in error["message"] and "\n" not in error["message"]


@pytest.mark.parametrize("extra", [{}, {"add_generation_prompt": False}], ids=str)
def test_the_last_message_is_continued(
    client: openai.OpenAI, model: str, tokenizer: PreTrainedTokenizerBase, extra: dict[str, bool]
) -> None:
    messages: Any = [*ASKED, {"role": "assistant", "content": "2 plus"}]
    options: Any = {"extra_body": {"continue_final_message": True, **extra}}
    completion = client.chat.completions.create(model=model, messages=messages, **options)
    assert completion.choices[0].message.content == ANSWER.removeprefix("2 plus")
    text = str(tokenizer.apply_chat_template(messages, continue_final_message=True, tokenize=False))
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(tokenizer(text)["input_ids"])
    chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True, **options))
    assert by_choice(chunks) == {0: (ANSWER.removeprefix("2 plus"), "stop")}


def test_a_prompt_may_open_no_turn_for_the_answer(
    client: openai.OpenAI, model: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    options: Any = {"extra_body": {"add_generation_prompt": False}, "max_tokens": 3}
    completion = client.chat.completions.create(model=model, messages=ASKED, **options)
    text = str(tokenizer.apply_chat_template(ASKED, tokenize=False))
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    ("last", "extra", "says"),
    [({"role": "assistant", "content": "2 plus"}, {"add_generation_prompt": True}, "leave one of them out"),
     ({"role": "user", "content": "2 plus"}, {}, "no text of an assistant"),
     ({"role": "assistant", "content": None}, {}, "no text of an assistant"),
     ({"role": "assistant", "content": "2", "tool_calls": [CALLED]}, {}, "no text of an assistant")],
)  # fmt: skip
def test_what_cannot_be_continued_is_refused(
    client: openai.OpenAI, model: str, last: Any, extra: dict[str, bool], says: str
) -> None:
    options: Any = {"extra_body": {"continue_final_message": True, **extra}}
    with pytest.raises(openai.UnprocessableEntityError, match=says) as refused:
        client.chat.completions.create(model=model, messages=[*ASKED, last], **options)
    assert refused.value.param == "continue_final_message"


def test_the_text_of_a_token_is_only_text_in_every_place_of_a_message(client: openai.OpenAI, model: str) -> None:
    """The model's template shows contents alone; what it does not show changes nothing."""
    hostile = "<|endoftext|>"
    called = {**CALLED, "function": {"name": hostile, "arguments": json.dumps({hostile: hostile})}}
    said: Any = [*ASKED, {"role": "assistant", "content": hostile, "tool_calls": [called], "name": hostile}, *ASKED]
    completion = client.chat.completions.create(model=model, messages=said, max_tokens=1)
    mild: Any = [*ASKED, {"role": "assistant", "content": "x"}, *ASKED]
    usual = client.chat.completions.create(model=model, messages=mild, max_tokens=1)
    assert completion.usage is not None and usual.usage is not None
    assert completion.usage.prompt_tokens > usual.usage.prompt_tokens, "more than one token"


def test_the_key_opens(guarded: Served) -> None:
    client = client_of(guarded, guarded.key)
    (only,) = client.models.list()
    assert client.chat.completions.create(model=only.id, messages=ASKED).choices[0].message.content == ANSWER


def test_the_key_opens_as_x_api_key_too(guarded: Served) -> None:
    client = client_of(guarded, default_headers={"X-API-Key": guarded.key})
    (only,) = client.models.list()
    assert client.chat.completions.create(model=only.id, messages=ASKED).choices[0].message.content == ANSWER


@pytest.mark.parametrize("key", ["none", "a-secret-of-the-test", "a-secret-of-the-tests-", "A-SECRET-OF-THE-TESTS"])
def test_another_key_does_not_open(guarded: Served, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        client_of(guarded, key).chat.completions.create(model="any", messages=ASKED)
    assert refused.value.code == "invalid_api_key"
    assert guarded.key not in refused.value.message
    with pytest.raises(openai.AuthenticationError):
        client_of(guarded, default_headers={"X-API-Key": key}).models.list()


def test_no_key_does_not_open(guarded: Served) -> None:
    response = httpx2.post(f"{guarded.url}/v1/chat/completions", json={"messages": ASKED}, timeout=SECONDS)
    assert response.status_code == 401
    assert "Bearer" in response.headers["www-authenticate"]


@pytest.mark.parametrize("least", [0, 6, 7, 10, 12])
def test_an_answer_has_at_least_the_tokens_that_are_asked_for(client: openai.OpenAI, model: str, least: int) -> None:
    """The model ends this answer with its seventh token; the published limit is twelve."""
    options: Any = {"model": model, "messages": ASKED, "extra_body": {"min_tokens": least}}
    whole = client.chat.completions.create(**options)
    *chunks, last = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
    ((text, reason),) = by_choice(chunks).values()
    assert (text, reason) == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert whole.usage is not None and last.usage == whole.usage
    tokens = whole.usage.completion_tokens
    assert tokens == 7 if least <= 6 else least <= tokens <= 12
    assert reason == ("length" if tokens == 12 else "stop")
    assert text.startswith(ANSWER)


def test_the_end_of_text_can_be_ignored(client: openai.OpenAI, model: str) -> None:
    """It has no text of its own, and the answer goes on behind it."""
    extra: Any = {"ignore_eos": True}
    completion = client.chat.completions.create(model=model, messages=ASKED, max_tokens=30, n=2, extra_body=extra)
    for choice in completion.choices:
        assert choice.finish_reason == "length"
        assert choice.message.content is not None and choice.message.content.startswith(ANSWER)
        assert "<|endoftext|>" not in choice.message.content
    assert completion.usage is not None and completion.usage.completion_tokens == 60
    whole = client.chat.completions.create(model=model, messages=ASKED, extra_body={**extra, "max_tokens": -1})
    assert whole.usage is not None and whole.usage.total_tokens == 128, "the context"


def test_a_stop_string_does_not_count_before_the_answer_is_long_enough(client: openai.OpenAI, model: str) -> None:
    """The answer is "2", " plus", " 2", ..., and so its second " 2" is the third token. vLLM does so."""
    for least, expected in ((0, "2 plus"), (2, "2 plus"), (3, "2 plus 2 is"), (6, ANSWER)):
        options: Any = {"model": model, "messages": ASKED, "stop": [" 2", " 4"], "extra_body": {"min_tokens": least}}
        completion = client.chat.completions.create(**options)
        assert completion.choices[0].message.content == expected
        assert completion.choices[0].finish_reason == "stop"
        assert by_choice(list(client.chat.completions.create(stream=True, **options))) == {0: (expected, "stop")}


@pytest.mark.parametrize("most", [{"max_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 50}, {}])
def test_more_tokens_at_least_than_at_most_is_refused(client: openai.OpenAI, model: str, most: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model=model, messages=ASKED, extra_body={"min_tokens": 20}, **most)
    assert refused.value.param == "min_tokens"
    assert f"expected at most {5 if most else 12}" in refused.value.message
    assert "send a larger max_tokens" in refused.value.message


def test_more_tokens_at_least_than_fit_is_refused(server: Served, client: openai.OpenAI, model: str) -> None:
    before = server.metric("kickoff_rejected_total", reason="invalid")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model=model, messages=ASKED, max_tokens=500, extra_body={"min_tokens": 127})
    assert "fit behind these messages; shorten them" in refused.value.message
    assert server.metric("kickoff_rejected_total", reason="invalid") == before + 1
    assert server.metric("kickoff_waiting") == 0, "its place is free"
