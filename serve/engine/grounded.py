"""Runs a retriever's engine and a generator's in one process: a grounded generator needs both for each answer.

A step is one of each that has something to compute, the retriever's first: it takes a fraction of the other's time, and
a prompt waits for it. It does not know HTTP, nor that a question comes before its prompt: the HTTP process sends both.
"""

from serve.engine.engine import Engine
from serve.engine.request import Failure, Limits, Request, Token
from serve.retriever.engine import RetrieverEngine
from serve.retriever.request import Done
from serve.retriever.request import Request as RetrieverRequest


class GroundedEngine:
    """Both engines as one. Not thread-safe: one thread submits, cancels and steps."""

    def __init__(self, generator: Engine, retriever: RetrieverEngine) -> None:
        self.generator, self.retriever = generator, retriever

    @property
    def limits(self) -> Limits:
        """The limits of a request to the generator."""
        return self.generator.limits

    @property
    def steps(self) -> int:
        """The number of steps of both."""
        return self.generator.steps + self.retriever.steps

    @property
    def running(self) -> int:
        """The number of requests that run in either."""
        return self.generator.running + self.retriever.running

    @property
    def waiting(self) -> int:
        """The number of requests that wait in either."""
        return self.generator.waiting + self.retriever.waiting

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self.generator.idle and self.retriever.idle

    def submit(self, request: Request | RetrieverRequest) -> None:
        """Queue a request in the engine that it is for.

        Raises:
            ValueError: it exceeds that engine's limits; both are unaffected.
        """
        if not isinstance(request, RetrieverRequest):
            self.generator.submit(request)
            return
        try:
            self.retriever.submit(request)
        except ValueError as error:
            raise ValueError(f"its retriever found {error}; shorten the question") from None

    def cancel(self, id: str) -> None:
        """Drop a request."""
        self.retriever.cancel(id)
        self.generator.cancel(id)

    def failures(self) -> list[Failure]:
        """Return the requests that have failed since the last call; they no longer run."""
        return self.retriever.failures() + self.generator.failures()

    def step(self) -> list[Token | Done]:
        """Compute a step of each; empty, at once, if there is nothing to compute."""
        return [*self.retriever.step(), *self.generator.step()]
