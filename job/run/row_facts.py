"""The facts about single rows: those that were rejected, repeat another, contradict it, or are shown as examples.

They are parts of the facts of a run.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rejection:
    """A row that a stage rejected, as the stage hands it on."""

    where: str
    """The place of the row: its file and its line or number."""
    stage: str
    reason: str
    id: int | None = None
    """The row's number among the loaded rows; None where the stage was given rows without ids."""
    shown: tuple[object, object] | None = None
    """Question and answer as they may be shown, where the loaded ones may not be or do not exist."""


@dataclass(frozen=True)
class Place:
    """A row that was kept, by its place."""

    where: str
    question: str


@dataclass(frozen=True)
class Row:
    """A row with its text. Values that a file held in place of text may be anything."""

    where: str
    question: Any
    answer: Any
    reason: str | None = None
    """Why it is shown, where there is a reason."""


@dataclass(frozen=True)
class Repeat:
    """A row that was dropped for another."""

    where: str
    question: str
    similarity: float
    """Jaccard or cosine; 1.0 for an exact repeat."""


@dataclass(frozen=True)
class Cluster:
    """A row that was kept, and the rows that repeat it."""

    survivor: Place
    victims: list[Repeat]
    size: int
    """All victims; the list may hold fewer."""


@dataclass(frozen=True)
class GivenAnswer:
    where: str
    answer: str


@dataclass(frozen=True)
class Conflict:
    """A question with different answers."""

    question: str
    answers: list[GivenAnswer]
    kept: str
    """The place of the row that was kept, or "all"."""


@dataclass(frozen=True)
class Doubtful:
    """Two rows that were kept though they may say the same."""

    similarity: float
    rows: list[Row]


@dataclass(frozen=True)
class Closest:
    """The most similar pair with one row trained and one tested; the two are no near twins."""

    similarity: float
    train: Place
    test: Place


@dataclass(frozen=True)
class Rendered:
    """A training row as the model reads it."""

    where: str
    prompt: str
    answer: str
