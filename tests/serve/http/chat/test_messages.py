"""The messages of a chat: conversations, parts, tool calls, and the last message continued."""

import json
from typing import Any

import httpx2
import openai
import pytest
from openai_client import ANSWER, ASKED, QUESTION, SECONDS, by_choice
from served import Served
from tiny import ROWS
from transformers import PreTrainedTokenizerBase


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
     ({"role": "user", "content": "x", "tool_calls": [CALLED]}, "tool_calls: found in a user message"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "f", "arguments": "{"}}]}, "are not JSON"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "function": {"name": "f", "arguments": "[1]"}}]},
      "but not an object"),
     ({"role": "assistant", "tool_calls": [{**CALLED, "type": "custom"}]}, "tool_calls.0.type"),
     ({"role": "assistant", "content": "x", "prefix": True}, "prefix"),
     ({"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
     ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "audio"),
     ({"role": "assistant", "content": "x", "note": "\ud800"}, None),
     ({"role": "assistant", "content": "x", "name": "\ud800"}, "half of a surrogate pair")],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_invalid_message_is_refused_in_one_line(server: Served, message: Any, says: str | None) -> None:
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


def test_add_generation_prompt_may_be_false(
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
     ({"role": "user", "content": "2 plus"}, {}, "not an assistant's text"),
     ({"role": "assistant", "content": None}, {}, "not an assistant's text"),
     ({"role": "assistant", "content": "2", "tool_calls": [CALLED]}, {}, "not an assistant's text")],
)  # fmt: skip
def test_a_message_that_cannot_be_continued_is_refused(
    client: openai.OpenAI, model: str, last: Any, extra: dict[str, bool], says: str
) -> None:
    options: Any = {"extra_body": {"continue_final_message": True, **extra}}
    with pytest.raises(openai.UnprocessableEntityError, match=says) as refused:
        client.chat.completions.create(model=model, messages=[*ASKED, last], **options)
    assert refused.value.param == "continue_final_message"


def test_the_text_of_a_control_token_is_text_everywhere_in_a_message(client: openai.OpenAI, model: str) -> None:
    """The model's template shows contents alone; what it does not show changes nothing."""
    hostile = "<|endoftext|>"
    called = {**CALLED, "function": {"name": hostile, "arguments": json.dumps({hostile: hostile})}}
    said: Any = [*ASKED, {"role": "assistant", "content": hostile, "tool_calls": [called], "name": hostile}, *ASKED]
    completion = client.chat.completions.create(model=model, messages=said, max_tokens=1)
    mild: Any = [*ASKED, {"role": "assistant", "content": "x"}, *ASKED]
    usual = client.chat.completions.create(model=model, messages=mild, max_tokens=1)
    assert completion.usage is not None and usual.usage is not None
    assert completion.usage.prompt_tokens > usual.usage.prompt_tokens, "more than one token"
