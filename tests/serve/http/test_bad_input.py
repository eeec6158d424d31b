"""What no client should send: every mistake gets a status and a message that help, and harms nobody else.

Run from the top, the last tests see that after all of this the server answers as before and made no mistake itself.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from served import Served
from tiny import END, ROWS

from serve.http import metrics
from serve.http.routes import add_routes
from serve.settings import Settings

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
JSON = {"content-type": "application/json"}
HUGE = "1" + "0" * 400
SECONDS = 60


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=SECONDS) as client:
        yield client


def refused(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The error, which has OpenAI's form and no trace of the server's insides."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"] and error["code"]
    for inside in ("function", "constrained", "Traceback", "pydantic", "0x"):
        assert inside not in error["message"]
    return error


def body_of(**fields: Any) -> bytes:
    return json.dumps({"question": QUESTION, **fields}).encode()


@pytest.mark.parametrize(
    "body, status, words",
    [
        (b"{", 422, "the body is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b'{"question": "a"', 422, "the body is not JSON: Expecting ',' delimiter at character 16"),
        (b"", 422, "send a JSON object"),
        (b'["What is 2 plus 2?"]', 422, "send a JSON object"),
        (b'"What is 2 plus 2?"', 422, "send a JSON object"),
        (b"null", 422, "send a JSON object"),
        (b"7", 422, "send a JSON object"),
        (b'{"question": "\xff\xfe"}', 400, "'utf-8' codec can't decode byte 0xff in position 14"),
        (b'{"question": "\\ud800"}', 422, "question: contains half of a surrogate pair at character 0"),
        (b'{"question": "a", "stop": ["b", "\\udfff"]}', 422, "stop.1: Input should be a valid string"),
        (b'{"question": "a", "\\ud800": 1}', 422, "valid string"),
        (b"[" * 100_000, 400, "recursion"),
        (b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "recursion"),
        (b'{"question":' * 50_000, 400, "recursion"),
        (b'{"question": "a", "seed": 1' + b"0" * 5000 + b"}", 400, "digits"),
    ],
    ids=lambda value: str(value[:30]) if isinstance(value, bytes) else "",
)
def test_a_body_that_is_no_json_object_is_refused(client: httpx2.Client, body: bytes, status: int, words: str) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    if "0xff" in words:
        assert response.status_code == status and words in response.json()["error"]["message"]
    else:
        assert words in refused(response, status)["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""])
def test_another_content_type_is_refused_with_the_right_one(client: httpx2.Client, kind: str) -> None:
    response = client.post("/predict", content=body_of(), headers={"content-type": kind})
    assert "Content-Type: application/json" in refused(response, 422)["message"]


def test_a_multipart_form_is_refused(client: httpx2.Client) -> None:
    response = client.post("/predict", files={"question": b"What is 2 plus 2?"})
    assert "Content-Type: application/json" in refused(response, 422)["message"]


@pytest.mark.parametrize(
    "field, value",
    [
        *(("max_new_tokens", value) for value in ('"5"', "true", "1.5", "[1]", "{}", "0", "-2", HUGE)),
        *(("temperature", value) for value in ("NaN", "Infinity", "-Infinity", "1e999", "-1", "2.1", "1e9", HUGE)),
        *(("temperature", value) for value in ('"1"', "true")),
        *(("top_p", value) for value in ("0", "-0.5", "1.1", "NaN", '"1"')),
        *(("top_k", value) for value in ("-2", "1.5", "true", '"5"', HUGE)),
        *(("seed", value) for value in ("1.5", str(2**63), str(-(2**63) - 1), HUGE, '"1"')),
        *(("stop", value) for value in ('""', '["a", ""]', "5", "[1]")),
        *(("stop", json.dumps(value)) for value in ("x" * 257, ["x"] * 17, ["x"] * 1000)),
        *(("stream", value) for value in ("1", '"yes"', "null")),
        *(("question", value) for value in ("5", "null", "true", '["What is 2 plus 2?"]', '""', '" \\n\\t "')),
        ("question", '"\u3000\u3000"'),  # the space of Chinese and Japanese text
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_a_wrong_value_is_refused_naming_its_field(client: httpx2.Client, field: str, value: str) -> None:
    fields = {"question": f'"{QUESTION}"', field: value}
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"
    error = refused(client.post("/predict", content=body.encode(), headers=JSON), 422)
    assert error["param"].split(".")[0] == field
    assert error["message"].startswith(field)


def test_all_mistakes_are_reported_at_once(client: httpx2.Client) -> None:
    message = refused(client.post("/predict", json={"temperature": -1, "top_p": 7, "max_token": 5}), 422)["message"]
    for field in ("question", "temperature", "top_p", "max_token"):
        assert f"{field}: " in message


@pytest.mark.parametrize(
    "name, near",
    [
        ("max_token", "max_new_tokens"),
        ("prompt", ""),
        ("Question", "question"),
        ("a[0]", ""),
        ("ü", ""),
        ("top-p", "top_p"),
    ],
)
def test_an_unknown_field_is_named_with_a_suggestion(client: httpx2.Client, name: str, near: str) -> None:
    error = refused(client.post("/predict", json={"question": QUESTION, name: 5}), 422)
    assert error["param"] == name
    meant = f"; did you mean {near}?" if near else ""
    assert error["message"] == f"{name}: Extra inputs are not permitted{meant}"


def test_a_missing_question_is_named(client: httpx2.Client) -> None:
    assert refused(client.post("/predict", json={}), 422)["message"] == "question: Field required"


@pytest.mark.parametrize("most", [129, 10**6, -1])
def test_max_new_tokens_is_lowered_to_the_context(client: httpx2.Client, most: int) -> None:
    answer = client.post("/predict", content=body_of(max_new_tokens=most), headers=JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["total_tokens"] <= 128


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"top_k": 0}, {"top_k": 10_000}, {"top_k": 2**31 - 1}, {"top_p": 1}, {"max_new_tokens": 128}]
    + [{"stop": []}, {"stop": ["x" * 256] * 16}, {"seed": -(2**63)}, {"seed": 2**63 - 1}, {"stream": False}]
    + [dict.fromkeys(("max_new_tokens", "temperature", "top_p", "top_k", "stop", "seed"))],
    ids=str,
)
def test_values_at_their_limits_are_accepted(client: httpx2.Client, options: dict[str, Any]) -> None:
    for sampled in ({}, {"temperature": 1.0}) if "temperature" not in options else ({},):
        response = client.post("/predict", json={"question": QUESTION, **sampled, **options})
        assert response.status_code == 200, response.text
        assert sampled or response.json()["answer"] == ANSWER


@pytest.mark.parametrize("question", ["a\0b", "\u200b", "🙂" * 5, "e\u0301", "\u202ereversed", "{{ 1 / 0 }}"])
def test_unusual_texts_are_accepted_as_questions(client: httpx2.Client, question: str) -> None:
    response = client.post("/predict", json={"question": question, "max_new_tokens": 2})
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] in (1, 2)


def test_the_name_of_a_special_token_in_a_question_is_text(client: httpx2.Client) -> None:
    def tokens(question: str) -> int:
        response = client.post("/predict", json={"question": question, "max_new_tokens": 1})
        assert response.status_code == 200, response.text
        return int(response.json()["usage"]["prompt_tokens"])

    assert tokens(f"What{END}is") - tokens("What is") > 3


def test_a_body_over_the_limit_is_too_large(client: httpx2.Client) -> None:
    error = refused(client.post("/predict", json={"question": "a" * 10_000_000}), 413)
    assert error["code"] == "too_large"
    assert "1048576 bytes" in error["message"]


def test_a_body_of_unknown_length_over_the_limit_is_too_large(client: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b" " * 2**16] * 16
        yield b" "

    response = client.post("/predict", content=chunks(), headers=JSON)
    assert "content-length" not in response.request.headers
    assert refused(response, 413)["code"] == "too_large"


def test_a_body_of_unknown_length_within_the_limit_is_read(client: httpx2.Client) -> None:
    response = client.post("/predict", content=iter([b" " * 2**16] * 15 + [body_of()]), headers=JSON)
    assert "content-length" not in response.request.headers
    assert response.status_code == 200, response.text
    assert response.json()["answer"] == ANSWER


def test_a_question_that_is_too_long_is_refused_with_its_length_and_the_limit(client: httpx2.Client) -> None:
    body = json.dumps({"question": ""}).encode()
    text = b"x" * (2**20 - len(body))
    assert len(body[:-2] + text + body[-2:]) == 2**20  # the largest body that is read
    error = refused(client.post("/predict", content=body[:-2] + text + body[-2:], headers=JSON), 400)
    assert error["code"] == "context_length_exceeded"
    tokens = int(error["message"].partition(" resulted in ")[2].partition(" ")[0])
    assert len(text) < tokens < len(text) + 100  # the letter is not in the tiny vocabulary's words
    assert "127 of which fit" in error["message"] and "maximum context length is 128 " in error["message"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "abc", "", "1e9", "1 s", "0x10"])
def test_an_invalid_time_limit_is_refused(client: httpx2.Client, value: str) -> None:
    response = client.post("/predict", json={"question": QUESTION}, headers={"X-Request-Timeout": value})
    error = refused(response, 422) if value != "0x10" else response.json()["error"]
    assert response.status_code == 422
    assert error["param"] == "x-request-timeout"
    assert error["message"].startswith("x-request-timeout: ")


def test_unusual_headers_do_no_harm(client: httpx2.Client) -> None:
    odd = [("x-request-timeout", "30"), ("x-request-timeout", "60"), ("authorization", "Nonsense"), ("cookie", "=;;=")]
    odd += [("accept", "image/png"), ("accept-encoding", "zstd;q=nan"), ("range", "bytes=5-1"), ("x-long", "y" * 8000)]
    response = client.post("/predict", json={"question": QUESTION}, headers=odd)
    assert response.status_code == 200, response.text
    assert response.json()["answer"] == ANSWER


@pytest.mark.parametrize(
    "method, path, status",
    [
        *(("GET", path, 405) for path in ("/predict", "/v1/chat/completions")),
        *(("POST", path, 405) for path in ("/", "/v1/models", "/metrics", "/health/live", "/health/ready")),
        *((method, "/predict", 405) for method in ("PUT", "DELETE", "PATCH", "OPTIONS")),
        *(("GET", path, 404) for path in ("/nothing", "/v1", "/predict/x", "/../etc/passwd", "/%00", "/health/x")),
        *(("POST", path, 404) for path in ("/v1/completions", "/v1/embeddings", "/generate")),
    ],
)
def test_a_wrong_method_or_path_is_refused(client: httpx2.Client, method: str, path: str, status: int) -> None:
    error = refused(client.request(method, path), status)
    assert error["code"] == {404: "not_found", 405: "method_not_allowed"}[status]


def test_an_internal_error_has_the_form_of_every_error_and_is_counted() -> None:
    app = FastAPI()
    add_routes(app, Settings(model="nobody started it"))
    inside = httpx2.ASGITransport(app, raise_app_exceptions=False)

    async def get() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=inside, base_url="http://here") as client:
            return await client.get("/v1/models")

    before = metrics.REGISTRY.get_sample_value("kickoff_requests_total", {"route": "/v1/models", "code": "500"}) or 0
    response = asyncio.run(get())
    assert response.status_code == 500
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert response.json()["error"]["type"] == "server_error"
    after = metrics.REGISTRY.get_sample_value("kickoff_requests_total", {"route": "/v1/models", "code": "500"})
    assert after == before + 1


def test_the_server_still_answers_after_bad_input(client: httpx2.Client) -> None:
    response = client.post("/predict", json={"question": QUESTION})
    assert response.status_code == 200
    assert response.json()["answer"] == ANSWER
    assert response.json()["usage"]["completion_tokens"] == 7


def test_no_bad_input_caused_an_internal_error(client: httpx2.Client) -> None:
    families = text_string_to_metric_families(client.get("/metrics").text)
    (requests,) = [family for family in families if family.name == "kickoff_requests"]
    counted = [sample.labels for sample in requests.samples if sample.name == "kickoff_requests_total"]
    assert {"route": "/predict", "code": "200"} in counted
    # /health/ready says 503 while the model loads
    assert not [labels for labels in counted if labels["code"] >= "500" and labels["route"] != "/health/ready"]
