"""The edge of the server: ids and the access log, the ways to write an address, HEAD, packed bodies, other sites."""

import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import Served
from tiny import ROWS

from serve.http.encoding import TooLarge, unpack

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
KEY = "a-secret-of-the-tests"
SECONDS = 60
LIMIT = 2**20
CHAT = {"messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=SECONDS) as client:
        yield client


def code(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("path, body", [("/predict", {"question": QUESTION}), ("/v1/chat/completions", CHAT)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_requests_id_comes_back(client: httpx2.Client, path: str, body: dict[str, Any], stream: bool) -> None:
    given = client.post(path, json={**body, "stream": stream}, headers={"X-Request-Id": "a/b-1:2.3~"})
    assert given.status_code == 200
    assert given.headers.get_list("x-request-id") == ["a/b-1:2.3~"]
    made = [client.post(path, json={**body, "stream": stream}).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in made) and made[0] != made[1]


@pytest.mark.parametrize(
    "method, path", [("GET", "/"), ("GET", "/docs"), ("GET", "/nothing"), ("POST", "/"), ("GET", "/metrics")]
)
def test_every_answer_has_an_id(client: httpx2.Client, guarded: Served, method: str, path: str) -> None:
    assert client.request(method, path, headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"
    without = httpx2.request(method, guarded.url + path, headers={"X-Request-Id": "mine"}, timeout=SECONDS)
    assert (without.status_code, without.headers["x-request-id"]) == (401, "mine")


def test_an_error_has_an_id_too(client: httpx2.Client) -> None:
    headers = {"X-Request-Id": "mine", "Content-Type": "application/json"}
    for content in (b"{", b"{}", b"a" * (LIMIT + 1)):
        assert client.post("/predict", content=content, headers=headers).headers["x-request-id"] == "mine"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "ü", "a\tb", "\x7f"])
def test_an_id_that_is_unsafe_to_log_is_replaced(client: httpx2.Client, given: str) -> None:
    response = client.get("/health", headers={b"x-request-id": given.encode()})
    assert response.status_code in (200, 400)
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready", "/metrics", "/v1/models", "/docs"])
def test_head_is_get_without_its_body(client: httpx2.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # it has changed meanwhile
        assert head.headers["content-length"] == get.headers["content-length"]


def test_head_on_a_post_route_is_refused(client: httpx2.Client) -> None:
    response = client.head("/predict")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", ["/predict/", "//predict", "/predict//", "///predict///"])
def test_extra_slashes_do_not_matter(server: Served, client: httpx2.Client, path: str) -> None:
    before = server.metric("kickoff_requests_total", route="/predict", code="200")
    response = httpx2.post(server.url + path, json={"question": QUESTION}, timeout=SECONDS)
    assert (response.status_code, response.json()["answer"]) == (200, ANSWER)
    assert server.metric("kickoff_requests_total", route="/predict", code="200") == before + 1


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "//v1//chat//completions"])
def test_extra_slashes_do_not_matter_in_a_chat(server: Served, path: str) -> None:
    response = httpx2.post(server.url + path, json=CHAT, timeout=SECONDS)
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("path", ["/health/", "//health/live", "/health//ready/", "/health"])
def test_health_needs_no_key_with_extra_slashes(guarded: Served, path: str) -> None:
    response = httpx2.get(guarded.url + path, timeout=SECONDS)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/v1/models/", "/predict/", "//metrics", "/health/x", "/health/live/x"])
def test_extra_slashes_do_not_bypass_the_key(guarded: Served, path: str) -> None:
    assert httpx2.get(guarded.url + path, timeout=SECONDS).status_code == 401


def packed(client: httpx2.Client, content: bytes, encoding: str = "gzip", path: str = "/predict") -> httpx2.Response:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    return client.post(path, content=content, headers=headers)


BODY = json.dumps({"question": QUESTION}).encode()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity, gzip"])
@pytest.mark.parametrize(
    "content",
    [gzip.compress(BODY), gzip.compress(BODY, 0), gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])]
    + [gzip.compress(BODY) + b"\0" * 10, gzip.compress(b" " * (LIMIT - len(BODY)) + BODY)],
    ids=["packed", "stored", "two members", "padded", "as large as a body may be"],
)
def test_a_gzip_body_is_unpacked(client: httpx2.Client, content: bytes, encoding: str) -> None:
    response = packed(client, content, encoding)
    assert (response.status_code, response.json().get("answer")) == (200, ANSWER)


def test_a_chat_may_be_compressed(client: httpx2.Client) -> None:
    response = packed(client, gzip.compress(json.dumps(CHAT).encode()), path="/v1/chat/completions")
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("content", [b" " * (LIMIT - len(BODY) + 1) + BODY, b" " * 2**28], ids=["one byte", "a bomb"])
def test_a_body_that_unpacks_to_more_than_the_limit_is_too_large(client: httpx2.Client, content: bytes) -> None:
    assert code(packed(client, gzip.compress(content))) == (413, "too_large")


def test_no_more_than_the_limit_is_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 2**26)
    for most in (0, 1, 1000, 2**26 - 1):
        with pytest.raises(TooLarge):
            unpack(bomb, most)
    with pytest.raises(TooLarge):
        unpack(gzip.compress(b"") * 101, 1000)
    assert unpack(bomb, 2**26) == b"\0" * 2**26


@pytest.mark.parametrize(
    "content",
    [BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY)[:5], zlib.compress(BODY), gzip.compress(BODY) + b"more"]
    + [gzip.compress(BODY)[:-8] + b"\1" * 8],
    ids=["plain", "cut", "cut in its head", "zlib", "something behind", "checksum"],
)
def test_a_body_that_is_not_gzip_is_refused(client: httpx2.Client, content: bytes) -> None:
    response = packed(client, content)
    assert code(response) == (400, "invalid_body")
    assert "is not gzip" in response.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "nonsense"])
def test_another_encoding_is_refused_naming_gzip(client: httpx2.Client, encoding: str) -> None:
    response = packed(client, gzip.compress(BODY), encoding)
    assert code(response) == (415, "unsupported_encoding")
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("encoding", ["", "identity", "gzip"])
def test_an_empty_encoding_is_ignored(client: httpx2.Client, encoding: str) -> None:
    assert client.get("/v1/models", headers={"Content-Encoding": encoding}).status_code == 200


@pytest.fixture(scope="module")
def logged(published: Path) -> list[dict[str, Any]]:
    """What a server with --log-json has printed, from its start to its end, while all kinds of requests came."""
    with Served(published, "--log-json", KICKOFF_API_KEY=KEY) as server:
        with httpx2.Client(base_url=server.url, headers={"X-API-Key": KEY}, timeout=SECONDS) as client:
            client.post("/predict", json={"question": QUESTION}, headers={"X-Request-Id": "whole"})
            client.post("/predict", json={"question": QUESTION, "stream": True}, headers={"X-Request-Id": "stream"})
            client.post("/v1/chat/completions", json={**CHAT, "n": 2}, headers={"X-Request-Id": "chat"})
            client.post("/predict", json={}, headers={"X-Request-Id": "invalid"})
            client.head(f"{server.url}//health/?question={KEY}", headers={"X-Request-Id": "head"})
            client.get("/" + "a" * 1000, headers={"X-Request-Id": "long"})
            client.get("/metrics", headers={"X-API-Key": "wrong", "X-Request-Id": "no key"})
        server.stop()
        return [json.loads(line) for line in server.output().splitlines()]


def test_every_request_has_one_line(logged: list[dict[str, Any]]) -> None:
    lines = {line["request_id"]: line for line in logged if "request_id" in line}
    told = [
        (id, *(lines[id].get(name) for name in ("method", "path", "status", "tokens_in", "tokens_out")))
        for id in ("whole", "stream", "chat", "invalid", "head")
    ]
    tokens_in = lines["whole"]["tokens_in"]
    assert tokens_in > 3
    assert told == [
        ("whole", "POST", "/predict", 200, tokens_in, 7),
        ("stream", "POST", "/predict", 200, tokens_in, 7),
        ("chat", "POST", "/v1/chat/completions", 200, tokens_in, 14),
        ("invalid", "POST", "/predict", 422, None, None),
        ("head", "HEAD", "//health/", 200, None, None),
    ]
    assert all(line["ms"] > 0 and line["level"] == "info" and "cut" not in line for line in lines.values())
    assert (lines["long"]["status"], len(lines["long"]["path"])) == (404, 200)
    assert [line["status"] for line in logged if line.get("path") == "/metrics"] == [401]
    assert len([line for line in logged if line.get("path") == "/predict"]) == 3


def test_the_log_holds_no_question_no_answer_and_no_key(logged: list[dict[str, Any]]) -> None:
    text = json.dumps(logged)
    for secret in (KEY, QUESTION, ANSWER, "plus"):
        assert secret not in text


def test_every_line_of_every_process_is_json_with_a_time(logged: list[dict[str, Any]]) -> None:
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in logged)
    assert any("engine: ready" in line["message"] for line in logged)
    assert any("stopping" in line["message"] for line in logged)


def test_the_line_for_people_says_the_same(never_ending: Path) -> None:
    body = {"question": QUESTION, "max_new_tokens": 2000}
    with Served(never_ending) as server:
        httpx2.post(f"{server.url}/predict", json={**body, "max_new_tokens": 3}, headers={"X-Request-Id": "ended"})
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(f"{server.url}/predict", json=body, headers={"X-Request-Id": "left"}, timeout=1)
        with httpx2.stream(
            "POST", f"{server.url}/predict", json={**body, "stream": True}, headers={"X-Request-Id": "cut"}
        ) as response:
            next(response.iter_raw())
        httpx2.get(f"{server.url}/health")
        server.stop()
        lines = [line for line in server.output().splitlines() if "request_id=" in line]
    prefix = r"\d\d:\d\d:\d\d POST /predict"
    tokens = r"ms=[\d.]+ tokens_in=\d+ tokens_out"
    assert re.fullmatch(rf"{prefix} 200 {tokens}=3 request_id=ended", next(one for one in lines if "ended" in one))
    assert re.fullmatch(rf"{prefix} 499 {tokens}=\d+ request_id=left", next(one for one in lines if "left" in one))
    assert re.fullmatch(
        rf"{prefix} 200 {tokens}=\d+ request_id=cut cut=True", next(one for one in lines if "=cut" in one)
    )


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("Transfer-Encoding: chunked\r\n\r\nno number\r\n", "POST /predict 400"),
        ("Accept: x\r\nno header\r\n\r\n", "- - 400"),
    ],
    ids=["body", "head"],
)
def test_a_request_that_breaks_off_has_one_line_with_its_own_id(rest: str, told: str, published: Path) -> None:
    with Served(published) as server:
        with socket.create_connection(("127.0.0.1", httpx2.URL(server.url).port), timeout=SECONDS) as client:
            client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n{rest}".encode())
            answer = b"".join(iter(lambda: client.recv(4096), b"")).decode().lower()
        server.stop()
        said = server.output()
    assert answer.startswith("http/1.1 400")
    assert "\r\nx-request-id: mine\r\n" in answer
    assert [line.split(" ", 1)[1].split(" ms=")[0] for line in said.splitlines() if "request_id=mine" in line] == [told]
    assert said.count(" 400 ") == 1, "no other line of it"
    assert "Invalid HTTP request" not in said
