"""The page in a real browser: opening it, asking on it, and answers that a test gives in the server's place.

`server` and `guarded` run the real server with a model. Where a test needs the server to be slow, busy or broken, the
browser answers in its place: `replying` with one whole response, `FEED` with bytes as the test hands them out.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from playwright.sync_api import Browser, Page, expect

QUESTION = "What is 2 plus 2?"
ODD = "It's a \"question\": $HOME `id` \\ 'a'\n</script><b id=bold>bold</b> !! 100% 🙂"
DONE = {
    "answer": "Grüße 🙂 <b>",
    "model": "ada/tiny",
    "revision": "3f786850e387550fdabbb8ac3b2d4b62a3f1f9c5",
    "finish_reason": "stop",
    "deadline_reached": False,
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    "timing": {"queued_ms": 0.3, "first_token_ms": 21.0, "total_ms": 1310.5},
}

# In place of fetch for /predict: what the test gives to feed() arrives as one chunk.
FEED = """
const real = window.fetch;
window.fetch = async (url, options) => {
  if (!url.endsWith("/predict")) return real(url, options);
  const body = new ReadableStream({ start(stream) {
    window.feed = (bytes) => stream.enqueue(new Uint8Array(bytes));
    window.cut = () => stream.error(new TypeError("network error"));
    options.signal.addEventListener("abort", () => { window.aborted = true; stream.error(options.signal.reason); });
  } });
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
};
"""


class Server(Protocol):
    url: str


@contextmanager
def visit(
    browser: Browser, url: str, *scripts: str, before: Callable[[Page], Any] = bool, **options: Any
) -> Iterator[Page]:
    """The page at this address in a browser of its own; scripts run, and `before` is called, before it is loaded."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        for script in scripts:
            page.add_init_script(script)
        before(page)
        page.goto(f"{url}/")
        yield page


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page) -> str:
    """The text of the last answer, once it is complete."""
    expect(page.locator(".facts").last).to_contain_text("total")
    return page.locator(".answer").last.text_content() or ""


def fill(page: Page, **options: str) -> None:
    if not page.get_by_label("Temperature").is_visible():
        page.get_by_text("Options", exact=True).click()
    for label, value in options.items():
        page.get_by_label(label.replace("_", " ")).fill(value)


def predict(page: Page, server: Server, question: str, **values: Any) -> dict[str, Any]:
    """What the server says without the page."""
    body = json.dumps({"question": question, **values}, ensure_ascii=False, separators=(",", ":"))
    headers = {"Content-Type": "application/json"}
    result: dict[str, Any] = page.request.post(f"{server.url}/predict", data=body, headers=headers).json()
    return result


def sse(name: str, data: dict[str, Any], end: str = "\n") -> str:
    return f"event: {name}{end}data: {json.dumps(data, ensure_ascii=False)}{end}{end}"


def feed(page: Page, text: str) -> None:
    page.evaluate("(bytes) => feed(bytes)", list(text.encode()))


def replying(page: Page, **response: Any) -> None:
    page.route("**/predict", lambda route: route.fulfill(**response))


def refusing(page: Page, status: int, message: str, param: str | None = None, **headers: str) -> None:
    error = {"message": message, "type": "some_error", "param": param, "code": "some_code"}
    replying(page, status=status, json={"error": error}, headers=headers)
