"""The page in a browser, before the test server or before answers that a test feeds it."""

from collections.abc import Iterator

import pytest
from browsing import FEED, QUESTION, Server, ask, visit
from playwright.sync_api import Browser, Page


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with visit(browser, server.url) as page:
        yield page


@pytest.fixture
def fed(browser: Browser, server: Server) -> Iterator[Page]:
    """A page that has asked, and whose answer comes from feed()."""
    with visit(browser, server.url, FEED) as page:
        ask(page, QUESTION)
        page.wait_for_function("!!window.feed")
        yield page
