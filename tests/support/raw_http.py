"""Requests over raw sockets, since no client library sends half of one; and their answers as bytes or parsed."""

import json
import socket
from typing import Any

from served import Served
from tiny import ROWS

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
KEY = "a-secret-of-the-tests"


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
