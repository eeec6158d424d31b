"""Servers for /predict: a small one whose answers take long, and a free one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from predicting import inside, wait_until
from served import Served


@pytest.fixture(scope="module")
def slow(never_ending: Path) -> Iterator[Served]:
    """A server with room for one running and one waiting request, whose answers take many seconds."""
    with Served(never_ending, "--max-running", "1", "--max-waiting", "1") as running:
        yield running


@pytest.fixture
def idle(slow: Served) -> Iterator[Served]:
    """`slow`, with nobody inside before and after the test."""
    yield slow
    wait_until(lambda: inside(slow) == (0, 0))
