"""Unused columns: decides whether the rows can be understood without the columns beside question and answer.

The name of a column says something: a model that never saw `context` learns to answer from nothing, while an `id` tells
it nothing. The rows say more: if equal questions have different answers and a column separates them, the question is
incomplete without it. How many such rows are needed depends on the values. Prose that differs from row to row is likely
the text that is asked about; dates, names and numbers also differ where a complete question has several answers.

It keeps hashes of each row's question, answer and unused values, a few bytes each, and not the rows. It does not know
where rows come from, nor what becomes of them.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from job.data.column_names import (
    CATEGORY_NAMES,
    CONTEXT_NAMES,
    QUESTION_NAMES,
    has_name_in,
    is_irrelevant,
    is_mostly_irrelevant,
)
from job.data.column_values import Hashes, canonical_text, hash_values, is_language, is_prose, value_text
from job.errors import DataError

UNREADABLE = "holds pictures or sounds"
_MAX_INSPECTED = 10_000
"""Rows whose values are looked at, of each column."""
_MIN_SHARE_SOME = 0.01
_MIN_SHARE_CLEAR = 0.2
"""Share of the rows that a column must separate to be needed: the first for prose, the second for everything else."""
_MANY_ANSWERS = 5
"""A complete question seldom has so many answers; an incomplete one ("Translate it.") often has more."""


@dataclass
class _Column:
    """What the rows show of a column."""

    name: str
    asks: bool
    hashes: list[tuple[int, Hashes]] = field(default_factory=list)
    """Number of the first row, and a hash of each value from there on; 0 for no value."""
    filled: int = 0
    by_name: int = 0
    """Filled rows whose value may be what the name promises, which a boolean is not."""
    first: str = ""
    inspected: int = 0
    repeats: int = 0
    """Inspected rows whose question holds the value, or whose value is question and answer together."""
    texts: int = 0
    nested: int = 0
    prose: int = 0

    @property
    def is_named(self) -> bool:
        return has_name_in(self.name, CONTEXT_NAMES) or (self.asks and has_name_in(self.name, QUESTION_NAMES))

    @property
    def says_nothing_new(self) -> bool:
        return self.inspected > 0 and self.repeats >= 0.99 * self.inspected

    def mostly(self, count: int) -> bool:
        return count >= 0.9 * self.inspected

    def add_rows(
        self, start: int, values: list[Any], questions: list[str], answers: list[str], locations: list[str]
    ) -> None:
        """Add the values of some rows, the first of which has the number `start`."""
        self.hashes.append((start, hash_values([canonical_text(value) for value in values])))
        for value, question, answer, location in zip(values, questions, answers, locations, strict=True):
            if text := value_text(value):
                self.filled += 1
                if not isinstance(value, bool):
                    self.first = self.first or location
                    self.by_name += 1
                if self.inspected < _MAX_INSPECTED:
                    self._inspect(value, text, question, answer)

    def _inspect(self, value: object, text: str, question: str, answer: str) -> None:
        self.inspected += 1
        # alpaca's `text` is question and answer in a template of some two hundred characters
        both = question in text and answer in text
        self.repeats += text in question or (both and len(text) < 1.5 * (len(question) + len(answer)) + 300)
        self.nested += isinstance(value, dict | list | tuple)
        is_text = is_language(value, text)
        self.texts += is_text
        self.prose += is_text and is_prose(text)


@dataclass(frozen=True)
class _Separation:
    """How well a column separates the answers of questions that have several."""

    rows: int
    """Rows of the questions that it separates."""
    separated_share: float
    """Share of these questions, from 0 to 1, that it separates."""
    recurs: bool
    """Whether its values recur; those of a column that only numbers the rows do not."""
    spans_questions: bool
    """Whether a value occurs with several questions."""
    has_many_answers: bool
    """Whether most of the separated rows ask questions with many answers."""

    def needs(self, column: _Column, total: int) -> bool:
        """Whether the questions need the column."""
        some = self.rows >= _MIN_SHARE_SOME * total and self.separated_share >= 0.5
        clearly = self.rows >= _MIN_SHARE_CLEAR * total and self.separated_share >= 0.9
        is_prose = 2 * column.prose > column.inspected
        if is_mostly_irrelevant(column.name):
            return clearly and self.has_many_answers and is_prose
        if column.mostly(column.nested):
            return clearly and (self.recurs or self.has_many_answers)
        if has_name_in(column.name, CATEGORY_NAMES) or not column.mostly(column.texts):
            return clearly and self.recurs
        if is_prose:
            return clearly or (some and (self.spans_questions or self.has_many_answers))
        return clearly and (self.recurs or self.has_many_answers)


class UnusedColumns:
    """Collects what the rows show about unused columns, and finds those that are needed.

    Args:
        asks: whether an unused column named `question` or `prompt` may hold the real question, which it cannot if the
            config names the columns.
    """

    def __init__(self, asks: bool) -> None:
        self.asks = asks
        self.rows = 0
        self._rows_without_columns = 0
        self._questions: list[Hashes] = []
        self._answers: list[Hashes] = []
        self._columns: dict[str, _Column] = {}
        self._unread: dict[str, str] = {}

    def add_rows(
        self, questions: list[str], answers: list[str], locations: list[str], others: dict[str, list[Any]]
    ) -> None:
        """Add rows.

        Args:
            questions: of the rows.
            answers: of the rows.
            locations: where the rows stand.
            others: the rows' values in the other columns, without those that the config ignores.
        """
        others = {name: values for name, values in others.items() if not is_irrelevant(name)}
        if not others and not self._columns:
            self._rows_without_columns += len(questions)  # nothing to compare
            return
        self._questions.append(hash_values([" ".join(text.casefold().split()) for text in questions]))
        self._answers.append(hash_values(answers))
        for name, values in others.items():
            column = self._columns.setdefault(name, _Column(name, self.asks))
            column.add_rows(self.rows, values, questions, answers, locations)
        self.rows += len(questions)

    def add_media(self, name: str, source: str) -> None:
        """Add a column of pictures or sounds that a question needs by its name."""
        self._unread.setdefault(name, f"{UNREADABLE} in {source}, which a language model cannot read")

    def find_needed(self) -> tuple[dict[str, str], list[str]]:
        """Find the columns that the questions need.

        Returns:
            The reason by column; and remarks on other columns that may matter.
        """
        needed, remarks = dict(self._unread), []
        total = self.rows + self._rows_without_columns
        for column in self._columns.values():
            if column.by_name and column.is_named and not column.says_nothing_new:
                needed[column.name] = f"is filled in {column.by_name} of {total} rows, first in {column.first}"
        for name, separations in self._find_separations().items():
            separates = f"distinguishes {separations.rows} rows that ask the same and are answered differently"
            if name in needed:
                continue
            if separations.needs(self._columns[name], total):
                needed[name] = separates
            else:
                remarks.append(f"the column {name!r}, which is left out, {separates}")
        return needed, remarks

    def _find_separations(self) -> dict[str, _Separation]:
        """The separation of each column that separates any rows."""
        frame = pd.DataFrame({"question": _concatenate(self._questions), "answer": _concatenate(self._answers)})
        # mostly each question has one answer, and nothing is left to compare
        several = frame.groupby("question")["answer"].transform("nunique").to_numpy() > 1
        if not several.any():
            return {}
        frame = frame[several]
        by_question = frame.groupby("question")
        sizes, many = by_question.size(), by_question["answer"].nunique() >= _MANY_ANSWERS
        separations: dict[str, _Separation] = {}
        for column in self._columns.values():
            if not column.filled or column.says_nothing_new:
                continue
            values = self._all_hashes(column)
            frame = frame.assign(value=values[several])
            pairs = frame.groupby(["question", "value"])["answer"].nunique()
            separates = pairs.groupby("question").max() == 1
            rows = int(sizes[separates].sum())
            if rows:
                beside = pairs[pairs.index.get_level_values("question").isin(separates.index[separates])]
                separations[column.name] = _Separation(
                    rows,
                    separated_share=float(separates.mean()),
                    recurs=len(np.unique(values[values != 0])) <= 0.5 * column.filled,
                    spans_questions=beside.index.get_level_values("value").nunique() <= 0.9 * len(beside),
                    has_many_answers=bool(2 * sizes[separates & many].sum() >= rows),
                )
        return separations

    def _all_hashes(self, column: _Column) -> Hashes:
        hashes_of_rows = np.zeros(self.rows, np.uint64)
        for start, hashes in column.hashes:
            hashes_of_rows[start : start + len(hashes)] = hashes
        return hashes_of_rows


def _concatenate(parts: list[Hashes]) -> Hashes:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def refusal(needed: dict[str, str]) -> str:
    """Write the error for columns that are needed and not used.

    Args:
        needed: the reason by column, as `find_needed` gives it.
    """
    why = "; ".join(f"{name!r} {reason}" for name, reason in needed.items())
    readable = not all(reason.startswith(UNREADABLE) for reason in needed.values())
    way = "put it into the question, or leave" if readable else "use rows that can be answered without it, or leave"
    return (
        f"dataset: a column that the question needs is left out: {why}; {way} it out on purpose with "
        f"dataset.ignore_columns: [{_format_names(needed)}]"
    )


def require_few_conflicts(rows: int, lost: int, columns: Iterable[str]) -> None:
    """Check the result of dedupe: the last defence against a needed column that the rules above do not recognise.

    Args:
        rows: number of rows before repeats were dropped.
        lost: rows dropped although their answer differs from that of the row that was kept.
        columns: unused columns, without those that the config ignores.

    Raises:
        DataError: more than half of the rows are lost, and a column may hold what they differ in.
    """
    suspect = [name for name in dict.fromkeys(columns) if not is_irrelevant(name)]
    if 2 * lost > rows and suspect:
        listed = _format_names(suspect)
        raise DataError(
            f"dataset: {lost} of {rows} rows ask the same as another row and are answered differently; they would be "
            f"dropped, and what the question lacks may be in a column that is left out ({listed}): put it into the "
            "question; or, if the questions are complete and have several answers, set dedupe.conflicts=keep_all, or "
            f"leave the columns out on purpose with dataset.ignore_columns: [{listed}]"
        )


def _format_names(names: Iterable[str]) -> str:
    return ", ".join(name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name) for name in names)
