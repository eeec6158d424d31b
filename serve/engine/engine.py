"""Schedules requests over a loaded model by continuous batching (Orca; Yu et al., 2022) with chunked prefill.

Requests join and leave the running batch between steps. A step is one forward pass: a prefill (a chunk of some
requests' prompts) or a decode (one token for every request whose prompt is computed). A long prompt is computed in
chunks, between which other requests decode.

It does not know text, HTTP, clients or deadlines: token ids come in, token ids go out, and the caller may cancel. A
request that would make a pass fail is refused (`Engine.limits`); a pass that runs out of memory fails its own requests
only.
"""

import logging
import time
from collections import deque
from typing import Literal

import torch
from transformers import PreTrainedModel

from serve.engine import attention
from serve.engine.batched import BatchedPasses
from serve.engine.cache import BLOCK
from serve.engine.calls import Calls
from serve.engine.likelihood import log_probabilities
from serve.engine.limits import limits
from serve.engine.memory import is_out_of_memory
from serve.engine.passes import Passes
from serve.engine.request import Failure, Request, Token
from serve.engine.row import Row
from serve.engine.sampling import Penalties, choose, eos_ids, generator
from serve.engine.single import SinglePasses
from serve.messages import one_line

log = logging.getLogger(__name__)
ROWS_PER_DECODE = 8
"""After a prefill, run rows // 8 decodes (at least one) before the next, so that arrivals are prefilled together: a
prompt alone takes about as long as a few. 6 % more tokens per second at 32 clients, 5 % under overload."""
MAX_BACKOFF = 10
"""How often the batch is halved, at most."""
BACKOFF_STEPS = 200
"""After this many steps without running out of memory, the batch may double again."""
NON_FINITE = "the model's logits are NaN or infinite here; publish a model whose weights fit its number format"
MIN_CHUNK = 32
"""Fewest tokens of a chunk, when memory is short or the machine slow."""


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread submits, cancels and steps."""

    def __init__(
        self, model: PreTrainedModel, *, max_rows: int = 32, cache_bytes: int = 2**30, prefill_tokens: int = 512
    ) -> None:
        """Prepare the engine; nothing is computed yet but one token.

        Args:
            model: from `model.load`.
            max_rows: requests that run at once.
            cache_bytes: memory for keys and values.
            prefill_tokens: tokens of a prefill pass.
        """
        self.model = model
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        together = model.config.get_text_config()._attn_implementation == attention.NAME
        self.passes: Passes = BatchedPasses(model) if together else SinglePasses(model)
        self._call = Calls()
        self.limits = limits(model, cache_bytes, self.passes.bytes_per_token)
        self.steps = 0
        self._waiting: deque[Request] = deque()
        self._rows: list[Row] = []  # in the order of the cache; those still prefilling come last
        self._failures: list[Failure] = []
        self._decodes_due = 0
        self._rows_moving = False
        """Rows are being moved; if that fails, the content of the cache is unknown."""
        self._backoff, self._backoff_since = 0, 0
        self.eos = eos_ids(model.generation_config)
        self._penalties = Penalties.published(model.generation_config)

    @property
    def running(self) -> int:
        """The number of requests that run."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._rows and not self._waiting

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ValueError: it exceeds `limits`; the engine is unaffected.
        """
        if not request.prompt or request.max_new_tokens < 1 or request.final_length > self.limits.context:
            raise ValueError(
                f"{len(request.prompt)} + {request.max_new_tokens} tokens, expected 1 to {self.limits.context} together"
            )
        if not 0 <= min(request.prompt) <= max(request.prompt) < self.limits.vocabulary:
            raise ValueError(f"a token id is outside the vocabulary of {self.limits.vocabulary}")
        self._waiting.append(request)

    @torch.inference_mode()
    def cancel(self, id: str) -> None:
        """Drop a request, waiting or running; its place is free for the next step."""
        self._waiting = deque(request for request in self._waiting if request.id != id)
        try:
            self._forget({id})
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(error)
        self._fail_group(set(), reason)

    def failures(self) -> list[Failure]:
        """Return the requests that have failed since the last call; they no longer run."""
        failed, self._failures = self._failures, []
        return failed

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Compute one forward pass.

        Returns:
            The tokens it generated; empty, at once, if there is nothing to compute.
        """
        chunks = {} if self._decodes_due > 0 and self._decoding else self._next_chunks()
        if not chunks and not self._rows:
            return []
        self.steps += 1
        indices = sorted(chunks) or self._next_decodes()
        group = {self._rows[index].request.id for index in indices}
        try:
            tokens = self._prefill(chunks) if chunks else self._decode(indices)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = one_line(error)
        else:
            if self._backoff and self.steps - self._backoff_since >= BACKOFF_STEPS:
                self._backoff, self._backoff_since = self._backoff - 1, self.steps
            return tokens
        # not in the except block, where the error's frames still hold the pass's tensors
        self._fail_group(group, reason)
        return []

    @property
    def _decoding(self) -> int:
        return sum(not row.prefilling for row in self._rows)

    def _next_chunks(self) -> dict[int, int]:
        """Start waiting requests, and choose the rows of the next prefill and the number of tokens of each.

        Rows take turns, the one computed longest ago first. Chunks start at multiples of `prefill_tokens`, whatever
        else runs.
        """
        self._start_waiting()
        budget = max(self.prefill_tokens >> self._backoff, min(MIN_CHUNK, self.prefill_tokens))
        prefilling = [index for index, row in enumerate(self._rows) if row.prefilling]
        chunks: dict[int, int] = {}
        for index in sorted(prefilling, key=lambda index: self._rows[index].turn):
            row = self._rows[index]
            count = min(len(row.request.prompt) - row.computed, budget)
            if chunks and (self.passes.one_row or (len(chunks) + 1) * max(count, *chunks.values()) > budget):
                break
            chunks[index] = count
        return chunks

    def _next_decodes(self) -> list[int]:
        """The rows of the next decode: all, or, if a pass computes one row, the one computed longest ago."""
        indices = range(self._decoding)
        return [min(indices, key=lambda index: self._rows[index].turn)] if self.passes.one_row else list(indices)

    def _start_waiting(self) -> None:
        """Start the oldest waiting requests, as many as memory allows."""
        most = max(1, self.max_rows >> self._backoff)
        longest = max((row.request.final_length for row in self._rows), default=0)
        while self._waiting and len(self._rows) < most:
            longest = max(longest, self._waiting[0].final_length)
            if (len(self._rows) + 1) * (longest + BLOCK) > self.limits.cache_tokens:
                break
            request = self._waiting.popleft()
            self._rows.append(Row(request, generator(request.seed), turn=self.steps))
            self.passes.add_row(len(request.prompt))

    def _prefill(self, chunks: dict[int, int]) -> list[Token]:
        group = sorted(chunks)
        rows = [self._rows[index] for index in group]
        tokens = [
            row.request.prompt[row.computed : row.computed + chunks[index]]
            for index, row in zip(group, rows, strict=True)
        ]
        now = time.monotonic()
        logits = self._call(self.passes.compute, group, tokens, decode=False)
        for index, row in zip(group, rows, strict=True):
            row.began = row.began or now
            row.computed += chunks[index]
            row.turn = self.steps
        failed = self._fail_non_finite(logits, group)  # before rows move: a move copies a row's own columns only
        complete = [at for at, row in enumerate(rows) if not row.prefilling and row.request.id not in failed]
        kept = [index for index, row in enumerate(self._rows) if row.request.id not in failed]
        order = sorted(kept, key=lambda index: self._rows[index].prefilling)
        self._arrange(order)
        rounds = max(1, self._decoding // ROWS_PER_DECODE)
        self._decodes_due = rounds * self._decoding if self.passes.one_row else rounds
        if not complete:
            return []
        return self._add_tokens(logits[complete], [order.index(group[at]) for at in complete])

    def _decode(self, indices: list[int]) -> list[Token]:
        self._decodes_due -= 1
        for index in indices:
            self._rows[index].turn = self.steps
        last = [[self._rows[index].generated[-1]] for index in indices]
        logits = self._call(self.passes.compute, indices, last, decode=True)
        return self._add_tokens(logits, indices)

    def _add_tokens(self, logits: torch.Tensor, indices: list[int]) -> list[Token]:
        """Choose a token for each of the rows `indices` from its line of `logits`; finished rows leave the batch."""
        failed = self._fail_non_finite(logits, indices)
        if failed:
            sound = [at for at, index in enumerate(indices) if self._rows[index].request.id not in failed]
            logits, indices = logits[sound], [indices[at] for at in sound]
        rows = [self._rows[index] for index in indices]
        tokens = []
        chosen = self._choose(logits, rows) if rows else []
        for row, token, logprob in zip(rows, chosen, log_probabilities(logits, rows, chosen), strict=True):
            row.generated.append(token)
            finish: Literal["stop", "length"] | None = None
            if token in self.eos and not row.request.ignore_eos:
                finish = "stop"
            elif len(row.generated) == row.request.max_new_tokens:
                finish = "length"
            tokens.append(Token(row.request.id, token, finish, row.began, logprob))
        self._drop({token.id for token in tokens if token.finish} | failed)
        return tokens

    def _fail_non_finite(self, logits: torch.Tensor, indices: list[int]) -> set[str]:
        """Fail the rows `indices` whose line of `logits` is not finite, and zero them; returns their requests' ids."""
        finite = torch.isfinite(logits.max(-1).values).tolist()
        failed = [index for index, is_finite in zip(indices, finite, strict=True) if not is_finite]
        for index in failed:
            self.passes.wipe(index)
        ids = {self._rows[index].request.id for index in failed}
        self._failures += [Failure(id, NON_FINITE) for id in sorted(ids)]
        return ids

    def _choose(self, logits: torch.Tensor, rows: list[Row]) -> list[int]:
        return choose(logits, rows, self._penalties, self.eos)

    def _forget(self, ids: set[str], failed: bool = False) -> None:
        """Drop unfinished rows; zero those whose last pass wrote values that were not checked."""
        for index, row in enumerate(self._rows):
            if row.request.id in ids and (failed or row.prefilling):
                self.passes.wipe(index)
        self._drop(ids)

    def _drop(self, ids: set[str]) -> None:
        """Drop rows. The last decoding rows fill the gaps, so that few rows move."""
        kept = [index for index, row in enumerate(self._rows) if row.request.id not in ids]
        if len(kept) < len(self._rows):
            decoding = sum(not self._rows[index].prefilling for index in kept)
            stay = {index for index in kept if index < decoding}
            movers = [index for index in kept[:decoding] if index >= decoding]
            order = [index if index in stay else movers.pop() for index in range(decoding)]
            self._arrange(order + kept[decoding:])

    def _arrange(self, order: list[int]) -> None:
        if order != list(range(len(self._rows))):
            self._rows_moving = True
            self.passes.arrange(order)
            self._rows = [self._rows[index] for index in order]
            self._rows_moving = False

    def _fail_group(self, group: set[str], reason: str) -> None:
        """Fail the requests of a pass that ran out of memory, free what they hold, and halve the batch for a while."""
        all_ids = {row.request.id for row in self._rows}
        try:
            if not self._rows_moving:
                self._forget(group, failed=True)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if self._rows_moving:
            group = all_ids
            self._arrange([])  # moves nothing
        log.error("engine: out of memory; %d of %d requests fail (%s)", len(group), len(all_ids), reason)
        message = f"out of memory ({reason}); try again, or with a shorter prompt"
        self._failures += [Failure(id, message) for id in sorted(group - {failure.id for failure in self._failures})]
        if not self._rows:
            self.passes.release()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._backoff, self._backoff_since = min(self._backoff + 1, MAX_BACKOFF), self.steps
