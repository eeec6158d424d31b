"""Decompresses gzip bodies, up to the size limit of plain ones; refuses any other Content-Encoding with 415.

It knows Content-Encoding and gzip. It does not know what a body says.
"""

import asyncio
import zlib

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.errors import error_body
from serve.http.middleware import replay, send_json, send_too_large

GZIP = 16 + zlib.MAX_WBITS
"""zlib's wbits value for gzip's header and checksum."""
SMALL = 2**14
"""Compressed bytes that are unpacked directly, in a millisecond; more are unpacked in a thread."""
MOST_MEMBERS = 100
"""Members of one gzip file. Tools write one; thousands of empty ones would take long at few bytes."""
ACCEPTED = {"accept-encoding": "gzip"}


class TooLarge(Exception):
    """The unpacked body is over the limit, or has too many members."""


class Unpack:
    """The middleware; the body must be complete when it arrives here. `most` limits the unpacked bytes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encodings = _encodings(scope)
        if not encodings:
            return await self.app(scope, receive, send)
        if encodings not in (["gzip"], ["x-gzip"]):
            named = ", ".join(encodings)[:100]
            message = f"Content-Encoding: found {named!r}, expected gzip, or an uncompressed body without this header"
            body = error_body(message, "invalid_request_error", "unsupported_encoding")
            return await send_json(send, 415, body, ACCEPTED)
        packed = (await receive())["body"]
        try:
            content = unpack(packed, self.most) if len(packed) <= SMALL else await self._unpack_in_thread(packed)
        except TooLarge:
            return await send_too_large(send, self.most)
        except (zlib.error, EOFError) as error:
            message = f"the body is not gzip, although its header Content-Encoding says so: {error}"
            return await send_json(send, 400, error_body(message, "invalid_request_error", "invalid_body"), {})
        about = (b"content-encoding", b"content-length")
        headers = [(name, value) for name, value in scope["headers"] if name not in about]
        headers.append((b"content-length", str(len(content)).encode()))
        scope["headers"] = headers
        return await self.app(scope, replay(content, receive), send)

    async def _unpack_in_thread(self, packed: bytes) -> bytes:
        return await asyncio.to_thread(unpack, packed, self.most)


def unpack(packed: bytes, most: int) -> bytes:
    """Return the content of all members of a gzip file.

    Raises:
        TooLarge: the content is over `most` bytes, of which no more have been unpacked, or there are too many members.
        EOFError: the file is truncated.
        zlib.error: it is not gzip.
    """
    content, members = bytearray(), 0
    while packed:
        members += 1
        if members > MOST_MEMBERS:
            raise TooLarge
        member = zlib.decompressobj(GZIP)
        content += member.decompress(packed, most + 1 - len(content))
        if len(content) > most:
            raise TooLarge
        if not member.eof:
            raise EOFError("it ends too early")
        packed = member.unused_data.lstrip(b"\0")  # gzip's own tools pad a file with zeros
    return bytes(content)


def _encodings(scope: Scope) -> list[str]:
    if scope["type"] != "http":
        return []
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    words = [word.strip().lower() for value in values for word in value.split(",")]
    return [word for word in words if word not in ("", "identity")]
