"""A body of one megabyte can hold half a million mistakes: what it costs to refuse it does not grow with them.

The work is counted, not timed.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from served import Served

from serve.http import errors, schema
from serve.http.ask import _short
from serve.http.fields import MAX_DEPTH, check_depth
from serve.http.routes import router

MANY = 60_000
MODELS = [schema.PredictRequest, schema.ChatRequest]
USER, CALLING = {"role": "user", "content": "a"}, {"role": "assistant"}
BAD_NAMES = {f"\ud800{number}": 1 for number in range(MANY)}  # no name in JSON is of another type than text
UNKNOWN = {f"a{number}": 1 for number in range(MANY)}
LONG_NAME = {"a" * MANY: 1}
VALUES = {"list": [0] * MANY, "lists": [[0] * 60] * 1000, "names": UNKNOWN, "bad names": BAD_NAMES}
CALL = {"function": {"name": "f", "arguments": "{}"}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER], **fields}


def said(**fields: Any) -> dict[str, Any]:
    return {"messages": [{**CALLING, "content": "a", **fields}, USER]}


def part(**fields: Any) -> dict[str, Any]:
    return said(content=[{"type": "text", "text": "a", **fields}])


def called(**fields: Any) -> dict[str, Any]:
    return said(tool_calls=[{**CALL, **fields}])


def bodies() -> Iterator[Any]:
    """Every field of every object of a request, with each kind of many mistakes in it."""
    for model, make in (
        (schema.PredictRequest, lambda **fields: {"question": "a", **fields}),
        (schema.ChatRequest, chat),
    ):
        for name in [*model.model_fields, "unknown"]:
            for kind, value in VALUES.items():
                yield pytest.param(model, make(**{name: value}), id=f"{model.__name__} {name} {kind}")
        yield pytest.param(model, make(**UNKNOWN), id=f"{model.__name__} unknown")
        yield pytest.param(model, make(**BAD_NAMES), id=f"{model.__name__} bad names")
        yield pytest.param(model, make(**LONG_NAME), id=f"{model.__name__} a long name")
    inner: list[tuple[str, Any, list[str]]] = [
        ("message", said, ["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "extra"]),
        ("part", part, ["type", "text", "extra"]),
        ("call", called, ["id", "type", "function", "extra"]),
        ("function", lambda **fields: called(function={**CALL["function"], **fields}), ["name", "arguments", "extra"]),
        ("stream_options", lambda **fields: chat(stream_options=fields), ["include_usage", "extra"]),
        ("response_format", lambda **fields: chat(response_format={"type": "text", **fields}), ["type", "extra"]),
    ]
    for what, make, names in inner:
        for name in names:
            for kind, value in VALUES.items():
                yield pytest.param(schema.ChatRequest, make(**{name: value}), id=f"{what} {name} {kind}")
        yield pytest.param(schema.ChatRequest, make(**UNKNOWN), id=f"{what} unknown")
        yield pytest.param(schema.ChatRequest, make(**BAD_NAMES), id=f"{what} bad names")


@pytest.mark.parametrize(("model", "body"), bodies())
def test_the_number_of_reported_mistakes_is_bounded(model: type[BaseModel], body: Any) -> None:
    found = 0
    try:
        model.model_validate(body)
    except ValidationError as error:
        found = error.error_count()
    assert found <= 110


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_list_of_a_request_is_bounded_and_every_object_strict_or_open(model: type[BaseModel]) -> None:
    document = model.model_json_schema()
    for name, one in {model.__name__: document, **document.get("$defs", {})}.items():
        assert one["additionalProperties"] is (name in ("Message", "ToolCall", "FunctionCall")), name

    def lists(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if value.get("type") == "array":
                yield value
            for inner in value.values():
                yield from lists(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from lists(inner)

    found = list(lists(document))
    assert found and all("maxItems" in one for one in found)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", said(content=[0] * MANY)),
        ("/v1/chat/completions", said(tool_calls=[0] * MANY)),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [0] * 60}] * 1000}),
        ("/v1/chat/completions", chat(**UNKNOWN)),
        ("/v1/chat/completions", chat(**LONG_NAME)),
        ("/v1/chat/completions", chat(stream_options=UNKNOWN, response_format=UNKNOWN)),
        ("/predict", {"question": "a", **UNKNOWN}),
        ("/predict", {"question": "a", "stop": [0] * MANY}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_refusal_is_cheap(path: str, body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the messages that are built, and of the names that are compared, with their length."""
    work: Counter[str] = Counter()
    wrong, compare = errors._reason, errors.get_close_matches

    def counted(error: dict[str, Any]) -> str:
        work["messages"] += 1
        return wrong(error)

    def compared(word: str, *others: Any, **options: Any) -> list[str]:
        work["letters"] += len(word)
        return compare(word, *others, **options)

    monkeypatch.setattr(errors, "_reason", counted)
    monkeypatch.setattr(errors, "get_close_matches", compared)
    app = FastAPI()
    app.include_router(router)
    errors.handle_errors(app)

    async def post() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://here") as client:
            return await client.post(path, json=body)

    response = asyncio.run(post())
    assert response.status_code == 422
    assert 1 <= work["messages"] <= errors.MAX_MISTAKES
    assert work["letters"] <= errors.MAX_MISTAKES * errors.MAX_FIELD_PATH
    assert len(response.content) < 5000


@pytest.mark.parametrize(
    "message",
    [said(tool_calls=[CALL] * 100)["messages"][0], {"role": "user", "content": [{"type": "text", "text": "a"}] * 100}],
    ids=["calls", "parts"],
)
def test_the_pieces_of_a_conversation_are_bounded(message: Any) -> None:
    """Each of them takes its time to be read, although nothing is wrong in it."""
    most = schema.MAX_PIECES // 100
    assert schema.ChatRequest.model_validate({"messages": [message] * most})
    with pytest.raises(ValidationError, match="2100 parts and tool calls together, expected at most 2000"):
        schema.ChatRequest.model_validate({"messages": [message] * (most + 1)})


def test_short_bodies_are_checked_directly() -> None:
    """What is not goes to a thread: numbers, empty texts and lists are written by a template, too."""
    assert _short([{"role": "user", "content": "What is two?"}])
    for value in ([0] * 5000, [""] * 5000, [[]] * 5000, dict.fromkeys(map(str, range(5000))), 10**4200, "x" * 5000):
        assert not _short([{"role": "user", "content": "a", "more": value}])


def nested(depth: int, opened: str = "[", closed: str = "]", inner: str = "") -> str:
    return opened * depth + inner + closed * depth


def test_nesting_up_to_the_limit_is_accepted() -> None:
    for opened, closed, inner in ("[", "]", ""), ('{"a":', "}", "1"):
        assert check_depth(json.loads(nested(MAX_DEPTH, opened, closed, inner)))
        with pytest.raises(ValueError, match="levels deep"):
            check_depth(json.loads(nested(MAX_DEPTH + 1, opened, closed, inner)))


FUNCTION = '{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": %s}}]}], "n": 1}'
EXTRA = '{"messages": [{"role": "user", "content": "a", "more": %s}], "max_tokens": 1}'
DEEP = [70, 200, 400, 900, 100_000]


@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize(
    "body",
    [
        *(FUNCTION % json.dumps(text) for text in ("ARRAYS", "OBJECTS")),
        FUNCTION % "OBJECTS",
        *(EXTRA % text for text in ("ARRAYS", "OBJECTS")),
        '{"messages": [{"role": "user", "content": ARRAYS}]}',
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": ARRAYS}]}]}',
        '{"messages": [{"role": "assistant", "content": "a", "tool_calls": ARRAYS}]}',
        '{"messages": [{"role": "user", "content": "a"}], "logit_bias": OBJECTS}',
        '{"messages": [{"role": "user", "content": "a"}], "unknown": ARRAYS}',
        '{"messages": [{"role": "user", "content": "a"}], "stop": ARRAYS}',
        '{"messages": ARRAYS}',
        "ARRAYS",
    ],
    ids=lambda body: body[:110],
)
def test_deep_nesting_is_refused(server: Served, body: str, depth: int) -> None:
    objects = nested(depth, '{"a":', "}", "1")
    if '"OBJECTS"' in body:
        objects = json.dumps(objects)[1:-1]
    content = body.replace("ARRAYS", nested(depth)).replace("OBJECTS", objects)
    url, headers = f"{server.url}/v1/chat/completions", {"content-type": "application/json"}
    response = httpx2.post(url, content=content, headers=headers, timeout=60)
    assert response.status_code in ((400, 422) if depth > MAX_DEPTH * 10 else (422,)), response.text
    assert "\n" not in response.json()["error"]["message"]


@pytest.mark.parametrize("depth", DEEP[:4])
@pytest.mark.parametrize("name", ["metadata", "user", "tools"])
def test_ignored_fields_may_be_nested(server: Served, name: str, depth: int) -> None:
    content = '{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "tool_choice": "none", "%s": %s}'
    url, headers = f"{server.url}/v1/chat/completions", {"content-type": "application/json"}
    response = httpx2.post(url, content=content % (name, nested(depth)), headers=headers, timeout=60)
    assert response.status_code == 200, response.text
