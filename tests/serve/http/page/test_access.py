"""The page by keyboard, on a phone and with weak eyes; and what it never does."""

from html.parser import HTMLParser
from typing import Any

import pytest
from browsing import DONE, FEED, ODD, QUESTION, Server, answered, ask, feed, fill, refusing, replying, sse, visit
from playwright.sync_api import Browser, Page, Route, expect

from serve.http.page import HEADERS, HTML


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
def test_reduced_motion_stops_animations(browser: Browser, server: Server, wish: Any, animation: str) -> None:
    with visit(browser, server.url, FEED, reduced_motion=wish) as page:
        ask(page, QUESTION)
        caret = "getComputedStyle(document.querySelector('.answer.live'), '::after').animationName"
        assert page.evaluate(caret) == animation


def test_the_page_logs_nothing_and_contacts_no_other_host(browser: Browser, server: Server) -> None:
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


def test_the_page_is_self_contained_and_obeys_its_policy() -> None:
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
