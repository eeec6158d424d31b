"""Pages of other sites, in a real browser: those that were named may ask, all others see nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import serve
from playwright.sync_api import Browser, Page
from served import Served
from tiny import ROWS

from serve.http import cors

QUESTION, ANSWER = ROWS[1]["question"], ROWS[1]["answer"]
KEY = "a-secret-of-the-tests"
# What OpenAI's client for JavaScript sends, in short; all that a page can see of an answer.
ASK = """
async ([url, key, body]) => {
  const headers = { "Content-Type": "application/json", "X-Stainless-Lang": "js", "X-Request-Timeout": "30" };
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    const response = await fetch(url, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
    return { status: response.status, text: await response.text(), id: response.headers.get("x-request-id") };
  } catch (error) { return { status: 0, text: String(error), id: null }; }
}
"""


class Blank(BaseHTTPRequestHandler):
    """A site whose pages are empty."""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def sites() -> Iterator[list[str]]:
    """The origins of two sites."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Blank) for _ in range(2)]
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{one.server_port}" for one in servers]
    for one in servers:
        one.shutdown()


@pytest.fixture(scope="module")
def open_to_one(published: Path, sites: list[str]) -> Iterator[Served]:
    options = ("--cors-origin", "https://example.com", "--cors-origin", sites[0])
    with Served(published, *options, KICKOFF_API_KEY=KEY) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


def ask(page: Page, site: str, url: str, key: str = "", body: dict[str, Any] | None = None) -> dict[str, Any]:
    page.goto(site)
    answer: dict[str, Any] = page.evaluate(ASK, [url, key, body])
    return answer


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_of_a_named_site_gets_answers(page: Page, sites: list[str], open_to_one: Served, stream: bool) -> None:
    url, body = f"{open_to_one.url}/predict", {"question": QUESTION, "stream": stream}
    answer = ask(page, sites[0], url, KEY, body)
    assert answer["status"] == 200 and ANSWER in answer["text"]
    assert len(answer["id"]) == 32


@pytest.mark.parametrize(
    "key, path, body, status",
    [
        ("", "/predict", {"question": QUESTION}, 401),
        (KEY, "/predict", {"question": "a" * 2**20}, 413),
        (KEY, "/predict", {"question": ""}, 422),
        (KEY, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "model": "b"}, 404),
        (KEY, "/v1/models", None, 200),
        ("", "/health", None, 200),
    ],
)
def test_a_page_of_a_named_site_sees_what_is_wrong(
    page: Page, sites: list[str], open_to_one: Served, key: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answer = ask(page, sites[0], open_to_one.url + path, key, body)
    assert (answer["status"], len(answer["id"])) == (status, 32)
    assert status == 200 or '"error"' in answer["text"]


@pytest.mark.parametrize("path, body", [("/predict", {"question": QUESTION}), ("/v1/models", None), ("/health", None)])
def test_a_page_of_another_site_sees_nothing(
    page: Page, sites: list[str], open_to_one: Served, server: Served, path: str, body: dict[str, Any] | None
) -> None:
    for site, asked in ((sites[1], open_to_one), (sites[0], server)):  # the second has named no site
        before = asked.metric("kickoff_requests_total", route="/predict", code="200")
        answer = ask(page, site, asked.url + path, asked.key, body)
        assert (answer["status"], answer["text"]) == (0, "TypeError: Failed to fetch")
        assert asked.metric("kickoff_requests_total", route="/predict", code="200") == before, "it was not even asked"


def test_a_star_allows_any_site(page: Page, sites: list[str], published: Path) -> None:
    with Served(published, KICKOFF_CORS_ORIGIN="*") as server:
        for site in sites:
            assert ANSWER in ask(page, site, f"{server.url}/predict", body={"question": QUESTION})["text"]


@pytest.mark.parametrize("text", ["https://example.com", "http://localhost:3000", "http://[::1]:8080", "*"])
def test_a_valid_origin_is_accepted(text: str) -> None:
    assert cors.origin(text) == text


@pytest.mark.parametrize(
    "text, told",
    [
        ("https://example.com/", "'https://example.com': write that"),
        ("https://example.com/app", "'https://example.com': write that"),
        ("HTTPS://Example.com", "'https://example.com': write that"),
        ("https://example.com:443", "'https://example.com': write that"),
        ("https://me@example.com", "'https://example.com': write that"),
        ("example.com", "expected an origin such as https://example.com"),
        ("localhost:3000", "expected an origin"),
        ("https://*.example.com", "expected an origin"),
        ("https://a.com https://b.com", "expected an origin"),
        ("https://a.com,https://b.com", "expected an origin"),
        ("ftp://example.com", "expected an origin"),
        ("https://", "expected an origin"),
        ("https://a:b", "expected an origin"),
        ("https://münchen.de", "expected an origin"),
        ("null", "expected an origin"),
        ("", "expected an origin"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="found ") as refused:
        cors.origin(text)
    assert told in str(refused.value)


def test_a_server_with_a_wrong_origin_does_not_start(published: Path) -> None:
    ended = serve(str(published), "--cors-origin", "https://example.com/")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: --cors-origin: found 'https://example.com/', and browsers send 'https://example.com': write that"
    ]
