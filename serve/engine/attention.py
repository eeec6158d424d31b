"""Attention over rows at different positions of their texts, registered with transformers as "rows".

Each row attends to its own columns of the cache at its own positions: the masks that a model asks for (causal, sliding
window, chunks) are computed from each row's positions. An argument that is not implemented here raises an error, so
that a model that needs more is never computed wrongly; `verify` then takes a slower path.

On a CPU, a row's result is the same to the last bit whatever rows are computed beside it. torch's kernel sums in
another order when a prompt is padded, or when another thread computes the row. So prompts are computed one by one at
their own length, and single tokens by products that do not have this dependence. Longer neighbours only add columns
after a row's own, which contribute exact zeros.

It does not know requests. Outside of `use_layout` it is transformers' own "sdpa" attention.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

NAME = "rows"
OWN_ATTENTION = "its attention is custom code"
WITHOUT_EFFECT = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}
"""Arguments for other attention functions, which have no effect in this one."""


class Unsupported(ValueError):
    """The model needs something that this attention does not implement; the text says what."""


_sdpa: Callable[..., tuple[torch.Tensor, None]] = sdpa_attention_forward


@dataclass
class Layout:
    """What a forward pass computes.

    Attributes:
        starts: the position of each row's first token.
        counts: the number of each row's tokens.
        columns: of the cache that are read, the same for all rows.
        positions: (rows, tokens), of each token.
        decode: one token per row, of consecutive rows. Otherwise chunks of prompts, padded on the right.
    """

    starts: list[int]
    counts: list[int]
    columns: int
    positions: torch.Tensor
    decode: bool
    updates: int = 0
    """Number of layers that wrote into the cache."""
    calls: int = 0
    """Number of calls of this attention; fewer than `updates` means that the model has an attention of its own."""
    masks: dict[int, tuple[torch.Tensor, int | None]] = field(default_factory=dict)
    """The masks made for this pass and their windows, by the mask's address. Holding them keeps the address in use."""
    _causal: torch.Tensor | None = None

    def causal(self) -> torch.Tensor:
        """The causal mask, (rows, 1, tokens, columns): True where a token attends to a column."""
        if self._causal is None:
            columns = torch.arange(self.columns, device=self.positions.device)
            self._causal = columns <= self.positions[:, None, :, None]
        return self._causal


_current: list[Layout] = []


@contextmanager
def use_layout(layout: Layout) -> Iterator[None]:
    """Use `layout` for the forward pass in this context."""
    _current[:] = [layout]
    try:
        yield
    finally:
        _current.clear()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention as transformers asks for it.

    Args:
        module: the layer.
        query: (rows, heads, tokens, head size).
        key: (rows, key heads, columns, head size), where key heads divide heads.
        value: (rows, key heads, columns, value size).
        attention_mask: made by `_mask`; None is causal.
        scaling: of the scores; None is head size ** -0.5.
        kwargs: further arguments, refused if they would have an effect.

    Returns:
        The output, (rows, tokens, heads, value size), and no weights.
    """
    if not _current:
        return _sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    (layout,) = _current
    layout.calls += 1
    _refuse_unsupported(layout, module, attention_mask, kwargs)
    if query.shape[2] != layout.positions.shape[1] or key.shape[2] != layout.columns:
        raise Unsupported(f"its attention has {query.shape[2]} tokens over {key.shape[2]} columns")
    if not _row_by_row(query):
        full_prompt = attention_mask is None and not layout.decode and not any(layout.starts)
        mask = layout.causal() if attention_mask is None and not full_prompt else attention_mask
        return _sdpa(module, query, key, value, mask, scaling=scaling)
    grouped = key.shape[1] != query.shape[1]
    if layout.decode:
        mask = layout.causal() if attention_mask is None else attention_mask
        return _decode(query, key, value, mask, scaling), None
    output = query.new_zeros(*query.shape[:3], value.shape[3])
    for row, (start, count) in enumerate(zip(layout.starts, layout.counts, strict=True)):
        q = query[row : row + 1, :, :count]
        k, v = (tensor[row : row + 1, :, : start + count] for tensor in (key, value))
        if attention_mask is None and start == 0:
            own = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        else:
            mask = layout.causal() if attention_mask is None else attention_mask
            mask = mask[row : row + 1, :, :count, : start + count]
            own = scaled_dot_product_attention(q, k, v, mask, scale=scaling, enable_gqa=grouped)
        output[row, :, :count] = own[0]
    return output.transpose(1, 2), None


def _decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Compute one token per row by two products.

    With torch's kernel the last bits depend on the thread that computes a row, and that on the number of rows.
    """
    rows, heads, _, size = query.shape
    grouped = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, key.shape[1], -1, size)
    scores = torch.matmul(grouped, key.transpose(2, 3)).masked_fill_(~mask, -torch.inf)
    return torch.matmul(scores.softmax(-1), value).reshape(rows, 1, heads, -1)


def _row_by_row(query: torch.Tensor) -> bool:
    """Whether to compute each row alone: not on a GPU, where a kernel per row would cost more than it is worth."""
    return query.is_cpu


def _refuse_unsupported(
    layout: Layout, module: torch.nn.Module, attention_mask: torch.Tensor | None, arguments: dict[str, Any]
) -> None:
    """Check the arguments of `_attend`.

    Raises:
        Unsupported: an argument would change the result and is not implemented here.
    """
    window = None
    if attention_mask is not None:
        if attention_mask.data_ptr() not in layout.masks:
            raise Unsupported("its attention uses a mask of its own")
        window = layout.masks[attention_mask.data_ptr()][1]
    is_causal = arguments.get("is_causal")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise Unsupported("its attention is not causal")
    for name, value in arguments.items():
        if name == "sliding_window" and value not in (None, window):
            raise Unsupported(f"its attention has sliding_window={value}, and its mask has {window}")
        neutral = value is None or value is False or (name == "dropout" and value == 0)
        if not neutral and name not in {"sliding_window", "is_causal", *WITHOUT_EFFECT}:
            shown = value if isinstance(value, int | float | str) else type(value).__name__
            raise Unsupported(f"its attention has {name}={shown}")


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., torch.Tensor | bool] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """Make the mask that a model asks for, with each row at its own positions; None if it is causal."""
    if not _current:
        plain: torch.Tensor | None = sdpa_mask(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size, **kwargs
        )
        return plain
    (layout,) = _current
    if kwargs.get("use_vmap") or (attention_mask is not None and not bool(attention_mask.all())):
        raise Unsupported("its attention has a mask that is not a function of positions")
    if mask_function is causal_mask_function:
        return None
    device = layout.positions.device
    rows, head = torch.arange(batch_size, device=device)[:, None, None, None], torch.zeros(1, 1, 1, 1, device=device)
    columns = torch.arange(layout.columns, device=device)[None, None, None]
    mask = torch.as_tensor(mask_function(rows, head.long(), layout.positions[:, None, :, None], columns))
    mask = mask.expand(batch_size, 1, q_length, layout.columns).contiguous()
    if bool((mask & ~layout.causal()).any()):
        raise Unsupported("its attention sees later tokens")
    layout.masks[mask.data_ptr()] = mask, local_size
    return mask


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)
