"""Parses HTTP/1.1 and ignores offers to upgrade to HTTP/2 or WebSocket.

httptools stops after the head of such a request and never parses its body; Java's HttpClient offers HTTP/2 with its
first request.

It knows httptools and its callbacks. It does not know what they do.
"""

from typing import Any

import httptools

FRAMING = (b"content-length", b"transfer-encoding", b"connection")
"""The headers that decide where a request ends and whether another follows."""


class Parser:
    """Replaces `httptools.HttpRequestParser`; `protocol` has the callbacks. Methods are as in httptools."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.framing: list[tuple[bytes, bytes]] = []
        self.again = False
        self._parser = self._new()

    def _new(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # as in uvicorn: the first of two pipelined requests is answered even if it says `Connection: close`
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def feed_data(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises:
            httptools.HttpParserError: they are not HTTP.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parser = self._new()
            lines = [b"%s: %s\r\n" % one for one in self.framing if b"upgrade" not in one[1].lower()]
            self.again = True
            self._parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines]))
            self.feed_data(b"\r\n" + data[upgrade.args[0] :])

    def should_upgrade(self) -> bool:
        return False

    def should_keep_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    def get_http_version(self) -> str:
        return str(self._parser.get_http_version())

    def get_method(self) -> bytes:
        return bytes(self._parser.get_method())

    # httptools' callbacks; `again`: a second parser reads the same head, which has been reported

    def on_message_begin(self) -> None:
        if not self.again:
            self.framing = []
            self.protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.again:
            self.protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.again:
            return
        if name.lower() in FRAMING:
            self.framing.append((name, value))
        self.protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.again:
            self.protocol.on_headers_complete()
        self.again = False

    def on_body(self, body: bytes) -> None:
        self.protocol.on_body(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_upgrade():
            self.protocol.on_message_complete()
