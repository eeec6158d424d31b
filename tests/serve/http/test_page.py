"""The page in a real browser: what a person sees, types and copies, and what the page never does.

`server` and `guarded` run the real server with a model. Where a test needs the server to be slow, busy or broken, the
browser answers in its place: `replying` with one whole response, `FEED` with bytes as the test hands them out.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from serve.http.page import HEADERS, HTML

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
# Every text that the answer has shown, and whether the line of facts was there.
WATCH = """
window.seen = [];
new MutationObserver(() => {
  const [answer, facts] = document.querySelectorAll(".answer, .facts");
  if (answer) window.seen.push([answer.textContent, facts.textContent !== ""]);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
STOP_AT_ONCE = """
new MutationObserver(() => {
  if (document.querySelector(".answer")?.textContent) document.getElementById("stop").click();
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


class Server(Protocol):
    url: str


class Guarded(Server, Protocol):
    key: str


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


def run(command: str, **environment: str) -> dict[str, Any]:
    """The answer to a copied command, from a shell that knows nothing else."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **environment}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# The answer


def test_the_answer_is_what_predict_says(page: Page, server: Server) -> None:
    fill(page, Temperature="0")
    ask(page, QUESTION)
    expected = predict(page, server, QUESTION, temperature=0)["answer"]
    assert expected
    assert answered(page) == expected


def test_the_text_grows_before_it_is_done(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, WATCH) as page:
        ask(page, QUESTION)
        whole = answered(page)
        growing = [text for text, complete in page.evaluate("seen") if not complete]
    assert len({text for text in growing if text and text != whole}) >= 2
    assert [len(text) for text in growing] == sorted(len(text) for text in growing)


def test_what_has_come_is_shown_while_the_rest_is_to_come(fed: Page) -> None:
    answer = fed.locator(".answer")
    expect(answer).to_have_attribute("aria-live", "polite")
    feed(fed, sse("delta", {"text": "Grü"}))
    expect(answer).to_have_text("Grü")
    feed(fed, sse("delta", {"text": "ße"}))
    expect(answer).to_have_text("Grüße")
    expect(fed.locator(".facts")).to_be_empty()
    feed(fed, sse("done", DONE))
    assert answered(fed) == DONE["answer"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_stream_may_be_cut_anywhere(fed: Page, end: str) -> None:
    deltas = [sse("delta", {"text": text}, end) for text in ("Grüße ", "🙂", " <b>")]
    stream = f": alive{end}{end}".join(["", *deltas, sse("done", {**DONE, "answer": "Grüße 🙂 <b>"}, end)])
    fed.evaluate(
        "window.seen = []; new MutationObserver(() => seen.push(document.querySelector('.answer').textContent))"
        ".observe(document, { subtree: true, characterData: true })"
    )
    one_by_one = (
        "async (bytes) => { for (const byte of bytes) { feed([byte]); await new Promise((r) => setTimeout(r)) } }"
    )
    fed.evaluate(one_by_one, list(stream.encode()))
    assert answered(fed) == "Grüße 🙂 <b>"
    assert fed.evaluate("seen") == ["Grüße ", "Grüße 🙂", "Grüße 🙂 <b>"]


def test_a_long_answer_is_followed_until_the_person_scrolls_away(fed: Page) -> None:
    room = """() => document.querySelector("form").getBoundingClientRect().top
      - document.querySelector(".answer").getBoundingClientRect().bottom"""
    for number in range(60):
        feed(fed, sse("delta", {"text": f"line {number}\n"}))
    expect(fed.locator(".answer")).to_contain_text("line 59")
    assert fed.evaluate(room) >= 0
    assert fed.evaluate("scrollY") > 400
    fed.evaluate("scrollTo(0, 100)")
    feed(fed, sse("delta", {"text": "line 60\n"}))
    expect(fed.locator(".answer")).to_contain_text("line 60")
    assert fed.evaluate("scrollY") == 100


def test_model_and_revision_are_those_of_the_model_list(page: Page, server: Server) -> None:
    model = page.request.get(f"{server.url}/v1/models").json()["data"][0]
    expect(page.locator("#model")).to_have_text(f"{model['id']} {model['revision']}")
    ask(page, QUESTION)
    answered(page)
    expect(page.locator(".facts")).to_contain_text(f"{model['id']} {model['revision']} ")
    assert page.title() == f"{model['id']} · Kickoff"


def test_the_facts_are_those_of_the_answer(page: Page) -> None:
    replying(page, content_type="text/event-stream", body=sse("done", DONE))
    ask(page, QUESTION)
    expect(page.locator(".facts")).to_have_text(
        f"{DONE['model']} {DONE['revision']} first token 21 ms total 1.3 s 3 tokens"
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"finish_reason": "length"}, "cut at the token limit"),
        ({"finish_reason": "length", "deadline_reached": True}, "cut at the time limit"),
        ({"finish_reason": "other"}, "ended by other"),
        ({"answer": ""}, "an empty answer"),
    ],
)
def test_an_answer_that_did_not_end_by_itself_says_so(page: Page, facts: dict[str, Any], words: str) -> None:
    replying(page, content_type="text/event-stream", body=sse("done", {**DONE, **facts}))
    ask(page, QUESTION)
    expect(page.locator(".facts b")).to_have_text(words)


def test_a_token_limit_is_seen(page: Page) -> None:
    fill(page, Max_new_tokens="1")
    ask(page, QUESTION)
    expect(page.locator(".facts")).to_contain_text("1 token cut at the token limit")


def test_earlier_questions_stay_above_and_are_not_sent(page: Page) -> None:
    with page.expect_request("**/predict") as first:
        ask(page, QUESTION)
    answered(page)
    with page.expect_request("**/predict") as second:
        ask(page, "What is 3 plus 3?")
    expect(page.locator(".facts").nth(1)).to_contain_text("total")
    assert page.locator("h2").all_text_contents() == [QUESTION, "What is 3 plus 3?"]
    assert first.value.post_data_json == {"question": QUESTION, "stream": True}
    assert second.value.post_data_json == {"question": "What is 3 plus 3?", "stream": True}


def test_only_the_options_that_are_filled_in_are_sent(page: Page) -> None:
    fill(page, Max_new_tokens="5", Temperature="0", Top_p=" 0,9 ", Top_k="many")
    with page.expect_request("**/predict") as request:
        ask(page, QUESTION)
    expected = {"max_new_tokens": 5, "temperature": 0, "top_p": 0.9, "top_k": "many"}
    assert request.value.post_data_json == {"question": QUESTION, "stream": True, **expected}


def test_an_odd_question_and_an_odd_answer_are_shown_as_text(page: Page) -> None:
    replying(page, content_type="text/event-stream", body=sse("done", {**DONE, "answer": ODD}))
    ask(page, ODD)
    assert answered(page) == ODD
    assert page.locator("h2").text_content() == ODD
    assert page.locator("#bold").count() == 0


# Stop


def test_stop_at_the_first_token_leaves_the_answer_as_it_is(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, STOP_AT_ONCE) as page:
        fill(page, Temperature="0")
        ask(page, QUESTION)
        expect(page.locator(".facts")).to_have_text("stopped")
        begun = page.locator(".answer").text_content() or ""
        whole = predict(page, server, QUESTION, temperature=0)["answer"]
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert begun != whole
    assert whole.startswith(begun)


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_aborts_the_stream(fed: Page, way: str) -> None:
    feed(fed, sse("delta", {"text": "Grü"}))
    expect(fed.locator(".answer")).to_have_text("Grü")
    stop = fed.get_by_role("button", name="Stop")
    stop.click() if way == "button" else fed.keyboard.press("Escape")
    expect(fed.locator(".facts")).to_have_text("stopped")
    assert fed.evaluate("window.aborted")
    expect(stop).to_be_hidden()
    expect(fed.get_by_role("button", name="Ask")).to_be_enabled()
    expect(fed.get_by_role("alert")).to_be_empty()
    expect(fed.get_by_label("Your question")).to_be_focused()


def test_after_stop_not_even_what_has_arrived_is_shown(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, FEED, STOP_AT_ONCE) as page:
        ask(page, QUESTION)
        page.wait_for_function("!!window.feed")
        feed(page, "".join(sse("delta", {"text": text}) for text in "abcdefgh") + sse("done", DONE))
        expect(page.locator(".facts")).to_have_text("stopped")
        assert page.locator(".answer").text_content() == "a"


def test_stop_aborts_a_request_that_is_not_answered_yet(page: Page) -> None:
    page.route("**/predict", lambda route: None)
    ask(page, QUESTION)
    with page.expect_event("requestfailed") as failed:
        page.get_by_role("button", name="Stop").click()
    assert failed.value.url.endswith("/predict")
    expect(page.locator(".facts")).to_have_text("stopped")


# Copy as curl


@pytest.mark.parametrize("question", [QUESTION, ODD], ids=["plain", "odd"])
def test_the_copied_command_answers_the_same(browser: Browser, server: Server, question: str) -> None:
    with visit(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as page:
        fill(page, Temperature="0", Max_new_tokens="8")
        ask(page, question)
        answer = answered(page)
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        command = page.evaluate("navigator.clipboard.readText()")
        assert command == page.locator("#command").text_content()
        assert "Authorization" not in command
        assert (
            run(command)["answer"]
            == answer
            == predict(page, server, question, temperature=0, max_new_tokens=8)["answer"]
        )


def test_the_command_asks_what_was_asked(page: Page) -> None:
    ask(page, ODD)
    answered(page)
    command = page.locator("#command").text_content() or ""
    printed = subprocess.run(
        ["bash", "-c", command.replace("curl", "printf '%s\\n'", 1)], capture_output=True, text=True
    )
    assert json.loads(printed.stdout.splitlines()[-1]) == {"question": ODD}


def test_without_a_clipboard_the_command_is_selected(browser: Browser, server: Server) -> None:
    no_clipboard = "Object.defineProperty(Navigator.prototype, 'clipboard', { value: undefined })"
    with visit(browser, server.url, no_clipboard, "Document.prototype.execCommand = () => false") as page:
        ask(page, QUESTION)
        answered(page)
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.get_by_role("button", name="Selected")).to_be_visible()
        expect(page.locator("#command")).to_be_visible()
        assert page.evaluate("getSelection().toString()") == page.locator("#command").text_content()


# The key


def logged_in(guarded: Guarded) -> dict[str, Any]:
    """What a person types when the browser asks: any name, and the key as password."""
    return {"http_credentials": {"username": "anybody", "password": guarded.key}}


def test_the_browser_asks_for_the_key_and_the_page_then_works(browser: Browser, guarded: Guarded) -> None:
    with visit(browser, guarded.url, **logged_in(guarded)) as page:
        ask(page, QUESTION)
        assert answered(page)
        expect(page.locator("#model")).to_be_visible()


def test_without_the_key_there_is_no_page(browser: Browser, guarded: Guarded) -> None:
    wrong = {"http_credentials": {"username": "anybody", "password": "not-the-key"}}
    with visit(browser, guarded.url, **wrong) as page:
        assert page.locator("textarea").count() == 0
        assert "a key is needed" in (page.locator("body").text_content() or "")


def test_the_command_of_a_guarded_server_sends_the_key_and_does_not_hold_it(browser: Browser, guarded: Guarded) -> None:
    with visit(browser, guarded.url, **logged_in(guarded)) as page:
        fill(page, Temperature="0")
        ask(page, QUESTION)
        answer = answered(page)
        command = page.locator("#command").text_content() or ""
        assert guarded.key not in command
        assert '-H "Authorization: Bearer $KICKOFF_API_KEY"' in command
        assert run(command, KICKOFF_API_KEY=guarded.key)["answer"] == answer


# When it fails


def test_a_question_that_is_too_long_is_told_in_the_servers_words(page: Page, server: Server) -> None:
    question = " ".join(["word"] * 20_000)
    ask(page, question)
    expect(page.get_by_role("alert")).to_have_text(predict(page, server, question, stream=True)["error"]["message"])
    expect(page.get_by_label("Your question")).to_have_value(question)
    expect(page.locator("h2")).to_have_count(0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_try_again(page: Page, status: int) -> None:
    refusing(page, status, "Eight questions are waiting.", **{"Retry-After": "7"})
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_contain_text("Eight questions are waiting.")
    expect(page.get_by_role("alert")).to_contain_text("Try again in 7 seconds, at ")
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)
    page.unroute("**/predict")
    page.keyboard.press("Enter")
    assert answered(page)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_refused_option_is_shown_where_it_was_typed(page: Page) -> None:
    refusing(page, 422, "temperature: expected 0 to 2, found 7", param="temperature")
    fill(page, Temperature="7")
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_have_text("temperature: expected 0 to 2, found 7")
    expect(page.get_by_label("Temperature")).to_be_focused()


def test_an_answer_of_something_else_is_told(page: Page) -> None:
    replying(page, status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_have_text("The server answered 502 Bad Gateway.")


def test_a_server_that_cannot_be_reached_is_told(page: Page, server: Server) -> None:
    page.route("**/predict", lambda route: route.abort("connectionrefused"))
    ask(page, QUESTION)
    host = server.url.removeprefix("http://")
    expect(page.get_by_role("alert")).to_have_text(f"The server at {host} cannot be reached.")
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (sse("error", {"error": {"message": "The engine is out of memory."}}), "The engine is out of memory."),
        ("", "The connection to the server broke before the answer was complete."),
        ("event: done\ndata: {", "The connection to the server broke before the answer was complete."),
    ],
    ids=["error", "cut", "half an event"],
)
def test_an_answer_that_breaks_off_keeps_what_has_come(fed: Page, event: str, words: str) -> None:
    feed(fed, sse("delta", {"text": "Grü"}) + event)
    expect(fed.locator(".answer")).to_have_text("Grü")
    fed.evaluate("cut()")
    expect(fed.get_by_role("alert")).to_have_text(words)
    expect(fed.locator(".facts")).to_have_text("broken off")
    expect(fed.locator(".answer")).to_have_text("Grü")
    expect(fed.get_by_label("Your question")).to_have_value(QUESTION)


def test_an_answer_that_ends_too_early_is_told(page: Page) -> None:
    replying(page, content_type="text/event-stream", body=sse("delta", {"text": "Grü"}))
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).to_contain_text("broke before the answer was complete")


def test_without_the_model_list_nothing_is_missing(browser: Browser, server: Server) -> None:
    with visit(
        browser, server.url, before=lambda page: page.route("**/v1/models", lambda route: route.abort())
    ) as page:
        expect(page.locator("#model")).to_be_hidden()
        expect(page.get_by_role("alert")).to_be_empty()
        ask(page, QUESTION)
        answered(page)
        expect(page.locator("#model")).to_be_visible()


# Keyboard, phone, eyes


def test_the_keyboard_is_enough(page: Page) -> None:
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("What is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("2 plus 2?")
    page.keyboard.press("Enter")
    answered(page)
    assert page.locator("h2").text_content() == "What is\n2 plus 2?"
    assert [tab(page) for _ in range(2)] == ["send", "Options"]
    page.keyboard.press("Enter")
    fields = ["max_new_tokens", "temperature", "top_p", "top_k"]
    assert [tab(page) for _ in fields] == fields
    back = [tab(page, "Shift+Tab") for _ in range(8)]
    assert back[-3:] == ["question", "copy", "curl command"]


def tab(page: Page, press: str = "Tab") -> str:
    """Go on to the next thing, which has to be seen to have the focus, and name it."""
    page.keyboard.press(press)
    name, outline = page.evaluate("""() => {
      const { activeElement: it } = document, { outlineStyle, outlineWidth } = getComputedStyle(it);
      return [it.id || it.name || it.innerText, `${outlineStyle} ${outlineWidth}`];
    }""")
    assert outline == "solid 2px", name
    assert page.evaluate("""() => {
      const { left, top, width, height } = document.activeElement.getBoundingClientRect();
      return document.activeElement.contains(document.elementFromPoint(left + width / 2, top + height / 2));
    }"""), f"{name} lies under something else"
    return str(name)


def test_what_has_the_focus_does_not_lie_under_the_form(fed: Page) -> None:
    feed(fed, sse("delta", {"text": "line\n" * 100}))
    fed.get_by_label("Your question").focus()
    fed.evaluate("scrollTo(0, document.documentElement.scrollHeight - innerHeight - 170)")
    form, copy = (fed.locator(name).bounding_box() for name in ("form", "#copy"))
    assert form and copy and form["y"] < copy["y"] < form["y"] + form["height"]
    assert [tab(fed, "Shift+Tab") for _ in range(2)] == ["copy", "curl command"]


def test_enter_that_chooses_a_word_of_an_input_method_does_not_send(page: Page) -> None:
    page.get_by_label("Your question").fill("にほん")
    page.evaluate("question.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true }))")
    page.get_by_label("Your question").fill(" \n ")
    page.keyboard.press("Enter")
    expect(page.locator("h2")).to_have_count(0)


def everything(page: Page) -> None:
    """Show all that the page can show at once."""
    replying(page, content_type="text/event-stream", body=sse("done", {**DONE, "answer": "W" * 300}))
    ask(page, "W" * 300)
    answered(page)
    page.get_by_text("curl command", exact=True).click()
    refusing(page, 503, "E" * 300, **{"Retry-After": "7"})
    ask(page, QUESTION)
    expect(page.get_by_role("alert")).not_to_be_empty()
    fill(page, Temperature="0")


def test_a_phone_of_360_pixels_shows_it_all(browser: Browser, server: Server) -> None:
    size: Any = {"width": 360, "height": 740}
    with visit(browser, server.url, viewport=size, has_touch=True, is_mobile=True) as page:
        everything(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        small = page.evaluate("""() => [...document.querySelectorAll("button, summary, input, textarea")]
          .filter((it) => it.checkVisibility()).map((it) => [it.id || it.name, it.getBoundingClientRect()])
          .filter(([, { width, height }]) => width < 44 || height < 44)""")
        assert small == []
        fonts = (
            "[...document.querySelectorAll('input, textarea')].map((it) => parseFloat(getComputedStyle(it).fontSize))"
        )
        assert min(page.evaluate(fonts)) >= 16  # below, a phone zooms in when the field has the focus


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_is_enough(browser: Browser, server: Server, scheme: Any) -> None:
    with visit(browser, server.url, color_scheme=scheme, reduced_motion="reduce") as page:
        everything(page)
        texts = page.evaluate("""() => {
          const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
              .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (it) => {
            const { backgroundColor } = getComputedStyle(it);
            return backgroundColor === "rgba(0, 0, 0, 0)" ? behind(it.parentElement) : backgroundColor;
          };
          const own = (it) => [...it.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
          return [...document.querySelectorAll("body *")].filter((it) => it.checkVisibility() && own(it)).map((it) => {
            const [low, high] = [light(getComputedStyle(it).color), light(behind(it))].sort((a, b) => a - b);
            return [it.textContent.slice(0, 40), (high + 0.05) / (low + 0.05)];
          });
        }""")
    assert len(texts) > 20
    assert [(text, ratio) for text, ratio in texts if ratio < 4.5] == []


@pytest.mark.parametrize(("wish", "animation"), [("reduce", "none"), ("no-preference", "blink")])
def test_nothing_moves_for_who_wants_it_still(browser: Browser, server: Server, wish: Any, animation: str) -> None:
    with visit(browser, server.url, FEED, reduced_motion=wish) as page:
        ask(page, QUESTION)
        caret = "getComputedStyle(document.querySelector('.answer.live'), '::after').animationName"
        assert page.evaluate(caret) == animation


# What it never does


def test_it_is_silent_and_asks_nobody_else(browser: Browser, server: Server) -> None:
    said: list[str] = []
    asked: list[str] = []

    def listen(page: Page) -> None:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))

    violations = "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
    with visit(browser, server.url, violations, before=listen) as page:
        fill(page, Temperature="0")
        ask(page, ODD)
        answered(page)
        page.get_by_role("button", name="Copy as curl").click()
        page.get_by_text("curl command", exact=True).click()
        page.wait_for_load_state("networkidle")
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {
        f"{server.url}{path}" for path in ("/", "/v1/models", "/predict")
    }


def test_the_server_sends_the_policy_and_the_browser_keeps_it(browser: Browser, server: Server) -> None:
    with visit(browser, server.url) as page:
        headers = page.request.get(f"{server.url}/").headers
        assert {name: headers.get(name.lower()) for name in HEADERS} == HEADERS
        page.evaluate("""() => {
          document.body.append(Object.assign(document.createElement("script"), { textContent: "window.foreign = 1" }));
          document.body.setAttribute("style", "color: red");
        }""")
        assert page.evaluate("window.foreign") is None
        assert page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"


def test_it_works_behind_a_path_prefix(browser: Browser, server: Server) -> None:
    def pass_on(route: Route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace("/some/where", "")))

    with visit(
        browser, f"{server.url}/some/where", before=lambda page: page.route("**/some/where/**", pass_on)
    ) as page:
        expect(page.locator("#model")).to_be_visible()
        ask(page, QUESTION)
        assert answered(page)
        expect(page.locator("#command")).to_contain_text(f"curl -sS {server.url}/some/where/predict")


def test_the_file_holds_all_it_needs_and_nothing_the_policy_forbids() -> None:
    elements: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            elements.append((tag, dict(attrs)))

    Reader().feed(HTML)
    assert [tag for tag, _ in elements if tag in ("style", "script")] == ["style", "script"]
    names = {name for _, attributes in elements for name in attributes}
    assert not {name for name in names if name == "style" or name == "src" or name.startswith("on")}
    links = [attributes["href"] or "" for _, attributes in elements if "href" in attributes]
    assert [link.split(",")[0] for link in links] == ["data:image/svg+xml"]
    assert not [word for word in ("innerHTML", "insertAdjacentHTML", "eval(", "localStorage") if word in HTML]
