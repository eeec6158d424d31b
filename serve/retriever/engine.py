"""Schedules requests over a loaded encoder: the texts that wait when a step begins are encoded as one batch.

A step encodes texts of one side (queries or documents), and searches the vectors of those that ask for it. A request
with many texts takes several steps. The first waiting text of every request comes before the second of any, so that a
question does not wait for a long list of texts.

It does not know HTTP, clients or deadlines. A step that runs out of memory fails its own requests only.
"""

import base64
import dataclasses
import logging
import time
from typing import Any

import numpy as np
import torch

from serve.engine.calls import Calls
from serve.engine.memory import is_out_of_memory
from serve.engine.request import Failure, Limits
from serve.messages import one_line
from serve.retriever.encoder import Encoder
from serve.retriever.index import Index
from serve.retriever.request import Done, Request, Side

log = logging.getLogger(__name__)
MAX_BACKOFF = 6
"""How often the batch is halved, at most."""
BACKOFF_STEPS = 50
"""After this many steps without running out of memory, the batch may double again."""
NON_FINITE = "the encoder's result is not a number here; publish a model whose weights fit float32"


class _Running:
    """A request and the results of its texts so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.results: list[dict[str, Any]] = []
        self.began = 0.0

    @property
    def started(self) -> bool:
        return self.began > 0


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Texts of one side, each with its request, in the order of their results."""

    owners: list[_Running]
    texts: list[str]


class RetrieverEngine:
    """Encodes and searches. Not thread-safe: one thread submits, cancels and steps."""

    def __init__(self, encoder: Encoder, index: Index, *, context: int, step_tokens: int, max_rows: int = 32) -> None:
        """Prepare the engine.

        Args:
            encoder: verified, see `verify`.
            index: of the published rows.
            context: the most tokens of a text.
            step_tokens: of a batch, padding included; at least `context`.
            max_rows: texts of a batch.
        """
        self.encoder, self.index = encoder, index
        self.step_tokens, self.max_rows = step_tokens, max_rows
        self.limits = Limits(context, encoder.tokenizer.get_vocab_size(), step_tokens, "its encoder's max_seq_length")
        self.steps = 0
        self._requests: dict[str, _Running] = {}
        self._failures: list[Failure] = []
        self._call = Calls()
        self._backoff, self._backoff_since = 0, 0
        self._side: Side | None = None

    @property
    def running(self) -> int:
        """The number of requests that a step has begun with."""
        return sum(one.started for one in self._requests.values())

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._requests) - self.running

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._requests

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ValueError: it has no texts, or one that is too long; the engine is unaffected.
        """
        if not request.texts or len(request.texts) != len(request.lengths):
            raise ValueError(f"{len(request.texts)} texts and {len(request.lengths)} lengths, expected one of each")
        if max(request.lengths) > self.limits.context:
            raise ValueError(f"{max(request.lengths)} tokens, expected at most {self.limits.context}")
        self._requests[request.id] = _Running(request)

    def cancel(self, id: str) -> None:
        """Drop a request."""
        self._requests.pop(id, None)

    def failures(self) -> list[Failure]:
        """Return the requests that have failed since the last call; they no longer run."""
        failed, self._failures = self._failures, []
        return failed

    def step(self) -> list[Done]:
        """Encode and search one batch.

        Returns:
            The requests it completed; empty, at once, if there is nothing to compute.
        """
        if not self._requests:
            return []
        self.steps += 1
        batch, now = self._next_batch(), time.monotonic()
        for owner in batch.owners:
            owner.began = owner.began or now
        try:
            results = self._call(self._compute, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(error)
        else:
            if self._backoff and self.steps - self._backoff_since >= BACKOFF_STEPS:
                self._backoff, self._backoff_since = self._backoff - 1, self.steps
            return self._add(batch, results)
        # not in the except block, where the error's frames still hold the batch's tensors
        self._fail_batch(batch, reason)
        return []

    def _next_batch(self) -> _Batch:
        """Choose texts of one side: one of each request, then the second ones, as many as fit."""
        side = self._next_side()
        same = [one for one in self._requests.values() if one.request.side == side]
        tokens = max(self.step_tokens >> self._backoff, 1)
        rows, longest = max(self.max_rows >> self._backoff, 1), 0
        owners: list[_Running] = []
        texts: list[str] = []
        turn = 0
        while same:
            for one in same:
                at = len(one.results) + turn
                longest = max(longest, one.request.lengths[at])
                if texts and ((len(texts) + 1) * longest > tokens or len(texts) == rows):
                    return _Batch(owners, texts)
                owners.append(one)
                texts.append(one.request.texts[at])
            turn += 1
            same = [one for one in same if len(one.results) + turn < len(one.request.texts)]
        return _Batch(owners, texts)

    def _next_side(self) -> Side:
        """The side of the next batch; they take turns, so that a long list of one side does not hold up the other."""
        sides = [one.request.side for one in self._requests.values()]
        side = next((side for side in sides if side != self._side), sides[0])
        self._side = side
        return side

    def _compute(self, batch: _Batch) -> list[dict[str, Any] | None]:
        """Each text's result; None if its vector is not finite."""
        vectors = self.encoder.encode(batch.texts, batch.owners[0].request.side)
        results: list[dict[str, Any] | None] = [None] * len(batch.texts)
        finite = torch.isfinite(vectors).all(1).tolist()
        counts = [owner.request.top_k for owner in batch.owners]
        asked = [at for at, count in enumerate(counts) if count and finite[at]]
        if asked:
            found = self.index.search(vectors[asked], [counts[at] for at in asked])
            for at, hits in zip(asked, found, strict=True):
                results[at] = {"hits": [dataclasses.asdict(hit) for hit in hits]}
        for at, count in enumerate(counts):
            if not count and finite[at]:
                numbers = vectors[at].cpu().numpy().astype(np.dtype("<f4"))
                results[at] = {"vector": base64.b64encode(numbers.tobytes()).decode()}
        return results

    def _add(self, batch: _Batch, results: list[dict[str, Any] | None]) -> list[Done]:
        """Hand each request its results; complete ones leave."""
        done = []
        for owner, result in zip(batch.owners, results, strict=True):
            request = owner.request
            if request.id not in self._requests:
                continue
            if result is None:
                self._fail(request.id, NON_FINITE)
                continue
            owner.results.append(result)
            if len(owner.results) == len(request.texts):
                del self._requests[request.id]
                done.append(Done(request.id, owner.results, owner.began))
        return done

    def _fail(self, id: str, reason: str) -> None:
        if self._requests.pop(id, None):
            self._failures.append(Failure(id, reason))

    def _fail_batch(self, batch: _Batch, reason: str) -> None:
        """Fail the requests of a batch that ran out of memory, and halve the batches for a while."""
        ids = list(dict.fromkeys(owner.request.id for owner in batch.owners))
        log.error("engine: out of memory; %d of %d requests fail (%s)", len(ids), len(self._requests), reason)
        for id in ids:
            self._fail(id, f"out of memory ({reason}); try again, or with a shorter text")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._backoff, self._backoff_since = min(self._backoff + 1, MAX_BACKOFF), self.steps
