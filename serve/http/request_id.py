"""Finds a request's id: the one in X-Request-Id if it can be logged unchanged, else a new one.

It knows one header. It does not know what the id is used for.
"""

import re
import uuid
from collections.abc import Iterable

HEADER = b"x-request-id"
LONGEST = 128
"""Characters of an id."""


def new_id() -> str:
    """Make an id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the value of X-Request-Id if it is one word of printable ASCII, else a new id."""
    value = next((content for name, content in headers if name == HEADER), b"")
    return value.decode() if len(value) <= LONGEST and re.fullmatch(rb"[!-~]+", value) else new_id()
