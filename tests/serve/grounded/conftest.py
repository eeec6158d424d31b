"""A published grounded generator, and a server that runs it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served
from tiny_grounded import publish


@pytest.fixture(scope="session")
def grounded_folder(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(fetched, tmp_path_factory.mktemp("grounded") / "tiny")


@pytest.fixture(scope="session")
def grounded(grounded_folder: Path) -> Iterator[Served]:
    with Served(grounded_folder) as running:
        yield running
