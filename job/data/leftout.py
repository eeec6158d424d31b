"""Left out: columns beside question and answer, and whether the rows can be understood without them.

Names tell something: a model that never saw `context` learns to answer from nothing, and an `id` tells it nothing. The
rows tell more: where the same question has different answers and a column tells them apart, the question is not whole
without it, whatever its name. So each row leaves hashes of its question, its answer and the columns left out, a few
bytes each; the rows themselves are not kept.

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
import pyarrow as pa
import xxhash

Hashes = npt.NDArray[np.uint64]


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_NEEDED = _names(
    """
    input inputs context contexts ctx passage passages paragraph paragraphs document documents doc docs article story
    background knowledge history chathistory conversation conversations dialog dialogs dialogue dialogues message
    messages turns system systemprompt systemmessage systemcontent persona instruction instructions schema table tables
    sqlcontext choices options image images picture photo audio video
    """
)
"""Names, without case and punctuation, of what a question needs wherever it is filled."""
_ASKING = frozenset(["question", "query", "prompt", "userprompt"])
"""Another question: needed as well, unless the config itself has named the column of the questions."""
_NO_MATTER = re.compile(
    r"(?:.*_)?(?:id|ids|uid|uuid|guid|idx|index|hash|md5|sha\d*|url|urls|uri|link|links|href|path|file|filename|time|"
    r"datetime|timestamp|created|updated|modified|created_at|updated_at|score|scores|rating|votes|upvotes|likes|rank|"
    r"count|counts|length|len|tokens|size|author|authors|user|username|annotator|worker|editor|reviewer|source|sources|"
    r"origin|provenance|dataset|generator|model|model_name|license|licence|split|fold|status|quality|confidence|"
    r"weight|embedding|embeddings|rejected|chosen|explanation|rationale|reasoning|thought|thoughts|cot|"
    r"thinking|feedback|critique|comment|comments|note|notes|answers?|responses?|replies|reply|outputs?|completions?|"
    r"targets?|solutions?|distractors?|correct|is_correct|verified|upvoted|unnamed_\d+)(?:_\d+|_level_\d+)*"
    r"|(?:num|n|nr|no|is|has)_.*|(?:answer|response|output|completion|source|index|unnamed)_.*"
)
"""Names of what says where a row is from, how good it is, or how else it could be answered."""
_CLASSES = _names(
    """
    category categories subcategory topic topics subtopic label labels tag tags keyword keywords type types kind class
    task tasks domain domains subject subjects genre intent lang language locale section group date year version level
    difficulty
    """
)
"""Names of what sorts rows. They are needed only where most of the rows show it."""
_EMPTY = frozenset(["", "n/a", "na", "nan", "none", "null", "-", "<noinput>", "noinput", "no input"])
# a web address, a hash, or one word with digits or an underscore in it
_MACHINE = re.compile(r"\w+://\S+|[0-9a-fA-F-]{16,}|(?=\S*[\d_])[!-~]+")
_LETTER = re.compile(r"[^\W\d_]")
_LOOKED_AT = 10_000
_TOLD_APART = 0.01
_CLEARLY = 0.2
"""Shares of the rows that a column tells apart, from which it is needed: a text, and what sorts or counts."""


@dataclass
class _Column:
    """What the rows show of a column."""

    name: str
    asks: bool
    hashes: list[tuple[int, Hashes]] = field(default_factory=list)
    """From which row on, and a hash of each value; 0 where there is none."""
    filled: int = 0
    first: str = ""
    looked_at: int = 0
    repeats: int = 0
    """Of the rows looked at those whose question holds the value, or whose value is question and answer together."""
    texts: int = 0

    @property
    def by_name(self) -> bool:
        return _is_one_of(self.name, _NEEDED) or (self.asks and _is_one_of(self.name, _ASKING))

    @property
    def says_nothing_new(self) -> bool:
        return self.looked_at > 0 and self.repeats >= 0.99 * self.looked_at

    @property
    def sorts_or_counts(self) -> bool:
        return _is_one_of(self.name, _CLASSES) or self.texts < 0.9 * self.looked_at

    def see(self, start: int, values: list[Any], questions: list[str], answers: list[str], places: list[str]) -> None:
        """Take in the values of some rows."""
        # lists and objects are looked into only where their name says that they matter
        texts = [_text(value) if self.by_name or isinstance(value, str | int) else "" for value in values]
        self.hashes.append((start, _hashed(texts)))
        for text, question, answer, place in zip(texts, questions, answers, places, strict=True):
            if text:
                self.first = self.first or place
                self.filled += 1
                if self.looked_at < _LOOKED_AT:
                    self._look(text, question, answer)

    def _look(self, text: str, question: str, answer: str) -> None:
        self.looked_at += 1
        # alpaca's `text` is question and answer in a template of some two hundred characters
        both = question in text and answer in text
        self.repeats += text in question or (both and len(text) < 1.5 * (len(question) + len(answer)) + 300)
        self.texts += bool(_LETTER.search(text)) and not _MACHINE.fullmatch(text)


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
        others = {name: values for name, values in others.items() if not _no_matter(name)}
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
        self._unread.setdefault(name, f"holds pictures or sounds in {source}, which a language model cannot read")

    def judged(self) -> tuple[dict[str, str], list[str]]:
        """The columns that the rows need, each with what shows it; and remarks on others that may matter."""
        needed, remarks = dict(self._unread), []
        total = self.rows + self._without
        for column in self._columns.values():
            if column.filled and column.by_name and not column.says_nothing_new:
                needed[column.name] = f"is filled in {column.filled} of {total} rows, first in {column.first}"
        for name, (count, share, recurs) in self._told_apart().items():
            column = self._columns[name]
            clearly = count >= _CLEARLY * total and share >= 0.9 and recurs
            told = f"tells {count} rows apart that ask the same and are answered differently"
            if name in needed:
                continue
            if clearly if column.sorts_or_counts else count >= _TOLD_APART * total and share >= 0.5:
                needed[name] = told
            else:
                remarks.append(f"the column {name!r}, which is left out, {told}")
        return needed, remarks

    def _told_apart(self) -> dict[str, tuple[int, float, bool]]:
        """Of each column: rows with the same question whose answers it tells apart; the share of such questions that it
        does so for; and whether its values recur, as those of a number that only counts the rows do not."""
        frame = pd.DataFrame({"question": _joined(self._questions), "answer": _joined(self._answers)})
        # one answer to a question is the rule, and then nothing is left to look at
        several = frame.groupby("question")["answer"].transform("nunique").to_numpy() > 1
        if not several.any():
            return {}
        frame = frame[several]
        found: dict[str, tuple[int, float, bool]] = {}
        sizes = frame.groupby("question").size()
        for column in self._columns.values():
            if not column.filled or column.says_nothing_new:
                continue
            values = self._whole(column)
            frame = frame.assign(value=values[several])
            answers = frame.groupby(["question", "value"])["answer"].nunique().groupby("question").max()
            told = sizes[answers == 1]
            if len(told):
                recurs = len(np.unique(values[values != 0])) <= 0.5 * column.filled
                found[column.name] = (int(told.sum()), len(told) / len(sizes), recurs)
        return found

    def _whole(self, column: _Column) -> Hashes:
        whole = np.zeros(self.rows, np.uint64)
        for start, hashes in column.hashes:
            whole[start : start + len(hashes)] = hashes
        return whole


def worth_reading(schema: pa.Schema) -> Iterable[str]:
    """Of a file's columns those that can be judged: texts, whole numbers, and what bears the name of something needed
    unless it holds bytes, such as pictures, which are told of by `unread`."""
    for column in schema:
        if _holds_bytes(column.type) or _no_matter(column.name):
            continue
        named = _is_one_of(column.name, _NEEDED | _ASKING)
        if named or _is_text(column.type) or pa.types.is_integer(column.type):
            yield column.name


def unread(schema: pa.Schema) -> Iterable[str]:
    """The columns of pictures and sounds by whose names a question needs them."""
    for column in schema:
        if _holds_bytes(column.type) and _is_one_of(column.name, _NEEDED):
            yield column.name


def _is_one_of(name: str, names: frozenset[str]) -> bool:
    """Case, punctuation, a number, and the word text apart: `Context_1`, `input text`."""
    plain = re.sub(r"[\W\d_]+", "", name.lower())
    return plain in names or plain.removesuffix("text") in names or plain.removeprefix("text") in names


def _no_matter(name: str) -> bool:
    snake = re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).strip("_").lower()
    return _NO_MATTER.fullmatch(snake) is not None


def _is_text(type_: pa.DataType) -> bool:
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner))


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return True
    return any(_holds_bytes(type_.field(number).type) for number in range(type_.num_fields))


def _text(value: object) -> str:
    """A value as one text; empty where it says nothing."""
    if value is None or isinstance(value, bool | float | bytes):
        return ""
    if isinstance(value, dict):
        return " ".join(filter(None, map(_text, value.values())))
    if isinstance(value, list):
        return " ".join(filter(None, map(_text, value)))
    text = str(value).strip()
    return "" if text.lower() in _EMPTY else text


def _hashed(texts: list[str]) -> Hashes:
    """8 bytes a text; 0 for an empty one."""
    hashes = (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) if text else 0 for text in texts)
    return np.fromiter(hashes, np.uint64, len(texts))


def _joined(parts: list[Hashes]) -> Hashes:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def refusal(needed: dict[str, str]) -> str:
    """The line that refuses to go on without the columns."""
    why = "; ".join(f"{name!r} {reason}" for name, reason in needed.items())
    listed = ", ".join(name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name) for name in needed)
    return (
        f"dataset: a column that the question needs is left out: {why}; put it into the question, or leave it out on "
        f"purpose with dataset.ignore_columns: [{listed}]"
    )
