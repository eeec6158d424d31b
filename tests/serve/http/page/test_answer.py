"""The page in a real browser: answers as they come, the facts below them, options, and the button that stops."""

from typing import Any

import pytest
from browsing import DONE, FEED, ODD, QUESTION, Server, answered, ask, feed, fill, predict, replying, sse, visit
from playwright.sync_api import Browser, Page, expect

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


def test_text_is_shown_as_it_arrives(fed: Page) -> None:
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


def test_how_sure_the_model_is_stands_with_the_facts(page: Page) -> None:
    sure = {"known": True, "confidence": 0.813604, "alternatives": []}
    replying(page, content_type="text/event-stream", body=sse("done", {**DONE, **sure}))
    ask(page, QUESTION)
    expect(page.locator(".facts")).to_contain_text("confidence 0.81 first token 21 ms total 1.3 s 3 tokens")
    assert answered(page) == DONE["answer"]


def test_an_answer_that_is_not_known_gives_way_to_saying_so_and_stays_below(fed: Page) -> None:
    text = "Five, <b>or so</b>"
    feed(fed, sse("delta", {"text": text}))
    expect(fed.locator(".answer")).to_have_text(text)
    unsure = {
        "answer": None,
        "known": False,
        "confidence": 0.21,
        "alternatives": [{"answer": text, "confidence": 0.21}],
    }
    feed(fed, sse("done", {**DONE, **unsure}))
    expect(fed.locator(".answer")).to_have_text("The answer is not known.")
    expect(fed.locator(".facts > b")).to_have_text("not known")
    expect(fed.locator(".facts li")).to_have_text(f"{text} confidence 0.21")


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


def test_stop_at_the_first_token_leaves_the_answer_as_it_is(browser: Browser, server: Server) -> None:
    with visit(browser, server.url, STOP_AT_ONCE) as page:
        fill(page, Temperature="0")
        ask(page, QUESTION)
        expect(page.locator(".facts")).to_have_text("stopped")
        begun = page.locator(".answer").text_content() or ""
        whole = predict(page, server, QUESTION, temperature=0)["answer"]
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert begun
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
