"""What the page says when the server refuses, breaks off or is not there."""

import pytest
from browsing import QUESTION, Server, answered, ask, feed, fill, predict, refusing, replying, sse, visit
from playwright.sync_api import Browser, Page, expect


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


def test_a_response_of_another_server_is_reported(page: Page) -> None:
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
