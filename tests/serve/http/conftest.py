"""What the tests of the HTTP side share: a browser, and a server with a key."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from served import Served


@pytest.fixture(scope="module")  # not longer: while it is open, no other test can run an event loop of its own
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is missing; install it with: apt-get update && apt-get install -y chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def guarded(published: Path) -> Iterator[Served]:
    """A server that asks for its `key`."""
    with Served(published, KICKOFF_API_KEY="a-secret-of-the-tests") as running:
        yield running
