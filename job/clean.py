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
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job.config import CleanSection
from job.rows import transformed

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
        rows: {"question", "answer", "where"} and more, as load gives them.

    Returns:
        The rows that still hold a question and an answer, and the rejected {"id" if rows have it, "where", "stage",
        "reason"}.
    """
    schema = rows.features.arrow_schema.remove_metadata().append(pa.field("reason", pa.string()))
    judged = transformed(rows, _judge(section, schema), schema, "clean")
    wrong = pc.is_valid(judged.with_format("arrow")["reason"][:]).to_numpy(zero_copy_only=False)
    columns = [name for name in ("id", "where", "reason") if name in schema.names]
    rejected = [{**row, "stage": "clean"} for row in judged.select_columns(columns).select(np.flatnonzero(wrong))]
    return judged.select(np.flatnonzero(~wrong)).remove_columns("reason"), rejected


def _judge(section: CleanSection, schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    """A batch of rows with both texts cleaned, and the reason why a row cannot be used, if there is one."""
    steps = _steps(section)
    unwanted = _unwanted(section.unwanted_words)

    def change(table: pa.Table) -> pa.Table:
        questions = [" ".join(_apply(steps, text).split()) for text in table["question"].to_pylist()]
        answers = [_apply(steps, text) for text in table["answer"].to_pylist()]
        reasons = [_wrong(*texts, unwanted) for texts in zip(questions, answers, strict=True)]
        made = {"question": questions, "answer": answers, "reason": reasons}
        columns = [pa.array(made[name], pa.string()) if name in made else table[name] for name in schema.names]
        return pa.table(columns, schema=schema)

    return change


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
