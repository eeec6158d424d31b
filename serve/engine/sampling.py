"""Choosing the next token of every row from its line of logits, for all rows at once and with one wait for the device.

Each row has settings and random numbers of its own. Every sum is over one row, in an order that depends on the
vocabulary alone, so a row's token does not depend on the rows beside it, to the last bit.

The order is transformers': penalties, no end of text in a row that is too short, temperature, top-k, top-p, min-p.
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
"""Probabilities are summed in blocks of so many, and then over the blocks."""
ROUNDS = 8
"""How often a token outside of top-p is drawn again before the vocabulary is sorted. On a CPU a draw takes a tenth of
the time of sorting, and the first is inside with the probability top-p or more. A GPU sorts at once: looking whether a
token is inside would be a wait."""
LARGEST_DRAW = 1 - 2**-40
"""Below 1, so that rounding cannot lead behind the last token."""


class Row(Protocol):
    """What choosing a token needs to know of a running request."""

    request: Request
    generator: torch.Generator
    generated: list[int]


@dataclass(frozen=True)
class Penalties:
    """The published settings that change greedy answers too; 1 and 0 are off."""

    repetition: float = 1.0
    ngram: int = 0

    @classmethod
    def published(cls, config: GenerationConfig) -> "Penalties":
        repetition = config.repetition_penalty
        return cls(1.0 if repetition is None else float(repetition), config.no_repeat_ngram_size or 0)

    def apply(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """The logits after the penalties for what each row has said, its prompt included."""
        if self.repetition == 1 and not self.ngram:
            return logits
        vocabulary = logits.shape[-1]
        said = [[*row.request.prompt, *row.generated] for row in rows]
        longest = max(len(ids) for ids in said)
        # shorter rows are filled up at the left with an id past the vocabulary; what falls on it is cut off
        padded = [[vocabulary] * (longest - len(ids)) + ids for ids in said]
        history = _tensor_on(logits.device, padded).clamp_(max=vocabulary)
        if self.repetition != 1:
            repeated = _mark(history, vocabulary)
            less = torch.where(logits < 0, logits * self.repetition, logits / self.repetition)
            logits = torch.where(repeated, less, logits)
        if self.ngram and longest >= self.ngram:
            logits = logits.masked_fill(
                _mark(_repeated_ngram_ends(history, self.ngram, vocabulary), vocabulary), -torch.inf
            )
        return logits


def generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


@torch.inference_mode()
def choose(logits: torch.Tensor, rows: Sequence[Row], penalties: Penalties, ends: Collection[int] = ()) -> list[int]:
    """A token for each row from its line of `logits` (rows, vocabulary): the likeliest, or drawn if it samples.

    None of `ends` is chosen before a row has as many tokens as it wants at least.
    """
    logits = _mask_eos(penalties.apply(logits, rows), rows, ends)
    sampling = [index for index, row in enumerate(rows) if row.request.temperature > 0]
    chosen = logits.argmax(-1) if len(sampling) < len(rows) else logits.new_zeros(len(rows), dtype=torch.long)
    if sampling:
        drawn = _sample(_select(logits, sampling), [rows[index] for index in sampling])
        chosen[_tensor_on(logits.device, sampling)] = drawn
    ids: list[int] = chosen.tolist()
    return ids


def _mask_eos(logits: torch.Tensor, rows: Sequence[Row], ends: Collection[int]) -> torch.Tensor:
    """The logits without the tokens that end a text, in the lines of rows that are too short to end."""
    short = [index for index, row in enumerate(rows) if len(row.generated) < row.request.min_new_tokens]
    known = [id for id in ends if id < logits.shape[-1]]
    if not short or not known:
        return logits
    lines, columns = _tensor_on(logits.device, short)[:, None], _tensor_on(logits.device, known)[None]
    return logits.index_put((lines, columns), logits.new_tensor(-torch.inf))


def _sample(logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """A token for each line; also for lines that are no numbers, which must not end the engine."""
    chosen = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    few, lines, ids = _small_top_k(logits, [row.request.top_k for row in rows])
    if few:
        chosen[_tensor_on(logits.device, few)] = ids.gather(
            1, _sample_index(lines, [rows[index] for index in few])[:, None]
        )[:, 0]
    if others := sorted({*range(len(rows))} - {*few}):
        asked = [rows[index] for index in others]
        lines = _top_k(_select(logits, others).float(), [row.request.top_k for row in asked])
        lines = pad(lines, (0, -lines.shape[-1] % BLOCK), value=-torch.inf)
        chosen[_tensor_on(logits.device, others)] = _sample_index(lines, asked)
    return chosen


def _small_top_k(logits: torch.Tensor, top_k: list[int]) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The rows whose top-k is at most a block, their k logits in the order of the ids, filled up with -inf; the ids.

    A row of which more are as large as the last one is not among them; to see that is a wait on a GPU, where lines of
    the whole vocabulary take no longer.
    """
    vocabulary = logits.shape[-1]
    small = [index for index, k in enumerate(top_k) if 0 < k <= min(BLOCK, vocabulary - 1)]
    if not small or logits.device.type != "cpu":
        return [], logits, logits
    k = torch.tensor([[top_k[index]] for index in small])
    values, ids = _select(logits, small).topk(int(k.max()) + 1)
    clear = (values.gather(1, k) < values.gather(1, k - 1))[:, 0].tolist()
    few = [index for index, is_clear in zip(small, clear, strict=True) if is_clear]
    if not few:
        return [], logits, logits
    ids = torch.where(torch.arange(ids.shape[-1]) < k, ids, vocabulary)[clear].sort(-1).values
    lines = (
        _select(logits, few)
        .float()
        .gather(1, ids.clamp(max=vocabulary - 1))
        .masked_fill_(ids == vocabulary, -torch.inf)
    )
    missing = BLOCK - lines.shape[-1]
    return few, pad(lines, (0, missing), value=-torch.inf), pad(ids, (0, missing))


def _sample_index(scores: torch.Tensor, rows: list[Row]) -> torch.Tensor:
    """For each line the place of what is drawn after temperature, top-p and min-p. Lines are whole blocks."""
    device, requests = scores.device, [row.request for row in rows]
    temperatures = _tensor_on(device, [[max(request.temperature, 1e-4)] for request in requests])
    probabilities = weights = (scores / temperatures).softmax(-1)
    if any(request.min_p > 0 for request in requests):
        least = _tensor_on(device, [[request.min_p] for request in requests]) * probabilities.amax(-1, True)
        weights = probabilities * (probabilities >= least)

    def draws(indices: list[int]) -> torch.Tensor:
        numbers = [torch.rand((), generator=rows[index].generator, dtype=torch.float64).item() for index in indices]
        return _tensor_on(device, numbers, torch.float64).clamp_(max=LARGEST_DRAW)[:, None]

    bounded = [index for index, request in enumerate(requests) if request.top_p < 1]
    free = [index for index, request in enumerate(requests) if request.top_p >= 1]
    chosen = torch.zeros(len(rows), dtype=torch.long, device=device)
    if free:
        chosen[_tensor_on(device, free)] = _inverse_cdf(_select(weights, free), draws(free))
    if bounded:
        top_p = [requests[index].top_p for index in bounded]
        chosen[_tensor_on(device, bounded)] = _top_p(
            _select(probabilities, bounded), _select(weights, bounded), top_p,
            lambda indices: draws([bounded[index] for index in indices]),
        )  # fmt: skip
    return chosen


def _top_k(scores: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """Only the k largest of a line stay, and those equal to the last of them; 0 is off."""
    limited = [index for index, k in enumerate(top_k) if 0 < k < scores.shape[-1]]
    if not limited:
        return scores
    last = _tensor_on(scores.device, [[top_k[index] - 1] for index in limited])
    some = _select(scores, limited)
    # the k largest values are the same whatever more is asked for: a neighbour's larger k changes nothing
    smallest = some.topk(max(top_k[index] for index in limited)).values.gather(1, last)
    scores = scores.clone()
    scores[_tensor_on(scores.device, limited)] = some.masked_fill(some < smallest, -torch.inf)
    return scores


def _top_p(
    probabilities: torch.Tensor,
    weights: torch.Tensor,
    top_p: list[float],
    draws: Callable[[list[int]], torch.Tensor],
) -> torch.Tensor:
    """Drawn by `weights` among the fewest tokens, the likeliest first, whose probabilities reach top-p."""
    limits = _tensor_on(weights.device, top_p, torch.float64)
    chosen = torch.zeros(len(top_p), dtype=torch.long, device=weights.device)
    out = list(range(len(top_p)))
    for _ in range(ROUNDS if weights.device.type == "cpu" else 0):
        chosen[out] = _inverse_cdf(_select(weights, out), draws(out))
        outside = _mass_before(_select(probabilities, out), chosen[out]) >= limits[out]
        out = [index for index, is_out in zip(out, outside.tolist(), strict=True) if is_out]
        if not out:
            return chosen
    ordered, ids = _select(probabilities, out).sort(dim=-1, descending=True, stable=True)
    before = ordered.double().cumsum(-1) - ordered
    kept = _select(weights, out).gather(1, ids) * (before < _select(limits, out)[:, None])
    kept[:, 0] = ordered[:, 0]  # the likeliest stays, however small top-p is
    chosen[_tensor_on(weights.device, out)] = ids.gather(1, _inverse_cdf(kept, draws(out))[:, None])[:, 0]
    return chosen


def _mass_before(probabilities: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The sum of the probabilities of all tokens that are likelier, or as likely and of a smaller id."""
    own = probabilities.gather(1, tokens[:, None])
    ids = torch.arange(probabilities.shape[-1], dtype=torch.int32, device=probabilities.device)
    # truth values as numbers of the same type: three times as fast as with torch.where
    before = torch.gt(probabilities, own, out=torch.empty_like(probabilities))
    equal = torch.eq(probabilities, own, out=torch.empty_like(probabilities))
    smaller = torch.lt(ids, tokens[:, None].int(), out=torch.empty_like(probabilities))
    before.add_(equal.mul_(smaller)).mul_(probabilities)
    return _running_sums(before)[:, -1]


def _inverse_cdf(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The token at which the running sum of a line passes the draw's share of the whole; never one of weight 0."""
    sums = _running_sums(weights)
    target = draws * sums[:, -1:]
    block = (sums <= target).sum(-1, keepdim=True).clamp_(max=sums.shape[-1] - 1)
    end, start = sums.gather(1, block), pad(sums, (1, 0)).gather(1, block)
    places = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    inside = weights.gather(1, places).double().cumsum(-1)
    rest = ((target - start) / (end - start)).clamp_(0, LARGEST_DRAW) * inside[:, -1:]
    return block[:, 0] * BLOCK + (inside <= rest).sum(-1).clamp_(max=BLOCK - 1)


def _running_sums(weights: torch.Tensor) -> torch.Tensor:
    """(rows, blocks): the sum of each line up to the end of each block."""
    return weights.view(len(weights), -1, BLOCK).sum(-1).double().cumsum(-1)


def _mark(ids: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(rows, vocabulary): which tokens are among a row's `ids`."""
    marks = torch.zeros(len(ids), vocabulary + 1, dtype=torch.bool, device=ids.device)
    return marks.scatter_(1, ids, True)[:, :vocabulary]


def _repeated_ngram_ends(history: torch.Tensor, size: int, nothing: int) -> torch.Tensor:
    """Tokens that would end, for a second time, a run of `size` tokens of the row; `nothing` where there is none."""
    windows = history.unfold(1, size, 1)
    begun = history[:, history.shape[1] + 1 - size :]
    repeats = (windows[..., :-1] == begun[:, None]).all(-1)
    return torch.where(repeats, windows[..., -1], nothing)


def _select(tensor: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """The lines `indices`; without a copy if they are all."""
    return tensor if len(indices) == len(tensor) else tensor[_tensor_on(tensor.device, indices)]


def _tensor_on(device: torch.device, values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor of `values` on the device. From memory that is not pinned, a copy to a GPU would be a wait."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
