"""The handbook's pages and what is in them: blocks of code, commands, inline code. It does not judge them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from checkout import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"))}
_SEPARATORS = set(";|&\n")
_MARKDOWN = MarkdownIt().enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line there, kind (sh, yaml ...) and text."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    """The blocks of these kinds on all pages; of every kind if none is named."""
    return [
        Block(page, token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
        for page, text in PAGES.items()
        for token in _MARKDOWN.parse(text)
        if token.type == "fence" and (not kinds or token.info.strip() in kinds)
    ]


def inline(page: str) -> list[str]:
    """Every `code` within a page's text."""
    return [token.content for token in _children(page) if token.type == "code_inline"]


def links(page: str) -> list[str]:
    """Where a page's links and pictures lead."""
    found = [token.attrGet("href") or token.attrGet("src") for token in _children(page)]
    return [str(target) for target in found if target is not None]


def section(page: str, heading: str) -> str:
    """The text below `## heading`, up to the next heading of that rank."""
    return PAGES[page].split(f"\n## {heading}\n")[1].split("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """The simple commands of a piece of shell, each as its words.

    Leading assignments and redirections are left out, a variable's value is taken to be 1, and of loops the words in
    them stay.
    """
    text = re.sub(r"(^|\s)#\s.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    text = re.sub(r"\$\w+", "1", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if set(word) <= _SEPARATORS:
            found.append([])
        elif set(word) <= {"<", ">"}:
            next(words)
        elif found[-1] or not (word == "do" or re.match(r"[A-Z_]+=", word)):
            found[-1].append(word)
    return [command for command in found if command and command[0] not in ("for", "done")]


def _children(page: str) -> Iterator[Token]:
    for token in _MARKDOWN.parse(PAGES[page]):
        yield from token.children or ()
