"""Left out: columns beside question and answer, and whether the rows can be understood without them.

Names tell something: a model that never saw `context` learns to answer from nothing, and an `id` tells it nothing. The
rows tell more: where the same question has different answers and a column tells them apart, the question is not whole
without it. How much of this must be seen depends on what the values are: prose that differs from row to row is likely
the text that is asked about, while dates, names and numbers differ as well where a whole question has several answers.
So each row leaves hashes of its question, its answer and the columns left out, a few bytes each; the rows themselves
are not kept.

It does not know where rows come from, nor what becomes of them.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xxhash

from job.data.column_names import ASKING, CLASSES, NEEDED, is_one_of, never_matters, seldom_matters
from job.errors import DataError

Hashes = npt.NDArray[np.uint64]


UNREADABLE = "holds pictures or sounds"
_EMPTY = frozenset(["", "n/a", "na", "nan", "none", "null", "-", "<noinput>", "noinput", "no input"])
# a web address, a hash, or one word with digits or an underscore in it
_MACHINE = re.compile(r"\w+://\S+|[0-9a-fA-F-]{16,}|(?=\S*[\d_])[!-~]+")
_LETTER = re.compile(r"[^\W\d_]")
_TOKEN = re.compile(r"[^\W\d_]+")
# scripts that put no blanks between words: Thai to Khmer, Chinese, Japanese
_UNDIVIDED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff]")
_LOOKED_AT = 10_000
_TOLD_APART = 0.01
_CLEARLY = 0.2
"""Shares of the rows that a column tells apart, from which it is needed: prose, and all else."""
_MANY_ANSWERS = 5
"""A whole question has seldom so many; one that lacks something ("Translate it.") often has more."""


@dataclass
class _Column:
    """What the rows show of a column."""

    name: str
    asks: bool
    hashes: list[tuple[int, Hashes]] = field(default_factory=list)
    """From which row on, and a hash of each value; 0 where there is none."""
    filled: int = 0
    by_name: int = 0
    """Of the rows those that hold what the name promises, which true and false are not."""
    first: str = ""
    looked_at: int = 0
    repeats: int = 0
    """Of the rows looked at those whose question holds the value, or whose value is question and answer together."""
    texts: int = 0
    nested: int = 0
    prose: int = 0

    @property
    def is_named(self) -> bool:
        return is_one_of(self.name, NEEDED) or (self.asks and is_one_of(self.name, ASKING))

    @property
    def says_nothing_new(self) -> bool:
        return self.looked_at > 0 and self.repeats >= 0.99 * self.looked_at

    def mostly(self, count: int) -> bool:
        return count >= 0.9 * self.looked_at

    def see(self, start: int, values: list[Any], questions: list[str], answers: list[str], places: list[str]) -> None:
        """Take in the values of some rows."""
        self.hashes.append((start, _hashed([_spelled(value) for value in values])))
        for value, question, answer, place in zip(values, questions, answers, places, strict=True):
            if text := _text(value):
                self.filled += 1
                if not isinstance(value, bool):
                    self.first = self.first or place
                    self.by_name += 1
                if self.looked_at < _LOOKED_AT:
                    self._look(value, text, question, answer)

    def _look(self, value: object, text: str, question: str, answer: str) -> None:
        self.looked_at += 1
        # alpaca's `text` is question and answer in a template of some two hundred characters
        both = question in text and answer in text
        self.repeats += text in question or (both and len(text) < 1.5 * (len(question) + len(answer)) + 300)
        self.nested += isinstance(value, dict | list | tuple)
        # true and false are no texts, though they are spelled as such
        is_text = bool(_LETTER.search(text)) and not _MACHINE.fullmatch(text) and not isinstance(value, bool)
        self.texts += is_text
        self.prose += is_text and _is_prose(text)


@dataclass(frozen=True)
class _Told:
    """What a column tells apart, of the questions that have several answers."""

    rows: int
    share: float
    """Of such questions those that it tells apart."""
    recurs: bool
    """Whether its values recur, as those of a number that only counts the rows do not."""
    across: bool
    """Whether a value stands beside several questions."""
    crowded: bool
    """Whether most of the rows told apart ask what has many answers."""

    def needs(self, column: _Column, total: int) -> bool:
        """Whether the questions need the column."""
        some = self.rows >= _TOLD_APART * total and self.share >= 0.5
        clearly = self.rows >= _CLEARLY * total and self.share >= 0.9
        is_prose = 2 * column.prose > column.looked_at
        if seldom_matters(column.name):
            return clearly and self.crowded and is_prose
        if column.mostly(column.nested):
            return clearly and (self.recurs or self.crowded)
        if is_one_of(column.name, CLASSES) or not column.mostly(column.texts):
            return clearly and self.recurs
        if is_prose:
            return clearly or (some and (self.across or self.crowded))
        return clearly and (self.recurs or self.crowded)


class LeftOut:
    """Gathers what the rows show of the columns left out, and says which are needed.

    Args:
        asks: whether a column named `question` or `prompt` that is left out may be the real question: not where the
            config names the column itself.
    """

    def __init__(self, asks: bool) -> None:
        self.asks = asks
        self.rows = 0
        self._without = 0
        self._questions: list[Hashes] = []
        self._answers: list[Hashes] = []
        self._columns: dict[str, _Column] = {}
        self._unread: dict[str, str] = {}

    def see(self, questions: list[str], answers: list[str], places: list[str], others: dict[str, list[Any]]) -> None:
        """Take in rows with the columns beside their pair, those to be ignored excepted."""
        others = {name: values for name, values in others.items() if not never_matters(name)}
        if not others and not self._columns:
            self._without += len(questions)  # nothing to compare
            return
        self._questions.append(_hashed([" ".join(text.casefold().split()) for text in questions]))
        self._answers.append(_hashed(answers))
        for name, values in others.items():
            column = self._columns.setdefault(name, _Column(name, self.asks))
            column.see(self.rows, values, questions, answers, places)
        self.rows += len(questions)

    def see_unread(self, name: str, source: str) -> None:
        """A column of pictures or sounds that a question needs by its name."""
        self._unread.setdefault(name, f"{UNREADABLE} in {source}, which a language model cannot read")

    def judged(self) -> tuple[dict[str, str], list[str]]:
        """The columns that the rows need, each with what shows it; and remarks on others that may matter."""
        needed, remarks = dict(self._unread), []
        total = self.rows + self._without
        for column in self._columns.values():
            if column.by_name and column.is_named and not column.says_nothing_new:
                needed[column.name] = f"is filled in {column.by_name} of {total} rows, first in {column.first}"
        for name, found in self._told_apart().items():
            told = f"tells {found.rows} rows apart that ask the same and are answered differently"
            if name in needed:
                continue
            if found.needs(self._columns[name], total):
                needed[name] = told
            else:
                remarks.append(f"the column {name!r}, which is left out, {told}")
        return needed, remarks

    def _told_apart(self) -> dict[str, _Told]:
        """What each column tells apart, of those that do."""
        frame = pd.DataFrame({"question": _joined(self._questions), "answer": _joined(self._answers)})
        # one answer to a question is the rule, and then nothing is left to look at
        several = frame.groupby("question")["answer"].transform("nunique").to_numpy() > 1
        if not several.any():
            return {}
        frame = frame[several]
        by_question = frame.groupby("question")
        sizes, many = by_question.size(), by_question["answer"].nunique() >= _MANY_ANSWERS
        found: dict[str, _Told] = {}
        for column in self._columns.values():
            if not column.filled or column.says_nothing_new:
                continue
            values = self._whole(column)
            frame = frame.assign(value=values[several])
            pairs = frame.groupby(["question", "value"])["answer"].nunique()
            told = pairs.groupby("question").max() == 1
            rows = int(sizes[told].sum())
            if rows:
                beside = pairs[pairs.index.get_level_values("question").isin(told.index[told])]
                found[column.name] = _Told(
                    rows,
                    share=float(told.mean()),
                    recurs=len(np.unique(values[values != 0])) <= 0.5 * column.filled,
                    across=beside.index.get_level_values("value").nunique() <= 0.9 * len(beside),
                    crowded=bool(2 * sizes[told & many].sum() >= rows),
                )
        return found

    def _whole(self, column: _Column) -> Hashes:
        whole = np.zeros(self.rows, np.uint64)
        for start, hashes in column.hashes:
            whole[start : start + len(hashes)] = hashes
        return whole


def _text(value: object) -> str:
    """A value as one text; empty where it says nothing."""
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, dict):
        return " ".join(filter(None, map(_text, value.values())))
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(_text, value)))
    text = str(value).strip()
    return "" if text.lower() in _EMPTY else text


def _spelled(value: object) -> str:
    """A value such that others are spelled otherwise; empty where it says nothing."""
    text = _text(value)
    if text and isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return text


def _is_prose(text: str) -> bool:
    """Several words, and not only names or dates: two of them begin with no capital."""
    words = plain = 0.0
    for token in _TOKEN.findall(text):
        words += len(token) / 2 if _UNDIVIDED.match(token) else 1
        plain += len(token) / 2 if _UNDIVIDED.match(token) else token[0] == token[0].lower()
    return words >= 4 and plain >= 2


def _hashed(texts: list[str]) -> Hashes:
    """8 bytes a text; 0 for an empty one."""
    hashes = (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) if text else 0 for text in texts)
    return np.fromiter(hashes, np.uint64, len(texts))


def _joined(parts: list[Hashes]) -> Hashes:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def refusal(needed: dict[str, str]) -> str:
    """The line that refuses to go on without the columns."""
    why = "; ".join(f"{name!r} {reason}" for name, reason in needed.items())
    readable = not all(reason.startswith(UNREADABLE) for reason in needed.values())
    way = "put it into the question, or leave" if readable else "take rows that can be answered without, or leave"
    return (
        f"dataset: a column that the question needs is left out: {why}; {way} it out on purpose with "
        f"dataset.ignore_columns: [{_listed(needed)}]"
    )


def require_told_apart(rows: int, lost: int, columns: Iterable[str]) -> None:
    """The net under all that is judged above, which cannot know every column.

    Args:
        rows: how many there were before repeats were dropped.
        lost: how many were dropped though their answer is another than that of the row that stayed.
        columns: those left out, those to be ignored excepted.

    Raises:
        DataError: more than half of the rows are lost, and a column may hold what they differ in.
    """
    suspect = [name for name in dict.fromkeys(columns) if not never_matters(name)]
    if 2 * lost > rows and suspect:
        listed = _listed(suspect)
        raise DataError(
            f"dataset: {lost} of {rows} rows ask the same as another row and are answered differently; they would be "
            f"dropped, and what the question lacks may stand in a column that is left out ({listed}): put it into the "
            "question; or, if the questions are whole and have several answers, set dedupe.conflicts=keep_all, or "
            f"leave the columns out on purpose with dataset.ignore_columns: [{listed}]"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name) for name in names)
