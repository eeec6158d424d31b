"""The page of a retriever in a real browser: an answer with its score and row, other answers, and what is not known."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from served import Served
from tiny_retriever import DNS


@pytest.fixture(scope="module")  # not longer: while it is open, no other test can run an event loop of its own
def page(retriever: Served) -> Iterator[Page]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is missing; install it with: apt-get update && apt-get install -y chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{retriever.url}/")
        yield page
        browser.close()


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("h2").last).to_have_text(text)
    expect(page.locator(".facts").last).to_contain_text("total")


def test_an_answer_shows_its_score_its_row_and_other_answers(page: Page) -> None:
    ask(page, "What is DNS?")
    expect(page.locator(".answer").last).to_have_text(DNS)
    expect(page.locator(".facts").last).to_contain_text("confidence 0.")
    expect(page.locator(".facts").last).to_contain_text("dataset.json row 0")
    expect(page.locator(".facts").last.locator("li")).to_have_count(2)
    expect(page.locator("#status")).to_contain_text("Answered.")


def test_what_is_not_known_says_so(page: Page) -> None:
    ask(page, "zebra crossing")
    expect(page.locator(".answer").last).to_have_text("The answer is not known.")
    expect(page.locator(".facts b").last).to_have_text("not known")
    expect(page.locator(".facts").last.locator("li")).to_have_count(3)


def test_the_only_option_is_the_number_of_answers(page: Page) -> None:
    page.get_by_text("Options", exact=True).click()
    expect(page.get_by_label("Temperature")).to_be_hidden()
    page.get_by_role("textbox", name="Answers").fill("1")
    ask(page, "Who wrote Faust?")
    expect(page.locator(".facts").last.locator("li")).to_have_count(0)
    page.get_by_role("textbox", name="Answers").fill("21")
    page.get_by_label("Your question").fill("Who wrote Faust?")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("top_k")
    expect(page.get_by_role("textbox", name="Answers")).to_be_focused()


def test_a_question_that_is_too_long_goes_back_into_its_field(page: Page) -> None:
    page.get_by_role("textbox", name="Answers").fill("")
    text = "a " * 40
    page.get_by_label("Your question").fill(text)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("found 42 tokens, expected at most 32")
    expect(page.get_by_label("Your question")).to_have_value(text.strip())
