"""The clients of this process before the test Hub, and the token with which they may write."""

from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants

TOKEN = "hf_aSecretThatMustNotBeSeen"


def point_clients(monkeypatch: pytest.MonkeyPatch, server: HubServer, cache: Path) -> None:
    """Let the clients of this process find the test Hub; they read all this from the environment at import."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
