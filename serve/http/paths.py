"""Normalizes addresses: repeated and trailing slashes are removed, and HEAD is routed as GET.

It knows ASGI's scope. It does not know which addresses exist.
"""

import re

from starlette.types import Scope


def normalize(path: str) -> str:
    """Remove repeated slashes and the one at the end."""
    return re.sub("/{2,}", "/", path).rstrip("/") or "/"


def as_route(scope: Scope) -> Scope:
    """Return the scope for routing. The server keeps its own one, by which it omits the body of a response to HEAD."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": normalize(scope["path"]), "state": scope.setdefault("state", {})}
