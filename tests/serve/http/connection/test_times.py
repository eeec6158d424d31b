"""The times of a connection, and its answers byte by byte, in a server of one small application that has every case."""

import asyncio
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn

from serve.http import connection
from serve.http.connection import Connection

LARGE = 16 * 2**20
"""Bytes, more than the system buffers."""
GET = b"GET /%s HTTP/1.1\r\nHost: here\r\n%s\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """/large, /slow (2 s), /refused (at once, before its body), /empty, /stream, which tells no length, and others."""
    path = scope["path"]
    if path != "/refused":
        while (await receive())["more_body"]:
            pass
    if path == "/slow":
        await asyncio.sleep(2)
    body = {"/large": b"x" * LARGE, "/empty": b""}.get(path, b"done")
    length = [] if path in ("/stream", "/empty") else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 204 if path == "/empty" else 200, "headers": length})
    await send({"type": "http.response.body", "body": body[:2], "more_body": True})
    await send({"type": "http.response.body", "body": body[2:]})


@contextmanager
def serving(read: float = 30, answer: float = 30, keep_alive: float = 30) -> Iterator[socket.socket]:
    """A connection to the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http: Any = partial(Connection, read_seconds=read, answer_seconds=answer, listener=listener)
        config = uvicorn.Config(
            app, http=http, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=keep_alive,  # type: ignore[arg-type]
            server_header=False, date_header=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with closing(socket.socket()) as client:
                client.settimeout(20)
                client.connect(listener.getsockname())
                yield client
        finally:
            server.should_exit = True
            thread.join(20)


def everything(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(2**16):
        received += data
    return received


def answer(client: socket.socket) -> bytes:
    """The body of one answer with a length."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + _length(received[:end]):
        assert (data := client.recv(2**20)), "it was cut off"
        received += data
    return received[end + 4 :]


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GRACE_SECONDS", 0.5)


@pytest.mark.parametrize("upload", [False, True], ids=["asked at once", "asked slowly"])
def test_a_request_is_not_cut_off_at_the_deadline_of_the_one_before_it(upload: bool) -> None:
    """Of the first answer something is left to send when it is complete, and the client reads it in time."""
    with serving() as client:
        client.sendall(GET % (b"large", b"X-Request-Timeout: 0.5\r\n"))
        time.sleep(0.2)
        assert answer(client) == b"x" * LARGE
        sent = (GET % (b"slow", b"Content-Length: 4\r\n")).replace(b"GET", b"POST") + b"body"
        client.sendall(sent[:-1] if upload else sent)
        if upload:
            assert select.select([client], [], [], 1.5) == ([], [], []), "it was cut off"
            client.sendall(sent[-1:])
        assert answer(client) == b"done"


@pytest.mark.parametrize("path", [b"large", b"refused"])
def test_an_answer_that_nobody_reads_holds_its_connection_no_longer_than_its_deadline(path: bytes) -> None:
    """Also one that comes before the end of its request, behind another that is not read."""
    with serving(read=0.5, answer=0.5) as client:
        client.sendall(GET % (b"large", b""))
        if path == b"refused":
            client.sendall(GET % (path, b"Content-Length: 4\r\n"))
        time.sleep(2)
        with pytest.raises((ConnectionResetError, AssertionError)):
            answer(client)


@pytest.mark.parametrize(
    "method, path, body",
    [(b"GET", b"stream", b"done"), (b"HEAD", b"stream", b""), (b"GET", b"empty", b""), (b"HEAD", b"length", b"")]
    + [(b"GET", b"length", b"done")],
)
@pytest.mark.parametrize("version, header", [(b"1.0", b""), (b"1.0", b"Connection: keep-alive\r\n"), (b"0.9", b"")])
def test_a_client_of_http_1_0_gets_no_chunks(
    method: bytes, path: bytes, body: bytes, version: bytes, header: bytes
) -> None:
    with serving() as client:
        client.sendall((GET % (path, header)).replace(b"1.1", version).replace(b"GET", method))
        head, _, got = everything(client).lower().partition(b"\r\n\r\n")
    assert got == body
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert (b"content-length: 4" in head) == (path == b"length")


@pytest.mark.parametrize("version, expected", [(b"1.1", 1), (b"1.0", 0)])
def test_a_client_of_http_1_0_gets_no_100_continue(version: bytes, expected: int) -> None:
    with serving(read=1) as client:
        sent = GET % (b"length", b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n")
        client.sendall(sent.replace(b"GET", b"POST").replace(b"HTTP/1.1", b"HTTP/" + version))
        assert len(select.select([client], [], [], 0.5)[0]) == expected
        client.sendall(b"body")
        received = everything(client)
    assert received.count(b"HTTP/1.1 100 Continue\r\n\r\n") == expected and received.endswith(b"done")


def test_a_complete_request_gets_no_100_continue() -> None:
    """Its client may have closed its half, and bytes of the answer gone ahead to see whether it is still there."""
    with serving() as client:
        sent = GET % (b"slow", b"Expect: 100-continue\r\nContent-Length: 4\r\n")
        client.sendall((sent.replace(b"GET", b"POST") + b"body") * 2)
        client.shutdown(socket.SHUT_WR)
        received = everything(client)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"\r\n\r\ndone") == 2
    assert received.count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "blank lines"])
def test_a_connection_without_a_request_is_idle(sent: bytes) -> None:
    """A browser's connection that waits for its first use is kept as long as any, and not for ever."""
    with serving(read=0.3, keep_alive=2) as client:
        client.sendall(sent)
        assert select.select([client], [], [], 1) == ([], [], []), "it was closed"
        assert everything(client) == b""
    with serving(read=2, keep_alive=0) as client:
        assert select.select([client], [], [], 1) == ([], [], []), "a request would have this time, too"
        assert everything(client) == b""


@pytest.mark.parametrize("waited", [False, True])
def test_a_half_sent_first_request_has_the_time_of_a_request_from_its_first_byte(waited: bool) -> None:
    with serving(read=0.5, keep_alive=3) as client:
        time.sleep(1 if waited else 0)
        client.sendall(GET[:5])
        assert everything(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("after", [b"\r\n", b""])
@pytest.mark.parametrize("path", [b"length", b"slow", b"refused"])
def test_a_connection_is_idle_again_after_its_answer(path: bytes, after: bytes) -> None:
    """Whether a body came after its answer, or the empty line that old clients send behind a body."""
    with serving(read=0.5, keep_alive=1.5) as client:
        sent = (GET % (path, b"Content-Length: 4\r\n")).replace(b"GET", b"POST")
        client.sendall(sent if path == b"refused" else sent + b"body" + after)
        assert answer(client) == b"done"
        if path == b"refused":
            client.sendall(b"body" + after)
        assert select.select([client], [], [], 1) == ([], [], []), "it was closed"
        assert everything(client) == b""


@pytest.mark.parametrize(
    "second",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 2**16,
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\0\1",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ]
    + [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"],
    ids=["long head", "no colon", "no request", "no address", "body"],
)
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_wrong_request_behind_another_does_not_spoil_its_answer(second: bytes, half_closed: bool) -> None:
    with serving() as client:
        client.sendall(GET % (b"slow", b"") + second[:20])
        time.sleep(0.2)
        client.sendall(second[20:])
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        received = everything(client)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n") and received.endswith(b"\r\n\r\ndone")
    assert received.count(b"HTTP/1.1 ") == 1
