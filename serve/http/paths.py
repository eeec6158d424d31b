"""One address, however it is written: doubled and trailing slashes count for nothing, and HEAD is a GET without body.

It knows ASGI's scope. It does not know which addresses there are.
"""

import re

from starlette.types import Scope


def normalize(path: str) -> str:
    """The path without doubled slashes and without one at its end."""
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


def as_route(scope: Scope) -> Scope:
    """The scope as the routes know it; the server leaves out the body of an answer to HEAD by the scope it made."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": normalize(scope["path"]), "state": scope.setdefault("state", {})}
