"""What a request asks for by an unknown name is refused, in all its objects; a name that is null asks for nothing."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from served import Served
from tiny import ROWS
from transformers import PreTrainedTokenizerFast

from serve.http.conversation import Message
from serve.http.text import Text

SECONDS = 60
QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
USER = {"role": "user", "content": QUESTION}
CHAT, PREDICT = "/v1/chat/completions", "/predict"


def post(server: Served, path: str = CHAT, **fields: Any) -> httpx2.Response:
    body = {"question": QUESTION, **fields} if path == PREDICT else {"messages": [USER], **fields}
    return httpx2.post(f"{server.url}{path}", json=body, timeout=SECONDS)


def message_of(response: httpx2.Response) -> str:
    assert response.status_code == 422, response.text
    return str(response.json()["error"]["message"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"stream_options": {"include_usages": True}},
         "stream_options.include_usages: .*; did you mean include_usage?"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage: "),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation: "),
        ({"response_format": {"type": "text", "json_schema": {}}}, "response_format.json_schema: Extra"),
        ({"response_format": {"type": "text", "Type": "json"}}, "response_format.Type: .*; did you mean type?"),
        ({"response_format": {}}, "response_format.type: Field required"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "txt": "b"}]}]},
         "messages.0.content.0.txt: .*; did you mean text?"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": {}}]}]},
         "messages.0.content.0.image_url: Extra"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_unknown_name_inside_an_object_is_refused(
    server: Served, fields: dict[str, Any], says: str, stream: bool
) -> None:
    response = post(server, **fields, stream=stream)
    assert re.search(says, message_of(response)), response.text
    assert says.startswith(response.json()["error"]["param"])


@pytest.mark.parametrize(
    "options",
    [
        {"include_usage": True, "continuous_usage_stats": True},  # as guidellm sends it
        {"include_usage": True, "include_obfuscation": False},
        {"include_usage": True, "continuous_usage_stats": None, "include_obfuscation": None, "unknown": None},
    ],
    ids=str,
)
def test_stream_options_that_clients_add_are_accepted(server: Served, options: dict[str, Any]) -> None:
    lines = post(server, stream=True, stream_options=options).text.split("\n\n")
    *_, last, done, _ = lines
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}, {"include_usage": False}], ids=str)
def test_usage_is_sent_only_when_requested(server: Served, options: Any) -> None:
    assert '"usage"' not in post(server, stream=True, stream_options=options).text


NULLS = ["audio", "prediction", "web_search_options", "guided_json", "chat_template", "documents", "structured_outputs",
         "truncate_prompt_tokens", "prompt_logprobs", "mm_processor_kwargs", "max_token", "Stop", "a name", "n_predict",
         "tool_resources", "reasoning", "thinking", "\u00fc"]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, PREDICT])
def test_null_has_no_effect(server: Served, path: str) -> None:
    response = post(server, path, **dict.fromkeys(NULLS))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["answer"] if path == PREDICT else answer["choices"][0]["message"]["content"]) == ANSWER


def test_null_has_no_effect_inside_an_object(server: Served) -> None:
    nothing = dict.fromkeys([*NULLS, "json_schema", "schema", "refusal", "image_url", "cache_control", "function_call"])
    calls = [{"id": None, "index": None, "function": {"name": "now", "arguments": "{}", "parsed": None}, **nothing}]
    history = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION, **nothing}], **nothing},
        {"role": "assistant", "tool_calls": calls, **nothing},
        {"role": "tool", "content": "noon", "tool_call_id": None, "name": None, **nothing},
        USER,
    ]
    response = post(server, messages=history, response_format={"type": "text", **nothing}, max_tokens=1)
    assert response.status_code == 200, response.text


def test_every_field_of_openais_client_may_be_null(server: Served) -> None:
    """Clients that serialise their whole request object send all of it."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        names = set(inspect.signature(client.chat.completions.create).parameters)
    names -= {"messages", "model", "extra_headers", "extra_query", "extra_body", "timeout", "self"}
    assert len(names) > 30
    response = post(server, **dict.fromkeys(sorted(names)))
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("value", [{}, [], 0, False, ""], ids=repr)
def test_an_unknown_name_with_any_other_value_is_refused(server: Served, value: Any) -> None:
    for path in (CHAT, PREDICT):
        assert "guided_json: Extra inputs are not permitted" in message_of(post(server, path, guided_json=value))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, None) for name in ("web_search_options", "truncate_prompt_tokens", "structured_outputs", "usage")),
        *((name, None) for name in ("options", "system", "guided_choice", "reasoning", "documents", "audio", "prompt")),
        ("max_token", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("maxCompletionTokens", "max_completion_tokens"),
        ("max_new_tokens", "max_tokens"),
        ("topP", "top_p"),
        ("top-k", "top_k"),
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("stream_option", "stream_options"),
        ("seeds", "seed"),
        ("ignore_eso", "ignore_eos"),
    ],
)
def test_only_a_similar_name_is_suggested(server: Served, name: str, meant: str | None) -> None:
    end = f"; did you mean {meant}?" if meant else ""
    assert message_of(post(server, **{name: {}})) == f"{name}: Extra inputs are not permitted{end}"


def test_fields_beside_a_text_that_change_nothing_are_accepted(server: Served) -> None:
    beside = {"cache_control": {"type": "ephemeral"}, "annotations": [], "citations": [], "id": "a", "index": 0}
    response = post(server, messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION, **beside}]}])
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


def test_a_template_gets_every_name_of_a_call_as_transformers_gives_it(published: Path, tmp_path: Path) -> None:
    called: dict[str, Any] = {
        "role": "assistant",
        "tool_calls": [{"index": 3, "type": "function", "id": "a",
                        "function": {"arguments": {"zone": "UTC"}, "note": "soon", "name": "now"}}],
    }  # fmt: skip
    template = (
        "{% for message in messages %}{{ message.role }}:{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call.index }}{{ call | tojson }}{{ call.function.note }}"
        "{% endfor %}{% endfor %}"
    )
    text = Text(published)
    tokenizer: PreTrainedTokenizerFast = text.tokenizer
    tokenizer.chat_template = template
    expected = tokenizer.apply_chat_template([{**called, "content": ""}, USER], tokenize=False)
    assert '"index": 3' in str(expected) and "soon" in str(expected)
    messages = [Message.model_validate(one).for_template for one in (called, USER)]
    assert tokenizer.decode(text.prompt_ids(messages)) == tokenizer.decode(tokenizer(str(expected))["input_ids"])
