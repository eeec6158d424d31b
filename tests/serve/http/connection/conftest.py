"""Servers for raw sockets: one that waits for no request, and one whose answers take long."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_http import KEY
from served import Served


@pytest.fixture(scope="module")
def hasty(published: Path) -> Iterator[Served]:
    """Gives a second to ask, and asks for a key."""
    with Served(published, "--read-seconds", "1", KICKOFF_API_KEY=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def slow(never_ending: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each of its chunks names the model, and so has 4 KB: seconds of them are more than the system buffers."""
    folder = tmp_path_factory.mktemp("long").joinpath(*["x" * 250] * 15)
    folder.mkdir(parents=True)
    (folder / "tiny").symlink_to(never_ending)
    with Served(folder / "tiny") as running:
        yield running
