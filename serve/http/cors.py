"""CORS: which other sites' pages may call this server from a browser. None, unless --cors-origin names their origin.

It knows origins as browsers send them, and the options of starlette's middleware. Programs such as curl need no CORS.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
DAY = 86400


def origin(text: str) -> str:
    """Return `text` if it is an origin exactly as browsers send it; "*" stands for any.

    Raises:
        ValueError: no browser would send it, so it would match no page; the text says what to write.
    """
    if text == "*":
        return text
    expected = "expected an origin such as https://example.com or http://localhost:3000, or *"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"found {text!r} ({error}), {expected}") from None
    if parts.scheme not in PORTS or not parts.hostname or re.search(r"[^!-~]|[*,;]", text):
        raise ValueError(f"found {text!r}, {expected}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    sent = f"{parts.scheme}://{host}" + ("" if port in (None, PORTS[parts.scheme]) else f":{port}")
    if text != sent:
        raise ValueError(f"found {text!r}, and browsers send {sent!r}: write that")
    return text


def options(origins: Sequence[str]) -> dict[str, Any]:
    """The options of starlette's CORSMiddleware for these origins.

    Any header may be sent (OpenAI's client sends a dozen of its own). Cookies are not allowed: the key is a header.
    """
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "HEAD", "POST"),
        "allow_headers": ("*",),
        "expose_headers": ("X-Request-Id", "Retry-After"),
        "max_age": DAY,
    }
