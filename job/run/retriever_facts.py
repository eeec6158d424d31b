"""Facts of retrievers: the one that a generator is grounded in, and the questions that no row answers."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GroundFacts:
    """The retriever that a generator is grounded in."""

    retriever: str
    """Hub id or path."""
    revision: str | None
    """Commit on the Hub."""
    weights: str
    """Hash of the safetensors files: the encoder's weights and the rows' vectors."""


@dataclass(frozen=True)
class UnknownQuestions:
    """Questions that no row answers, by which a retriever learns when it does not know."""

    questions: list[str]
    names: list[str] = field(default_factory=list)
    """The files with them, as the config names them."""
