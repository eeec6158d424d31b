"""The command that the page copies, and the page of a server with a key."""

import json
import os
import subprocess
from typing import Any, Protocol

import pytest
from browsing import ODD, QUESTION, Server, answered, ask, fill, predict, visit
from playwright.sync_api import Browser, Page, expect


class Guarded(Server, Protocol):
    key: str


def run(command: str, **environment: str) -> dict[str, Any]:
    """The answer to a copied command, from a shell that knows nothing else."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", **environment}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


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
        assert "a valid key is required" in (page.locator("body").text_content() or "")


def test_the_command_of_a_guarded_server_sends_the_key_and_does_not_hold_it(browser: Browser, guarded: Guarded) -> None:
    with visit(browser, guarded.url, **logged_in(guarded)) as page:
        fill(page, Temperature="0")
        ask(page, QUESTION)
        answer = answered(page)
        command = page.locator("#command").text_content() or ""
        assert guarded.key not in command
        assert '-H "Authorization: Bearer $KICKOFF_API_KEY"' in command
        assert run(command, KICKOFF_API_KEY=guarded.key)["answer"] == answer
