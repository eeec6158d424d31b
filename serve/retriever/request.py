"""The retriever engine's input and output: texts come in, published rows or vectors go out."""

from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["query", "document"]
"""Which of the two prompts of the encoder a text gets."""


@dataclass(frozen=True)
class Request:
    """Texts to encode, and what to do with their vectors.

    Attributes:
        id: of the request, unique among those that run.
        texts: at least one.
        lengths: the tokens of each text with its prompt.
        side: which prompt the texts get.
        top_k: search this many distinct answers for each text; 0 returns the vectors themselves.
    """

    id: str
    texts: list[str]
    lengths: list[int]
    side: Side = "query"
    top_k: int = 0


@dataclass(frozen=True)
class Hit:
    """A published row that was found: `score` ranks it, `confidence` tells whether it is known to be right.

    `question` is None if the row's question is not indexed.
    """

    answer: str
    score: float
    confidence: float
    source: str
    question: str | None


@dataclass(frozen=True)
class Done:
    """A request's result.

    Attributes:
        id: of the request.
        result: {"hits": a list of `Hit` fields} for each text, or {"vector": base64 of little-endian float32}.
        began: when its first text was encoded, by `time.monotonic()`.
    """

    id: str
    result: list[dict[str, Any]]
    began: float
