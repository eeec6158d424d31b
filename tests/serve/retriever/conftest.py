"""A published retriever, and a server that runs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served
from tiny_retriever import publish


@pytest.fixture(scope="session")
def retriever_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("retriever") / "tiny")


@pytest.fixture(scope="session")
def retriever(retriever_folder: Path) -> Iterator[Served]:
    with Served(retriever_folder) as running:
        yield running
