"""Row facts: typed records of single rows that were rejected, repeat or contradict another, or serve as examples.

They are parts of the facts of a run (`facts`).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rejection:
    """A row that a stage rejected."""

    where: str
    """The row's file and its line or number in it, such as "dataset.json row 12"."""
    stage: str
    reason: str
    id: int | None = None
    """The row's number among the loaded rows; None if the rows have no ids."""
    shown: tuple[object, object] | None = None
    """Question and answer to show instead of the loaded ones, which hold secrets or do not exist."""


@dataclass(frozen=True)
class KeptRow:
    """A row that was kept."""

    where: str
    question: str


@dataclass(frozen=True)
class Row:
    """A row with its values, which may be anything that a file holds in place of text."""

    where: str
    question: Any
    answer: Any
    reason: str | None = None
    """Why it is shown; None if there is no reason to give."""


@dataclass(frozen=True)
class Repeat:
    """A row that was rejected because it repeats another."""

    where: str
    question: str
    similarity: float
    """Jaccard or cosine similarity; 1.0 for an exact repeat."""


@dataclass(frozen=True)
class Cluster:
    """A row that was kept, and the rejected rows that repeat it."""

    survivor: KeptRow
    victims: list[Repeat]
    size: int
    """Number of victims; the list may hold fewer."""


@dataclass(frozen=True)
class GivenAnswer:
    """An answer that one row gives to a question."""

    where: str
    answer: str


@dataclass(frozen=True)
class Conflict:
    """A question with different answers."""

    question: str
    answers: list[GivenAnswer]
    kept: str
    """`where` of the row that was kept, or "all"."""


@dataclass(frozen=True)
class Doubtful:
    """Two rows that were kept although they may be near duplicates."""

    similarity: float
    rows: list[Row]


@dataclass(frozen=True)
class Closest:
    """The most similar pair of a training row and a test row; they are below the near-duplicate threshold."""

    similarity: float
    train: KeptRow
    test: KeptRow


@dataclass(frozen=True)
class Rendered:
    """A training row as text, in the form the model is trained on."""

    where: str
    prompt: str
    answer: str
