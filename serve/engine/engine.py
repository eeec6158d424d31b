"""Continuous batching: the requests, and their steps, over a model that model.py has loaded.

Requests join and leave a running batch between steps (continuous batching). A step is either a prefill (the prompts
of some waiting requests, in one forward pass) or a decode (one token for every running request).

It does not know text, HTTP, clients or deadlines: ids come in, ids go out, and whoever asked may cancel. Everything
that could make a forward pass fail has to be refused before: `Engine.limits` says what fits.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from serve.engine import attention
from serve.engine.cache import BLOCK, RowCache
from serve.engine.request import Limits, Request, Token
from serve.engine.sampling import Penalties, choose, generator

DECODES_PER_PREFILL = 8
"""After a prefill, one decode for each so many running rows: when many run, those that came meanwhile start together,
and a prompt alone takes about as long as a few of them. 6 % more tokens at 32 clients, 5 % under overload."""
PROMPT_BLOCK = 8
"""Prompts are padded to a multiple of it."""


@dataclass
class _Row:
    """A running request."""

    request: Request
    generator: torch.Generator
    generated: list[int] = field(default_factory=list)


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread submits, cancels and steps."""

    def __init__(
        self, model: PreTrainedModel, *, max_rows: int = 32, cache_bytes: int = 2**30, prefill_tokens: int = 512
    ) -> None:
        self.model = model
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self.cache = RowCache(model)
        self.limits = _limits(model, cache_bytes, self.cache.bytes_per_token)
        self.steps = 0
        self._waiting: deque[Request] = deque()
        self._rows: list[_Row] = []
        self._decodes_due = 0
        self._eos = _eos(model.generation_config)
        self._penalties = Penalties.published(model.generation_config)

    @property
    def running(self) -> int:
        return len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._rows and not self._waiting

    def warm_up(self) -> None:
        """A few requests of unlike lengths: libraries choose their kernels now, and a model that fails does so now."""
        for index in range(min(4, self.max_rows)):
            self.submit(Request(f"warm-up {index}", [0] * (index + 4), 3))
        while not self.idle:
            self.step()
        self.steps = 0

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ValueError: it does not keep to `limits`; the engine goes on unharmed.
        """
        if not request.prompt or request.max_new_tokens < 1 or _final_length(request) > self.limits.context:
            raise ValueError(f"{len(request.prompt)} + {request.max_new_tokens} tokens, expected 1 to {self.limits}")
        if not 0 <= min(request.prompt) <= max(request.prompt) < self.limits.vocabulary:
            raise ValueError(f"a token id is outside the vocabulary of {self.limits.vocabulary}")
        self._waiting.append(request)

    @torch.inference_mode()
    def cancel(self, id: str) -> None:
        """Forget a request, wherever it is; its place is free for the next step."""
        self._waiting = deque(request for request in self._waiting if request.id != id)
        self._keep([index for index, row in enumerate(self._rows) if row.request.id != id])

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """One forward pass; the tokens it made. Nothing to do: an empty list, at once."""
        group = [] if self._decodes_due > 0 and self._rows else self._admit()
        if not group and not self._rows:
            return []
        self.steps += 1
        if not group:
            self._decodes_due -= 1
            return self._decode()
        tokens = self._prefill(group)
        self._decodes_due = max(1, len(self._rows) // DECODES_PER_PREFILL)
        return tokens

    def _admit(self) -> list[Request]:
        """The waiting requests that start now, oldest first: as many as rows, memory and one prefill allow."""
        group: list[Request] = []
        longest = max((_final_length(row.request) for row in self._rows), default=0)
        while self._waiting and len(self._rows) + len(group) < self.max_rows:
            request = self._waiting[0]
            longest = max(longest, _final_length(request))
            width = max(len(other.prompt) for other in [*group, request])
            if (len(self._rows) + len(group) + 1) * (longest + BLOCK) > self.limits.cache_tokens:
                break
            if group and (len(group) + 1) * width > self.prefill_tokens:
                break
            group.append(self._waiting.popleft())
        return group

    def _prefill(self, group: list[Request]) -> list[Token]:
        device = self.model.device
        lengths = [len(request.prompt) for request in group]
        # a width of many others: for each new number of tokens oneDNN makes kernels and keeps them
        width = min(-(-max(lengths) // PROMPT_BLOCK) * PROMPT_BLOCK, self.limits.context)
        ids = torch.zeros(len(group), width, dtype=torch.long)
        for row, request in enumerate(group):
            ids[row, : lengths[row]] = torch.tensor(request.prompt)
        # padded on the right, where causal attention does not look; logits only where some prompt ends
        ends, which = torch.unique(torch.tensor(lengths) - 1, return_inverse=True)
        prefilled = DynamicCache()
        with attention.prompts_of(lengths):
            logits = self.model(ids.to(device), past_key_values=prefilled, logits_to_keep=ends.to(device)).logits
        self.cache.join(prefilled, lengths)
        first = len(self._rows)
        self._rows += [_Row(request, generator(request.seed)) for request in group]
        return self._take(logits[torch.arange(len(group)), which], range(first, len(self._rows)))

    def _decode(self) -> list[Token]:
        device = self.model.device
        mask = self.cache.prepare_step(device)
        logits = self.model(
            torch.tensor([[row.generated[-1]] for row in self._rows], device=device),
            attention_mask=mask,
            position_ids=self.cache.places[1][:, None],
            past_key_values=self.cache,
            logits_to_keep=1,
        ).logits
        self.cache.end_step()
        return self._take(logits[:, -1], range(len(self._rows)))

    def _take(self, logits: torch.Tensor, indices: range) -> list[Token]:
        """Choose a token for each of the rows `indices` from its line of `logits`; rows that end leave the batch."""
        tokens = []
        for index, token in zip(indices, self._choose(logits, [self._rows[index] for index in indices]), strict=True):
            row = self._rows[index]
            row.generated.append(token)
            finish: Literal["stop", "length"] | None = None
            if token in self._eos:
                finish = "stop"
            elif len(row.generated) == row.request.max_new_tokens:
                finish = "length"
            tokens.append(Token(row.request.id, token, finish))
        ended = {token.id for token in tokens if token.finish}
        self._keep([index for index, row in enumerate(self._rows) if row.request.id not in ended])
        return tokens

    def _choose(self, logits: torch.Tensor, rows: list[_Row]) -> list[int]:
        return choose(logits, rows, self._penalties)

    def _keep(self, indices: list[int]) -> None:
        if len(indices) < len(self._rows):
            order = self.cache.keep(indices)
            self._rows = [self._rows[index] for index in order]


def _limits(model: PreTrainedModel, cache_bytes: int, bytes_per_token: int) -> Limits:
    config = model.config.get_text_config()
    # half of the bytes are for rows that the allocation rounds up to, and for the copy while it grows
    cache_tokens = cache_bytes // 2 // bytes_per_token
    # a window that slides would have to slide for each row by itself; an answer ends where it would begin to
    window = getattr(config, "sliding_window", None) or config.max_position_embeddings
    context = min(config.max_position_embeddings, window, cache_tokens - BLOCK)
    if context < BLOCK:
        raise ValueError(f"found {cache_bytes} bytes for its cache, expected at least {4 * BLOCK * bytes_per_token}")
    return Limits(context, config.vocab_size, cache_tokens)


def _final_length(request: Request) -> int:
    return len(request.prompt) + request.max_new_tokens


def _eos(config: GenerationConfig) -> set[int]:
    ids = config.eos_token_id
    return set(ids) if isinstance(ids, list) else {ids}
