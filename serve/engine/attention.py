"""Attention on a CPU whose result for a row is the same, to the last bit, whatever rows are computed beside it.

torch's kernel sums in another order when a prompt is padded, or when a row is alone; so prompts are attended one by
one at their own length, and a row alone is attended twice. What a row's neighbours add is columns behind its own, and
those add exact zeros. Linear layers over packed weights keep the order as well (see model.py).

It registers itself with transformers as the attention "rows". It knows nothing of requests or of the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "rows"
_prompt_lengths: list[int] = []


@contextmanager
def prompts_of(lengths: list[int]) -> Iterator[None]:
    """The forward pass inside is over prompts of these lengths, padded on the right."""
    _prompt_lengths[:] = lengths
    try:
        yield
    finally:
        _prompt_lengths.clear()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(rows, heads, tokens, head size) and as many or fewer key heads; gives (rows, tokens, heads, head size)."""
    grouped = key.shape[1] != query.shape[1]
    if query.shape[2] == 1 and not _prompt_lengths:
        rows = len(query)
        if rows == 1:
            query, key, value = (tensor.expand(2, -1, -1, -1) for tensor in (query, key, value))
        output = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=grouped)
        return output[:rows].transpose(1, 2), None
    output = torch.zeros_like(query)
    for row, length in enumerate(_prompt_lengths or [query.shape[2]] * len(query)):
        q, k, v = (tensor[row : row + 1, :, :length] for tensor in (query, key, value))
        own = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        output[row, :, :length] = own[0]
    return output.transpose(1, 2), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
