"""A request's id: the client's or the proxy's own where it can be logged as it is, else a new one.

It knows one header. It does not know what is done with the id.
"""

import re
import uuid
from collections.abc import Iterable

HEADER = b"x-request-id"
LONGEST = 128


def new_id() -> str:
    return uuid.uuid4().hex


def id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What stands in X-Request-Id, if it is one word of printable ASCII."""
    given = next((value for name, value in headers if name == HEADER), b"")
    return given.decode() if len(given) <= LONGEST and re.fullmatch(rb"[!-~]+", given) else new_id()
