"""Clean: the same rows with their text repaired; what cannot be used is rejected with its reason.

It knows single rows only: rows that repeat each other are dedupe's work. Each step is one small function from
text to text, in the order of `_steps`; a step that is off costs nothing.

Lower-casing and the removal of HTML and addresses are classic NLP steps. A generative model learns to write what
it reads, so it would answer in lower case and with holes; they are off by default, for those who want to compare.
"""

import html
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import datasets
import ftfy

from job.config import CleanSection

# quotes stay curly, ligatures and full-width characters stay as written: they are no damage
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False
)
# control characters but tab and newline, and zero-width space, word joiner and byte-order mark; the zero-width
# joiners stay, for emoji and Indic and Arabic script need them
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->", re.DOTALL)
_URL = re.compile(r"https?://\S+")
_BLANKS = re.compile(r"[^\S\n]+")

Step = Callable[[str], str]


def clean(section: CleanSection, rows: datasets.Dataset) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    """Repair the text of every row.

    Args:
        rows: {"question", "answer", "where"}, as load gives them.

    Returns:
        The rows that still hold a question and an answer, and the rejected {"where", "stage", "reason"}.
    """
    steps = _steps(section)
    unwanted = _unwanted(section.unwanted_words)
    kept: list[int] = []
    rejected: list[dict[str, Any]] = []
    questions = [" ".join(_apply(steps, text).split()) for text in rows["question"]]
    answers = [_apply(steps, text) for text in rows["answer"]]
    for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        reason = _wrong(question, answer, unwanted)
        if reason is None:
            kept.append(index)
        else:
            rejected.append({"where": rows[index]["where"], "stage": "clean", "reason": reason})
    cleaned = {"question": questions, "answer": answers, "where": rows["where"]}
    return datasets.Dataset.from_dict(
        {name: [column[index] for index in kept] for name, column in cleaned.items()}, features=rows.features
    ), rejected


def _steps(section: CleanSection) -> list[Step]:
    switched: list[tuple[bool, Step]] = [
        (section.fix_text, fix_text),
        (section.remove_html, remove_html),
        (section.remove_urls, remove_urls),
        (section.lowercase, str.lower),
        (True, remove_invisible),
        (section.fix_text, compose),  # once more: an accent may have stood behind something invisible
        (True, tidy_whitespace),
    ]
    return [step for on, step in switched if on]


def _apply(steps: list[Step], text: str) -> str:
    for step in steps:
        text = step(text)
    return text


def fix_text(text: str) -> str:
    """Undo mojibake (`cafÃ©`) and compose characters (NFC)."""
    return ftfy.fix_text(text, _REPAIR)


def remove_html(text: str) -> str:
    """Drop tags and comments, then decode entities."""
    return html.unescape(_TAG.sub(" ", text))


def remove_urls(text: str) -> str:
    return _URL.sub("", text)


def remove_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def tidy_whitespace(text: str) -> str:
    """One blank between words, at most one empty line between paragraphs, none around the text."""
    lines = [_BLANKS.sub(" ", line).strip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _unwanted(words: tuple[str, ...]) -> re.Pattern[str] | None:
    if not words:
        return None
    alternatives = "|".join(re.escape(word) for word in words)
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)


def _wrong(question: str, answer: str, unwanted: re.Pattern[str] | None) -> str | None:
    for column, text in (("question", question), ("answer", answer)):
        if not text:
            return f"the {column} is empty once cleaned"
        if unwanted is not None and (found := unwanted.search(text)):
            return f"the {column} holds the unwanted word {found[0]!r}"
    return None
