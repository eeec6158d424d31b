"""Finds the rows for a question, and begins an answer that is made from them.

Below the retriever's threshold nothing is generated: the answer is the published one to what is not known. It knows the
lookup and the generation. It does not know the form of requests and responses.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive

from serve.http import metrics, retrieve
from serve.http.answer import Answer, Said
from serve.http.ask import Generation, Query, start
from serve.http.state import AppState
from serve.http.template import Documents


@dataclass(frozen=True)
class Found:
    """The rows of a question, the nearest first, and whether the nearest is near enough."""

    hits: list[dict[str, Any]]
    known: bool
    unknown_answer: str

    @property
    def documents(self) -> Documents:
        """The rows as the chat template takes them."""
        return [
            {"text": hit["answer"]} | ({} if hit["question"] is None else {"title": hit["question"]})
            for hit in self.hits
        ]

    def is_known(self, answer: Answer) -> bool:
        """Whether an answer says more than that it is not known."""
        return self.known and _plain(answer.text) != _plain(self.unknown_answer)


def _plain(text: str) -> str:
    """A text without its case, its blanks and the punctuation at its end."""
    return " ".join(text.casefold().split()).rstrip(".!")


async def begin(state: AppState, receive: Receive, question: str, field: str, query: Query) -> tuple[Found, Generation]:
    """Find the rows for a question, and begin the answer.

    Args:
        state: of the server.
        receive: of the request, to notice a client that leaves meanwhile.
        question: to find rows for.
        field: of the request that has it, for errors.
        query: what the request asks for.

    Returns:
        The rows, and the generation, which the caller must pass on as that of `ask.start`.

    Raises:
        Problem: as `retrieve.retrieve` and `ask.start`.
        ClientDisconnected: the client has disconnected.
    """
    arrived = time.monotonic()
    asked = retrieve.Query([question], field, top_k=state.rows, seconds=query.seconds, whole=False)
    hits = (await retrieve.retrieve(state, receive, asked)).results[0]["hits"]
    needed, best = state.known_from, hits[0]
    known = bool(best["confidence"] >= needed.confidence or best["score"] >= needed.certain_score)
    found = Found(hits, known, needed.unknown_answer)
    if known:
        return found, await start(state, replace(query, documents=found.documents, arrived=arrived))
    metrics.UNKNOWN.inc()
    decoder = state.loaded_text.decoder([])
    said = [Said(state.engines, decoder, needed.unknown_answer, arrived) for _ in range(query.n)]
    return found, Generation([*said], lambda: None)
