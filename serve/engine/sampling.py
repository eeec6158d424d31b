"""Chooses the next token of every row from its logits, for all rows at once and with one device synchronization.

Each row has its own settings and random numbers. Every sum is over one row, in an order that depends on the vocabulary
only, so a row's token does not depend on the rows beside it, to the last bit.

The order of the steps is that of transformers: penalties, minimum length, temperature, top-k (Fan et al., 2018), top-p
(Holtzman et al., 2020), min-p (Nguyen et al., 2024).
It does not know models or the cache.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig

from serve.engine.request import Request

BLOCK = 256
"""Probabilities are summed within blocks of this size, and then over the blocks."""
ROUNDS = 8
"""Rounds of rejection sampling for top-p before the vocabulary is sorted. On a CPU a draw takes a tenth of the time of
sorting, and each is inside with probability top-p or more. A GPU sorts at once: checking a draw would synchronize."""
LARGEST_DRAW = 1 - 2**-40
"""Below 1, so that rounding cannot select a token after the last."""


class Row(Protocol):
    """The part of a running request that sampling needs."""

    request: Request
    generator: torch.Generator
    generated: list[int]


@dataclass(frozen=True)
class Penalties:
    """The published settings that also change greedy answers; 1 and 0 are off.

    `repetition` is the penalty of CTRL (Keskar et al., 2019), `ngram` is no_repeat_ngram_size.
    """

    repetition: float = 1.0
    ngram: int = 0

    @classmethod
    def published(cls, config: GenerationConfig) -> "Penalties":
        """Read them from the model's generation config."""
        repetition = config.repetition_penalty
        return cls(1.0 if repetition is None else float(repetition), config.no_repeat_ngram_size or 0)

    def apply(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Apply the penalties for the tokens of each row, its prompt included, to logits (rows, vocabulary)."""
        if self.repetition == 1 and not self.ngram:
            return logits
        vocabulary = logits.shape[-1]
        texts = [[*row.request.prompt, *row.generated] for row in rows]
        longest = max(len(ids) for ids in texts)
        # shorter rows are padded on the left with an id after the vocabulary, whose column is cut off
        padded = [[vocabulary] * (longest - len(ids)) + ids for ids in texts]
        history = tensor_on(logits.device, padded).clamp_(max=vocabulary)
        if self.repetition != 1:
            repeated = _mark(history, vocabulary)
            less = torch.where(logits < 0, logits * self.repetition, logits / self.repetition)
            logits = torch.where(repeated, less, logits)
        if self.ngram and longest >= self.ngram:
            logits = logits.masked_fill(
                _mark(_repeated_ngram_ends(history, self.ngram, vocabulary), vocabulary), -torch.inf
            )
        return logits


def eos_ids(config: GenerationConfig) -> set[int]:
    """The end-of-sequence ids; empty if the model has none, which `repository.py` refuses."""
    ids = config.eos_token_id
    return set(ids) if isinstance(ids, list) else {ids} - {None}


def generator(seed: int | None) -> torch.Generator:
    """Make a request's source of random numbers; None takes a seed from the system."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


@torch.inference_mode()
def choose(logits: torch.Tensor, rows: Sequence[Row], penalties: Penalties, ends: Collection[int] = ()) -> list[int]:
    """Choose a token for each row: the likeliest, or a sample if its temperature is above 0.

    Args:
        logits: (rows, vocabulary).
        rows: the running requests, in the order of the logits.
        penalties: of the model.
        ends: end-of-sequence ids, not chosen before a row has its `min_new_tokens`.

    Returns:
        A token id for each row.
    """
    logits = _mask_eos(penalties.apply(logits, rows), rows, ends)
    sampling = [index for index, row in enumerate(rows) if row.request.temperature > 0]
    chosen = logits.argmax(-1) if len(sampling) < len(rows) else logits.new_zeros(len(rows), dtype=torch.long)
    if sampling:
        drawn = _sample(select(logits, sampling), [rows[index] for index in sampling])
        chosen[tensor_on(logits.device, sampling)] = drawn
    ids: list[int] = chosen.tolist()
    return ids


def _mask_eos(logits: torch.Tensor, rows: Sequence[Row], ends: Collection[int]) -> torch.Tensor:
    """Mask the end-of-sequence ids in rows that have fewer tokens than their `min_new_tokens`."""
    short = [index for index, row in enumerate(rows) if len(row.generated) < row.request.min_new_tokens]
    known = [id for id in ends if id < logits.shape[-1]]
    if not short or not known:
        return logits
    lines, columns = tensor_on(logits.device, short)[:, None], tensor_on(logits.device, known)[None]
    return logits.index_put((lines, columns), logits.new_tensor(-torch.inf))


def _sample(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """Sample a token for each line; lines that are not finite give any token, since they must not end the engine."""
    chosen = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    few, lines, ids = _small_top_k(logits, [row.request.top_k for row in rows])
    if few:
        chosen[tensor_on(logits.device, few)] = ids.gather(
            1, _sample_index(lines, [rows[index] for index in few])[:, None]
        )[:, 0]
    if others := sorted({*range(len(rows))} - {*few}):
        asked = [rows[index] for index in others]
        lines = _top_k(select(logits, others).float(), [row.request.top_k for row in asked])
        lines = pad(lines, (0, -lines.shape[-1] % BLOCK), value=-torch.inf)
        chosen[tensor_on(logits.device, others)] = _sample_index(lines, asked)
    return chosen


def _small_top_k(logits: torch.Tensor, top_k: list[int]) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Reduce the rows whose top-k is at most `BLOCK` to their k logits.

    A row with ties at its k-th logit is not reduced. On a GPU no row is: the check for ties would synchronize, and
    lines of the whole vocabulary take no longer.

    Returns:
        The indices of the rows; their k logits in the order of the ids, padded with -inf, (rows, BLOCK); their ids.
    """
    vocabulary = logits.shape[-1]
    small = [index for index, k in enumerate(top_k) if 0 < k <= min(BLOCK, vocabulary - 1)]
    if not small or logits.device.type != "cpu":
        return [], logits, logits
    k = torch.tensor([[top_k[index]] for index in small])
    values, ids = select(logits, small).topk(int(k.max()) + 1)
    clear = (values.gather(1, k) < values.gather(1, k - 1))[:, 0].tolist()
    few = [index for index, is_clear in zip(small, clear, strict=True) if is_clear]
    if not few:
        return [], logits, logits
    ids = torch.where(torch.arange(ids.shape[-1]) < k, ids, vocabulary)[clear].sort(-1).values
    lines = (
        select(logits, few).float().gather(1, ids.clamp(max=vocabulary - 1)).masked_fill_(ids == vocabulary, -torch.inf)
    )
    missing = BLOCK - lines.shape[-1]
    return few, pad(lines, (0, missing), value=-torch.inf), pad(ids, (0, missing))


def _sample_index(scores: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """Sample a column of each line of `scores` after temperature, top-p and min-p. Lines are whole blocks long."""
    device, requests = scores.device, [row.request for row in rows]
    temperatures = tensor_on(device, [[max(request.temperature, 1e-4)] for request in requests])
    probabilities = weights = (scores / temperatures).softmax(-1)
    if any(request.min_p > 0 for request in requests):
        least = tensor_on(device, [[request.min_p] for request in requests]) * probabilities.amax(-1, True)
        weights = probabilities * (probabilities >= least)

    def draws(indices: list[int]) -> torch.Tensor:
        numbers = [torch.rand((), generator=rows[index].generator, dtype=torch.float64).item() for index in indices]
        return tensor_on(device, numbers, torch.float64).clamp_(max=LARGEST_DRAW)[:, None]

    bounded = [index for index, request in enumerate(requests) if request.top_p < 1]
    free = [index for index, request in enumerate(requests) if request.top_p >= 1]
    chosen = torch.zeros(len(rows), dtype=torch.long, device=device)
    if free:
        chosen[tensor_on(device, free)] = _inverse_cdf(select(weights, free), draws(free))
    if bounded:
        top_p = [requests[index].top_p for index in bounded]
        chosen[tensor_on(device, bounded)] = _top_p(
            select(probabilities, bounded), select(weights, bounded), top_p,
            lambda indices: draws([bounded[index] for index in indices]),
        )  # fmt: skip
    return chosen


def _top_k(scores: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """Mask all but the k largest of each line, and those that equal the k-th; 0 is off."""
    limited = [index for index, k in enumerate(top_k) if 0 < k < scores.shape[-1]]
    if not limited:
        return scores
    last = tensor_on(scores.device, [[top_k[index] - 1] for index in limited])
    some = select(scores, limited)
    # the k largest are the same for any larger k, so that other rows' k changes nothing
    smallest = some.topk(max(top_k[index] for index in limited)).values.gather(1, last)
    scores = scores.clone()
    scores[tensor_on(scores.device, limited)] = some.masked_fill(some < smallest, -torch.inf)
    return scores


def _top_p(
    probabilities: torch.Tensor,
    weights: torch.Tensor,
    top_p: list[float],
    draws: Callable[[list[int]], torch.Tensor],
) -> torch.Tensor:
    """Sample by `weights` among the fewest likeliest tokens whose probabilities sum to at least top-p."""
    limits = tensor_on(weights.device, top_p, torch.float64)
    chosen = torch.zeros(len(top_p), dtype=torch.long, device=weights.device)
    out = list(range(len(top_p)))
    for _ in range(ROUNDS if weights.device.type == "cpu" else 0):
        chosen[out] = _inverse_cdf(select(weights, out), draws(out))
        outside = _mass_before(select(probabilities, out), chosen[out]) >= limits[out]
        out = [index for index, is_out in zip(out, outside.tolist(), strict=True) if is_out]
        if not out:
            return chosen
    ordered, ids = select(probabilities, out).sort(dim=-1, descending=True, stable=True)
    before = ordered.double().cumsum(-1) - ordered
    kept = select(weights, out).gather(1, ids) * (before < select(limits, out)[:, None])
    kept[:, 0] = ordered[:, 0]  # the likeliest is always kept, however small top-p is
    chosen[tensor_on(weights.device, out)] = ids.gather(1, _inverse_cdf(kept, draws(out))[:, None])[:, 0]
    return chosen


def _mass_before(probabilities: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Sum the probabilities of all tokens that are likelier, or as likely with a smaller id, for each row."""
    own = probabilities.gather(1, tokens[:, None])
    ids = torch.arange(probabilities.shape[-1], dtype=torch.int32, device=probabilities.device)
    # comparisons as floats: three times as fast as torch.where
    before = torch.gt(probabilities, own, out=torch.empty_like(probabilities))
    equal = torch.eq(probabilities, own, out=torch.empty_like(probabilities))
    smaller = torch.lt(ids, tokens[:, None].int(), out=torch.empty_like(probabilities))
    before.add_(equal.mul_(smaller)).mul_(probabilities)
    return _running_sums(before)[:, -1]


def _inverse_cdf(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Find where each line's cumulative sum exceeds the draw times its total; never a token of weight 0."""
    sums = _running_sums(weights)
    target = draws * sums[:, -1:]
    block = (sums <= target).sum(-1, keepdim=True).clamp_(max=sums.shape[-1] - 1)
    end, start = sums.gather(1, block), pad(sums, (1, 0)).gather(1, block)
    columns = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    inside = weights.gather(1, columns).double().cumsum(-1)
    rest = ((target - start) / (end - start)).clamp_(0, LARGEST_DRAW) * inside[:, -1:]
    return block[:, 0] * BLOCK + (inside <= rest).sum(-1).clamp_(max=BLOCK - 1)


def _running_sums(weights: torch.Tensor) -> torch.Tensor:
    """The cumulative sum of each line at the end of each block, (rows, blocks)."""
    return weights.view(len(weights), -1, BLOCK).sum(-1).double().cumsum(-1)


def _mark(ids: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Mark the tokens that are among a row's `ids`, (rows, vocabulary)."""
    marks = torch.zeros(len(ids), vocabulary + 1, dtype=torch.bool, device=ids.device)
    return marks.scatter_(1, ids, True)[:, :vocabulary]


def _repeated_ngram_ends(history: torch.Tensor, size: int, nothing: int) -> torch.Tensor:
    """The tokens that would complete an n-gram of `size` that the row already has; `nothing` elsewhere."""
    windows = history.unfold(1, size, 1)
    beginning = history[:, history.shape[1] + 1 - size :]
    repeats = (windows[..., :-1] == beginning[:, None]).all(-1)
    return torch.where(repeats, windows[..., -1], nothing)


def select(tensor: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """Select the lines `indices`; no copy if they are all of them."""
    return tensor if len(indices) == len(tensor) else tensor[tensor_on(tensor.device, indices)]


def tensor_on(device: torch.device, values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Make a tensor on the device. A copy to a GPU from memory that is not pinned would synchronize."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
