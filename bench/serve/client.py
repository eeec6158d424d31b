"""A small HTTP/1.1 client: one connection, kept alive, one request after the other, and when each part came.

The load runs on the cores that it measures, and a client that takes a tenth of them would be measured along. General
clients spend some hundred microseconds on a request and some ten on each event of a stream; this one knows only what
the measured servers send (a status, a length or chunks) and leaves reading the events to the time after the answer.
It knows neither what is asked nor what an answer looks like. No TLS, no redirects, no compression.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Response:
    """`parts` are the body as it came, each with its time; times are `time.perf_counter()`."""

    status: int
    sent: float
    ended: float
    parts: list[tuple[float, bytes]]

    @property
    def seconds(self) -> float:
        return self.ended - self.sent

    def json(self) -> Any:
        return json.loads(b"".join(data for _, data in self.parts))

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The JSON objects of server-sent events, each with the time at which it was complete."""
        found, rest = [], b""
        for at, data in self.parts:
            *whole, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
            found += [(at, content) for event in whole if (content := _content(event)) is not None]
        return found


def _content(event: bytes) -> dict[str, Any] | None:
    data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
    return json.loads(data) if data and data != b"[DONE]" else None


class Connection:
    """One connection to the loopback; it is opened when needed, and anew if the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Response:
        """
        Raises:
            OSError, EOFError, ValueError: no connection, one that ended in the middle, or no HTTP.
        """
        reader = await self.send(method, path, body)
        sent = self._sent
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        fields = dict(line.lower().split(b": ", 1) for line in head.rstrip().split(b"\r\n")[1:])
        parts = [(time.perf_counter(), data) async for data in _body(reader, fields)]
        if fields.get(b"connection") == b"close":
            self.close()
        return Response(status, sent, time.perf_counter(), parts)

    async def send(self, method: str, path: str, body: dict[str, Any] | None) -> asyncio.StreamReader:
        """The request alone, for a client that will not wait for the answer."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        self._sent = time.perf_counter()
        reader, writer = await self._open()
        writer.write(head.encode() + content)
        return reader

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof() or self._writer.is_closing():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self._reader, self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if fields.get(b"transfer-encoding") != b"chunked":
        yield await reader.readexactly(int(fields.get(b"content-length", b"0")))
        return
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
