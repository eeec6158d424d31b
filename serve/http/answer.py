"""Generates one answer: sends prompt ids to an engine, decodes its tokens, and records counts and times.

It knows the link to the engines, the tokenizer's decoder and the metrics. It does not know HTTP.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from serve.http import metrics
from serve.link import EngineDied, EngineRefused, Engines, TokenEvent

if TYPE_CHECKING:
    from serve.http.text import Decoder  # brings transformers, which the main process does not need


@dataclass(frozen=True)
class Options:
    """How to generate, with every default filled in. `seed` None gives a different sample each time."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: list[str]
    min_p: float = 0.0
    min_new_tokens: int = 0
    ignore_eos: bool = False
    logprobs: bool = False


class Answer:
    """An answer, which `pieces` generates; its text, reason to end, counts and times can be read afterwards.

    Times are by `time.monotonic()`.
    """

    def __init__(
        self,
        engines: Engines,
        decoder: "Decoder",
        prompt: list[int],
        options: Options,
        arrived: float,
        seconds: float,
    ) -> None:
        self._engines, self._decoder, self.prompt, self._options = engines, decoder, prompt, options
        self.arrived = arrived
        self._deadline = asyncio.get_running_loop().time() + seconds - (time.monotonic() - arrived)
        self.text = ""
        self.finish_reason: Literal["stop", "length"] = "length"
        self.deadline_reached = False
        self.failed = False
        self.tokens = 0
        self._logprobs = 0.0
        self.started: float | None = None
        self.first_token: float | None = None
        self.ended = arrived

    @property
    def tokens_in(self) -> int:
        """The number of tokens of the prompt."""
        return len(self.prompt)

    @property
    def log_probability(self) -> float | None:
        """The mean log-probability of its tokens so far, the one that ends it included; None if not asked for."""
        return self._logprobs / self.tokens if self._options.logprobs and self.tokens else None

    async def pieces(self, stream: bool) -> AsyncGenerator[str]:
        """Generate the answer and yield its text. Closing the iterator early cancels the request.

        Args:
            stream: yield the text as it grows; False yields it once, unless stop strings have to be looked for.

        Raises:
            EngineDied: the engine died, or failed with this request.
            EngineRefused: the engine cannot compute the request.
        """
        request = {
            "prompt": self.prompt,
            "max_new_tokens": self._options.max_new_tokens,
            "temperature": self._options.temperature,
            "top_p": self._options.top_p,
            "top_k": self._options.top_k,
            "min_p": self._options.min_p,
            "seed": self._options.seed,
            "min_new_tokens": self._options.min_new_tokens,
            "ignore_eos": self._options.ignore_eos,
            "logprobs": self._options.logprobs,
        }
        metrics.TOKENS.labels("in").inc(len(self.prompt))
        complete = False
        try:
            # stop strings must be looked for as the tokens arrive
            eager = stream or bool(self._options.stop)
            generated = self._engines.generate(uuid.uuid4().hex, request, self._deadline, eager)
            async with aclosing(generated) as batches:
                async for events in batches:
                    # a token may arrive after the deadline, before this task runs; it is too late
                    end = next((index for index, event in enumerate(events, 1) if event.finish), None)
                    piece = "".join(self._take(event) for event in events[:end])
                    if piece:
                        self.text += piece
                        yield piece
                    if self._decoder.stopped or end:
                        break
            complete = True
        except (EngineDied, EngineRefused):
            self.failed = True
            raise
        finally:
            self._count(complete)

    def _take(self, event: TokenEvent) -> str:
        if self._decoder.stopped:
            return ""
        self.ended = event.at
        if event.finish == "deadline":
            self.deadline_reached = True
            return self._decoder.end()
        self.tokens += 1
        self._logprobs += event.logprob or 0.0
        if self.started is None:
            self.started, self.first_token = event.started, event.at
        piece = "" if event.finish == "stop" else self._decoder.add(event.token)
        if event.finish and not self._decoder.stopped:
            piece += self._decoder.end()
        if event.finish == "stop" or self._decoder.stopped:
            self.finish_reason = "stop"
        return piece

    def _count(self, complete: bool) -> None:
        metrics.TOKENS.labels("out").inc(self.tokens)
        if not complete:
            metrics.CANCELLED.inc(not self.failed)
            return
        metrics.DURATION.observe(self.ended - self.arrived)
        if self.first_token is not None:
            metrics.FIRST_TOKEN.observe(self.first_token - self.arrived)
            if self.tokens > 1:
                metrics.PER_TOKEN.observe((self.ended - self.first_token) / (self.tokens - 1))


class Said(Answer):
    """An answer that needs no engine, since its text is known."""

    def __init__(self, engines: Engines, decoder: "Decoder", text: str, arrived: float) -> None:
        super().__init__(engines, decoder, [], Options(0, 0.0, 1.0, 0, None, []), arrived, 0.0)
        self._said = text

    async def pieces(self, stream: bool) -> AsyncGenerator[str]:
        """Yield the text, whole."""
        self.text, self.finish_reason = self._said, "stop"
        self.started = self.first_token = self.ended = time.monotonic()
        self._count(complete=True)
        yield self.text


async def merge_pieces(answers: list[Answer], stream: bool) -> AsyncGenerator[tuple[int, str]]:
    """Yield the pieces of several answers as they arrive, each with the index of its answer."""
    if len(answers) == 1:
        async with aclosing(answers[0].pieces(stream)) as pieces:
            async for piece in pieces:
                yield 0, piece
        return
    ready: asyncio.Queue[tuple[int, str] | None | BaseException] = asyncio.Queue()

    async def pump(index: int, answer: Answer) -> None:
        try:
            async with aclosing(answer.pieces(stream)) as pieces:
                async for piece in pieces:
                    ready.put_nowait((index, piece))
            ready.put_nowait(None)
        except Exception as error:
            ready.put_nowait(error)

    tasks = [asyncio.create_task(pump(index, answer)) for index, answer in enumerate(answers)]
    try:
        open_answers = len(tasks)
        while open_answers:
            item = await ready.get()
            if isinstance(item, BaseException):
                for answer in answers:  # one failure ends all of them
                    answer.failed = True
                raise item
            if item is None:
                open_answers -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
