"""A repository of the test Hub, its users, and how often they asked."""

from pathlib import Path

import httpx2
from hub_server import HubServer
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"
REPO = "ada/model"
PUT, COMMIT = r"^/lfs/", r"/commit/main$"


def set_timeout(seconds: float) -> None:
    limits = httpx2.Timeout(seconds)

    def limit(request: httpx2.Request) -> None:
        # repo_info, and with it snapshot_download, overrides the timeout of the client by None.
        if all(value is None for value in request.extensions["timeout"].values()):
            request.extensions["timeout"] = limits.as_dict()

    def factory() -> httpx2.Client:
        client = default_client_factory()
        client.timeout = limits
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], limit]}
        return client

    set_client_factory(factory)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def count(server: HubServer, method: str, part: str) -> int:
    return sum(1 for m, path, _ in server.requests if m == method and part in path)
