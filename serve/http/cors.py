"""Pages of other sites: which of them may ask this server from a browser (CORS). Nobody, unless an origin is named.

It knows origins, as browsers send them, and the headers that let a page ask. Curl and other programs need none of this.
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
DAY = 86400


def origin(text: str) -> str:
    """The origin if a browser could send it as it is; "*" stands for any.

    Raises:
        ValueError: it never would, and so no page could ever ask; the text says what to write.
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
    """What starlette's CORSMiddleware takes. Any header may be sent (OpenAI's client sends a dozen of its own); cookies
    are never asked for, since the key comes in a header."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "HEAD", "POST"),
        "allow_headers": ("*",),
        "expose_headers": ("X-Request-Id", "Retry-After"),
        "max_age": DAY,
    }
