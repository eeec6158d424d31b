"""Clients that half-close, go, flood, do not read or stay idle: each gets its answers, and its place becomes free."""

import json
import select
import socket
import struct
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from processes import until
from raw_http import ANSWER, QUESTION, connect, everything, parsed, refused, request
from served import Served

ENDLESS = 3000
"""Tokens that take the endless model some seconds."""


def held(server: Served) -> float:
    return server.metric("kickoff_running") + server.metric("kickoff_waiting")


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


def test_a_half_closed_client_gets_every_answer(slow: Served) -> None:
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
def test_an_upgrade_header_is_ignored(hasty: Served, protocol: str, pieces: int) -> None:
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
