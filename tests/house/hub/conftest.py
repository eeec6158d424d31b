"""The test Hub with users, their client, and a folder to upload."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_clients import point_clients
from hub_server import HubServer
from hub_users import OWNER, READER, STRANGER, set_timeout
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.utils._http import default_client_factory


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        point_clients(monkeypatch, server, tmp_path / "cache")
        server.users = {
            OWNER: {"name": "ada", "role": "write"},
            READER: {"name": "ada", "role": "read"},
            STRANGER: {"name": "bob", "role": "write"},
        }
        set_timeout(20)  # the client's own default is none, and a mistake here must not hang
        yield server
        set_client_factory(default_client_factory)


@pytest.fixture
def api(server: HubServer) -> HfApi:
    return HfApi(endpoint=server.url, token=OWNER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")
    (folder / "sub" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(2_000_000))
    return folder
