"""What a client does with its connection: half-sent requests, heads without end, half-closed and unread connections.

Raw sockets, since no client library lets one do this. Times are bounds that the server keeps, never measured.
"""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from processes import until
from served import Served
from tiny import ROWS

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
KEY = "a-secret-of-the-tests"
ENDLESS = 3000
"""Tokens that take the endless model some seconds."""


@pytest.fixture(scope="module")
def hasty(published: Path) -> Iterator[Served]:
    """Gives a second to ask, and asks for a key."""
    with Served(published, "--read-seconds", "1", KICKOFF_API_KEY=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def slow(never_ending: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each of its chunks names the model, and so has 4 KB: seconds of them are more than the system buffers."""
    folder = tmp_path_factory.mktemp("long").joinpath(*["x" * 250] * 15)
    folder.mkdir(parents=True)
    (folder / "tiny").symlink_to(never_ending)
    with Served(folder / "tiny") as running:
        yield running


def connect(server: Served, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    return connection


def request(path: str, body: dict[str, Any] | None = None, version: str = "1.1", **headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/{version}", "Host: here", f"X-API-Key: {KEY}"]
    lines += [f"Content-Type: application/json\r\nContent-Length: {len(content)}"] if content else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def everything(connection: socket.socket) -> bytes:
    """All until the server closes; that it does is half of what is tested."""
    received = b""
    while data := connection.recv(2**16):
        received += data
    return received


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def refused(answer: bytes, status: int, code: str) -> None:
    got, headers, body = parsed(answer)
    assert (got, headers["content-type"], headers["connection"]) == (status, "application/json", "close")
    assert len(headers["x-request-id"]) == 32
    assert json.loads(body)["error"]["code"] == code


def held(server: Served) -> float:
    return server.metric("kickoff_running") + server.metric("kickoff_waiting")


@pytest.mark.parametrize("end", [4, -4, -2], ids=["in its first word", "in its last header", "before its last line"])
def test_a_head_that_stops_gets_408(hasty: Served, end: int) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/v1/models")[:end])
        refused(everything(connection), 408, "request_timeout")


def test_a_head_that_stops_gets_408_on_a_kept_connection_too(hasty: Served) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/health/live"))
        first = b""
        while b"ok" not in first:
            first += connection.recv(2**16)
        connection.sendall(b"POST /predict HT")
        refused(everything(connection), 408, "request_timeout")


def test_a_body_that_stops_gets_408(hasty: Served) -> None:
    before = hasty.metric("kickoff_rejected_total", reason="slow")
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/predict", {"question": QUESTION})[:-1])
        refused(everything(connection), 408, "request_timeout")
    assert hasty.metric("kickoff_rejected_total", reason="slow") == before + 1


@pytest.mark.parametrize("at", [20, -30], ids=["the head", "the body"])
def test_what_comes_byte_by_byte_gets_408_all_the_same(hasty: Served, at: int) -> None:
    """Each byte is in time, and the whole is not."""
    whole = request("/predict", {"question": QUESTION})
    with closing(connect(hasty)) as connection:
        connection.sendall(whole[:at])
        for byte in whole[at:]:
            if select.select([connection], [], [], 0.2)[0]:
                break
            connection.sendall(bytes([byte]))
        else:
            pytest.fail("all of it was taken")
        refused(everything(connection), 408, "request_timeout")


def test_a_body_that_stops_after_its_refusal_holds_no_connection(hasty: Served) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/predict", {"question": QUESTION}).replace(KEY.encode(), b"wrong")[:-1])
        assert parsed(everything(connection))[0] == 401


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2**20,
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 2**20,
        b"GET / HTTP/1.1\r\n" + b"X-Short: a\r\n" * 2**16,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: " + b"a" * 2**20,
    ],
    ids=["address", "one header", "many headers", "trailers"],
)
def test_a_head_without_end_gets_431_or_is_cut(hasty: Served, head: bytes) -> None:
    with closing(connect(hasty)) as connection:
        received = b""
        try:
            connection.sendall(head)
            received = everything(connection)
        except ConnectionError:
            pass  # the answer may be lost to a client that goes on sending
        assert not received or parsed(received)[0] in (431, 401)
    assert hasty.metric("kickoff_requests_total", code="431") > 0


@pytest.mark.parametrize("size, status", [(2**15 + 1, 431), (2**15 - 500, 401)])
def test_a_long_head_gets_431_before_a_key_is_asked_for(hasty: Served, size: int, status: int) -> None:
    with closing(connect(hasty)) as connection:
        sent = request("/v1/models", Connection="close", X_Long="a" * size).replace(KEY.encode(), b"wrong")
        connection.sendall(sent)
        assert parsed(everything(connection))[0] == status


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"HELO there\r\n"]
    + [b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
    + [b"GET /%%%#[ HTTP/1.1\r\n\r\n"],
    ids=["TLS", "no colon", "SMTP", "CONNECT", "no ASCII", "length", "odd address"],
)  # fmt: skip
def test_what_is_no_http_gets_400_in_the_form_of_every_error(hasty: Served, sent: bytes) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(sent)
        if b"[" in sent:
            connection.shutdown(socket.SHUT_WR)  # it is HTTP, and the connection would be kept
        answer = everything(connection)
    if b"[" in sent:
        assert parsed(answer)[0] in (400, 401)
    else:
        refused(answer, 400, "invalid_http")


def test_trailers_are_no_headers(hasty: Served) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with closing(connect(hasty)) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\nX-API-Key: " + KEY.encode() + b"\r\n\r\n")
        assert parsed(everything(connection))[0] == 401


def test_garbage_after_a_request_does_not_spoil_its_answer(hasty: Served) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/predict", {"question": QUESTION}) + b"\x00\x01garbage\r\n\r\n")
        status, _, body = parsed(everything(connection))
    assert (status, json.loads(body)["answer"]) == (200, ANSWER)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_half_closed_client_gets_its_answer(slow: Served, version: str, stream: bool) -> None:
    with closing(connect(slow)) as connection:
        body = {"question": QUESTION, "max_new_tokens": 300, "stream": stream}
        connection.sendall(request("/predict", body, version))
        connection.shutdown(socket.SHUT_WR)
        status, headers, content = parsed(everything(connection))
    assert (status, headers["connection"]) == (200, "close")
    chunked = stream and version == "1.1"
    assert headers.get("transfer-encoding") == ("chunked" if chunked else None)
    if stream and not chunked:
        assert [one.partition(b"\n")[0] for one in content.split(b"\n\n")] == [
            *[b"event: delta"] * (content.count(b"\n\n") - 1),
            b"event: done",
            b"",
        ]
    assert b'"completion_tokens":300' in content.replace(b" ", b"")


def test_a_half_closed_client_gets_all_that_it_has_asked(slow: Served) -> None:
    with closing(connect(slow)) as connection:
        body = {"question": QUESTION, "max_new_tokens": 100}
        connection.sendall(request("/predict", body) + request("/health/live") + request("/v1/models"))
        connection.shutdown(socket.SHUT_WR)
        answers = everything(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answers.index(b'"answer"') < answers.index(b'"ok"') < answers.index(b'"data"')


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_has_gone_frees_its_place(slow: Served, version: str, stream: bool, reset: bool) -> None:
    before = slow.metric("kickoff_cancelled_total")
    with closing(connect(slow)) as connection:
        body = {"question": QUESTION, "max_new_tokens": ENDLESS, "stream": stream}
        connection.sendall(request("/predict", body, version))
        until(lambda: slow.metric("kickoff_running") == 1)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: held(slow) == 0, 3)
    assert slow.metric("kickoff_cancelled_total") == before + 1


@pytest.mark.parametrize("behind", [1, 3])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_has_gone_frees_its_place_though_it_has_asked_for_more(
    slow: Served, behind: int, later: bool, whole: bool, reset: bool
) -> None:
    before = slow.metric("kickoff_cancelled_total")
    more = request("/health/live") * behind
    with closing(connect(slow)) as connection:
        long = request("/predict", {"question": QUESTION, "max_new_tokens": ENDLESS})
        connection.sendall(long if later else long + more[: None if whole else -4])
        until(lambda: slow.metric("kickoff_running") == 1)
        if later:
            connection.sendall(more[: None if whole else -4])
            time.sleep(0.2)  # it is read before the end is
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: held(slow) == 0, 3)
    assert slow.metric("kickoff_cancelled_total") == before + 1


def test_a_client_that_has_gone_before_its_second_request_began_frees_its_place(slow: Served) -> None:
    """The first answer finds it listening, or so it seems: nobody has refused a byte yet."""
    before = slow.metric("kickoff_cancelled_total")
    with closing(connect(slow)) as connection:
        short, long = ({"question": QUESTION, "max_new_tokens": tokens} for tokens in (100, ENDLESS))
        connection.sendall(request("/predict", short) + request("/predict", long))
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while b"total_ms" not in received:
            received += connection.recv(2**16)
        until(lambda: slow.metric("kickoff_running") == 1)
    until(lambda: held(slow) == 0, 3)
    assert slow.metric("kickoff_cancelled_total") == before + 1


def test_a_flood_of_requests_is_answered_in_its_order(slow: Served) -> None:
    with closing(connect(slow)) as connection:
        flood = request("/predict", {"question": QUESTION, "max_new_tokens": 400}) + request("/health/live") * 2000
        connection.sendall(flood)
        connection.shutdown(socket.SHUT_WR)
        answers = everything(connection)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2001
    assert answers.index(b'"answer"') < answers.index(b'"ok"')


def test_a_client_that_does_not_read_loses_its_places_a_little_after_its_deadline(slow: Served) -> None:
    """It asks for more, one after the other, than the system buffers: at one of them it is full."""
    messages = [{"role": "user", "content": QUESTION}]
    body = {"messages": messages, "n": 8, "stream": True, "max_tokens": 100}
    http = slow.children()["http"]
    with closing(connect(slow, receive_buffer=4096)) as connection:
        port = connection.getsockname()[1]
        connection.sendall(request("/v1/chat/completions", body, X_Request_Timeout="3") * 20)
        until(lambda: slow.metric("kickoff_running") == 8)
        until(lambda: not [one for one in http.net_connections("tcp") if one.raddr and one.raddr.port == port], 60)
        until(lambda: held(slow) == 0, 5)
        received = b""
        with suppress(ConnectionError):
            while data := connection.recv(2**20):
                received += data
        assert received.count(b"[DONE]") < 20, "not all was sent"


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
def test_an_offer_to_upgrade_is_left_alone(hasty: Served, protocol: str, pieces: int) -> None:
    """Java's HttpClient makes one with its first request. The body is read, and the connection goes on."""
    with closing(connect(hasty)) as connection:
        offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2_Settings": "AAEAAEAAAAIAAAAA"}
        for _ in range(2):
            sent = request("/predict", {"question": QUESTION}, **offer)
            size = -(-len(sent) // pieces)
            for at in range(0, len(sent), size):
                connection.sendall(sent[at : at + size])
            received = b""
            while b"total_ms" not in received:
                assert (data := connection.recv(2**16)), received
                received += data
            assert parsed(received)[0] == 200 and ANSWER.encode() in received
        chunked = request("/predict", None, Transfer_Encoding="chunked", Content_Type="application/json", **offer)
        body = json.dumps({"question": QUESTION}).encode()
        connection.sendall(chunked.replace(b"GET", b"POST") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        connection.shutdown(socket.SHUT_WR)
        assert ANSWER.encode() in everything(connection)


def answered(connection: socket.socket) -> None:
    """Asks, and reads the answer to its end; the connection stays open."""
    connection.sendall(request("/predict", {"question": QUESTION}))
    received = b""
    while b"total_ms" not in received:
        assert (data := connection.recv(2**16)), received
        received += data
    status, headers, _ = parsed(received)
    assert (status, headers.get("connection")) == (200, None)


def test_an_idle_connection_is_kept_for_longer_than_a_request_may_take_to_arrive(hasty: Served) -> None:
    """And for longer than the 5 s that uvicorn has by itself."""
    with closing(connect(hasty)) as connection:
        answered(connection)
        assert select.select([connection], [], [], 6) == ([], [], []), "it was closed"
        answered(connection)


def test_an_idle_connection_is_closed_in_time_and_a_half_sent_request_on_it_is_no_idle_one(published: Path) -> None:
    with Served(published, "--keep-alive", "1", "--read-seconds", "3") as server:
        with closing(connect(server)) as connection:
            answered(connection)
            assert everything(connection) == b""
        with closing(connect(server)) as connection:
            answered(connection)
            connection.sendall(request("/predict", {"question": QUESTION})[:20])
            refused(everything(connection), 408, "request_timeout")
