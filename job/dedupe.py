"""Dedupe: of rows that ask the same question, the first is kept.

It knows rows that are equal once case, accents' encoding, punctuation and blanks are set aside. Rows that merely
mean the same are not found.
"""

import re
import unicodedata
from typing import Any

import datasets

from job.config import DedupeSection

_VARIATION = re.compile(r"[\ufe00-\ufe0f]")  # how an emoji is drawn; Unicode counts it as a mark


def dedupe(
    section: DedupeSection, rows: datasets.Dataset, test: datasets.Dataset | None = None
) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    """Drop rows whose question came before.

    Args:
        rows: {"question", "answer", "where"}.
        test: test rows given apart; a row that repeats one of them would leak into training and is dropped.

    Returns:
        The rows kept, and the rejected {"where", "stage", "reason"}, each naming the row it repeats.
    """
    if not section.exact:
        return rows, []
    first: dict[str, tuple[str, str]] = {}
    for row in test if test is not None else ():
        first.setdefault(normalised(row["question"]), (row["where"], row["answer"]))
    kept: list[int] = []
    rejected: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        key = normalised(row["question"])
        before = first.get(key)
        if before is None:
            first[key] = (row["where"], row["answer"])
            kept.append(index)
        else:
            other = "" if before[1] == row["answer"] else ", with another answer"
            reason = f"asks the same as {before[0]}{other}"
            rejected.append({"where": row["where"], "stage": "dedupe", "reason": reason})
    return rows.select(kept), rejected


def normalised(question: str) -> str:
    """The question's letters, their marks and digits, compatibility-composed and case-folded, blanks between the words.

    A question without any letter or digit is its own text, so that "?" and "!" stay two questions.
    """
    folded = _VARIATION.sub("", unicodedata.normalize("NFKC", question).casefold())
    # marks count: they are the vowels of Hindi and the tones of Thai, which \w does not match
    spelled = (character if unicodedata.category(character)[0] in "LMN" else " " for character in folded)
    return " ".join("".join(spelled).split()) or question
