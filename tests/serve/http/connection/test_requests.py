"""Half-sent requests, heads without end, and what is no HTTP: each gets its status, and no connection is held.

Times are bounds that the server keeps, never measured.
"""

import json
import select
import socket
from contextlib import closing

import pytest
from raw_http import ANSWER, KEY, QUESTION, connect, everything, parsed, refused, request
from served import Served


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
def test_a_request_that_arrives_byte_by_byte_gets_408(hasty: Served, at: int) -> None:
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
def test_an_endless_head_gets_431_or_is_cut_off(hasty: Served, head: bytes) -> None:
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
def test_invalid_http_gets_400_in_the_form_of_every_error(hasty: Served, sent: bytes) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(sent)
        if b"[" in sent:
            connection.shutdown(socket.SHUT_WR)  # it is HTTP, and the connection would be kept
        answer = everything(connection)
    if b"[" in sent:
        assert parsed(answer)[0] in (400, 401)
    else:
        refused(answer, 400, "invalid_http")


def test_trailers_are_not_read_as_headers(hasty: Served) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with closing(connect(hasty)) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\nX-API-Key: " + KEY.encode() + b"\r\n\r\n")
        assert parsed(everything(connection))[0] == 401


def test_garbage_after_a_request_does_not_spoil_its_answer(hasty: Served) -> None:
    with closing(connect(hasty)) as connection:
        connection.sendall(request("/predict", {"question": QUESTION}) + b"\x00\x01garbage\r\n\r\n")
        status, _, body = parsed(everything(connection))
    assert (status, json.loads(body)["answer"]) == (200, ANSWER)
