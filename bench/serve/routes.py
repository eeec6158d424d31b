"""Routes: how to ask each server a question, and how to parse its answer: text, tokens, and arrival times.

Tokens are counted as words in the text, which is exact for the benchmark's model (see model.py) and works for servers
that do not report usage. A reported usage that differs makes the answer wrong. The module knows the formats of requests
and answers. It does not know who asks, how often, or which server it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.serve.client import Connection, Response

Json = dict[str, Any]
TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True)
class Route:
    """A server's route.

    `text` parses a complete answer, `piece` an event of a stream, and `usage` the token count that either may report.
    """

    path: str
    body: Callable[[str, int, bool], Json]
    text: Callable[[Json], str]
    piece: Callable[[Json], str]
    usage: Callable[[Json], int | None]

    async def ask(self, connection: Connection, question: str, tokens: int, stream: bool) -> "Answer":
        """Ask a question.

        Raises:
            OSError: There is no connection.
            EOFError: The connection ended in the middle.
            ValueError: The answer has another format.
        """
        return self._read(await connection.ask("POST", self.path, self.body(question, tokens, stream)), tokens, stream)

    def _read(self, response: Response, wanted: int, stream: bool) -> "Answer":
        if response.status != 200:
            return Answer(response, f"status {response.status}")
        events = response.events() if stream else [(response.ended, response.json())]
        pieces = [(at, text) for at, event in events if (text := (self.piece if stream else self.text)(event))]
        tokens = len("".join(text for _, text in pieces).split())
        reported = [usage for _, event in events if (usage := self.usage(event)) is not None]
        failed = [event["error"] for _, event in events if "error" in event]
        wrong = f"{failed[0]}" if failed else None
        if wrong is None and (tokens != wanted or any(usage != wanted for usage in reported)):
            wrong = f"{tokens} tokens, {wanted} expected, reported {reported}"
        if not pieces or not stream:
            return Answer(response, wrong, tokens)
        first, last = pieces[0][0], pieces[-1][0]
        each = (last - first) / (tokens - 1) if tokens > 1 else None
        return Answer(response, wrong, tokens, first - response.sent, each)


@dataclass(frozen=True)
class Answer:
    """An answer; `wrong` says what is wrong with it, or is None. Times in seconds, only of streamed answers."""

    response: Response
    wrong: str | None
    tokens: int = 0
    first_token: float | None = None
    per_token: float | None = None


def _predict_body(question: str, tokens: int, stream: bool) -> Json:
    return {"question": question, "max_new_tokens": tokens, "temperature": 0, "stream": stream}


def _chat_body(question: str, tokens: int, stream: bool) -> Json:
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": stream}


def _pipeline_body(question: str, tokens: int, stream: bool) -> Json:
    return {"prompt": question}


def _usage(content: Json) -> int | None:
    usage = content.get("usage")
    return usage["completion_tokens"] if usage else None


def _delta(event: Json) -> str:
    choices = event.get("choices")
    return (choices[0]["delta"].get("content") if choices else None) or ""


def _message(content: Json) -> str:
    return str(content["choices"][0]["message"]["content"])


PREDICT = Route(
    "/predict", _predict_body, lambda content: content["answer"], lambda event: event.get("text", ""), _usage
)
CHAT = Route("/v1/chat/completions", _chat_body, _message, _delta, _usage)
PIPELINE = Route("/predict", _pipeline_body, lambda content: content["output"], lambda event: "", lambda content: None)
