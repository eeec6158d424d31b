"""The key-value cache of the running rows.

Each request has a row, and a token's column is its position. A step writes its tokens and reads the cache in place: no
gather, no block table. Neighbouring rows change only how many columns after a row's own are masked, in whole blocks, so
an answer does not depend on which other requests run.

It knows rows and columns. It does not know requests.
"""

import inspect
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from serve.engine.attention import Layout

BLOCK = 64
"""Columns are read in whole blocks, so that sums over them have the same order whatever rows run."""
PROMPT_BLOCK = 8
"""Prompts are padded to a multiple of this: oneDNN compiles and caches kernels for each new number of tokens."""
OTHERWISE = "serve this model with transformers itself"
NO_KEYS = "found {}, which has no attention keys and values; " + OTHERWISE


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """Make transformers' own cache for one text.

    Raises:
        ValueError: the model has no cache, or one with a state other than keys and values.
    """
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ValueError(NO_KEYS.format(type(model).__name__))
    cache = DynamicCache(config=model.config)
    if others := {type(layer).__name__ for layer in cache.layers} - {
        DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__
    }:  # fmt: skip
        raise ValueError(
            f"found layers of kind {', '.join(sorted(others))}, expected attention layers only; {OTHERWISE}"
        )
    return cache


@torch.inference_mode()
def one_token(model: PreTrainedModel) -> list[list[torch.Tensor]]:
    """Compute one token and return each layer's keys and values, for their shapes.

    A layer that shares another layer's keys and values has none.

    Raises:
        ValueError: see `empty_cache`.
    """
    cache = empty_cache(model)
    model(torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache, use_cache=True)
    layers = [[layer.keys, layer.values] for layer in cast(list[Any], cache.layers)]
    if all(keys is None for keys, _ in layers):
        raise ValueError(NO_KEYS.format(type(model).__name__))
    return [[] if keys is None else [keys, values] for keys, values in layers]


def bytes_per_token(layers: list[list[torch.Tensor]]) -> int:
    """Bytes of the cache that a token needs, from the result of `one_token`."""
    return sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in layer)


class RowCache(Cache):
    """Keys and values of the rows. A token's column is its position, so nothing moves while a row grows.

    Each layer has two tensors (rows, heads, columns, head size), sized to what is needed and reallocated to grow.
    """

    def __init__(self, shapes: list[list[torch.Tensor]]) -> None:
        """Make an empty cache; `shapes` is the result of `one_token`."""
        self.rows = [_RowLayer(self, layer) for layer in shapes]
        super().__init__(layers=list(self.rows))
        self.lengths: list[int] = []
        self.reserved: list[int] = []
        self.layout: Layout | None = None
        self.extra_length = 0
        """Added to the length that the model sees; `verify` sets it to find a model that computes with the length."""
        self.targets: list[int] = []
        self.indices = torch.empty(0, dtype=torch.long)

    def add_row(self, reserved: int) -> None:
        """Add an empty last row; its first write allocates room for `reserved` tokens."""
        self.lengths.append(0)
        self.reserved.append(reserved)

    def reserve(self, rows: list[int], counts: list[int], decode: bool, device: torch.device) -> Layout:
        """Allocate room for the next tokens.

        Args:
            rows: indices of the rows that are written to.
            counts: the number of new tokens of each.
            decode: one token per row.
            device: of the layout's positions.

        Returns:
            Where the tokens are written.
        """
        starts = [self.lengths[row] for row in rows]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        columns = -(-max(ends) // BLOCK) * BLOCK
        self._allocate(columns)
        width = 1 if decode else -(-max(counts) // PROMPT_BLOCK) * PROMPT_BLOCK
        # padding has the position of the prompt's last token, which exists and attends to something
        ahead = torch.arange(width).minimum(torch.tensor(counts)[:, None] - 1)
        positions = (torch.tensor(starts)[:, None] + ahead).to(device)
        self.layout, self.targets = Layout(starts, counts, columns, positions, decode), rows
        self.indices = torch.tensor(rows, device=device)
        return self.layout

    def commit(self) -> None:
        """Count the tokens of the last `reserve`, which have been written."""
        assert self.layout is not None  # noqa: S101 - `reserve` was called
        for row, count in zip(self.targets, self.layout.counts, strict=True):
            self.lengths[row] += count

    def arrange(self, order: list[int]) -> None:
        """Make row order[i] row i; drop the others."""
        moved = [(new, old) for new, old in enumerate(order) if new != old]
        for held in (held for layer in self.rows for held in layer.held):
            if moved and held.shape[0]:
                kept = [held[old, :, : self.lengths[old]].clone() for _, old in moved]
                for (new, old), content in zip(moved, kept, strict=True):
                    held[new, :, : self.lengths[old]] = content
        self.lengths = [self.lengths[old] for old in order]
        self.reserved = [self.reserved[old] for old in order]
        if not order:
            self.layout = None

    def wipe(self, row: int) -> None:
        """Write zeros over a row: NaN would reach other rows even through a mask."""
        for held in (held for layer in self.rows for held in layer.held):
            held[row : row + 1] = 0

    def release(self) -> None:
        """Free the memory; there must be no rows."""
        for layer in self.rows:
            layer.held = [held[:0, :, :0].clone() for held in layer.held]

    def _allocate(self, columns: int) -> None:
        """Reallocate, layer by layer, the tensors with too few rows or columns."""
        rows, used = len(self.lengths), max(self.lengths)
        for layer in self.rows:
            for kind, held in enumerate(layer.held):
                if held.shape[0] >= rows and held.shape[2] >= columns:
                    continue
                room = -(-max(columns, used, *self.reserved) // BLOCK) * BLOCK
                # zeros, since masked columns still take part in products, and NaN times zero is NaN
                fresh = held.new_zeros(1 << (rows - 1).bit_length(), held.shape[1], room + BLOCK, held.shape[3])
                count, width = min(rows, held.shape[0]), min(used, held.shape[2])
                fresh[:count, :, :width] = held[:count, :, :width]
                layer.held[kind] = fresh
                del held


class _RowLayer(CacheLayerMixin):
    """The cache of one layer, with the interface of transformers' caches."""

    def __init__(self, cache: RowCache, shapes: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.held = [shape.new_zeros(0, shape.shape[1], 0, shape.shape[3]) for shape in shapes]
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: `RowCache` allocates."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values; return all of the pass' rows, (rows, heads, columns, head size)."""
        layout, rows = self.cache.layout, self.cache.targets
        assert layout is not None  # noqa: S101 - `reserve` was called
        layout.updates += 1
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            if layout.decode:
                held[self.cache.indices, :, layout.positions[:, 0]] = new[:, :, 0]
            else:
                for index, (row, start, count) in enumerate(zip(rows, layout.starts, layout.counts, strict=True)):
                    held[row, :, start : start + count] = new[index, :, :count]
        first = rows[0]
        if rows == list(range(first, first + len(rows))):
            keys, values = (held[first : first + len(rows), :, : layout.columns] for held in self.held)
        else:
            keys, values = (held[self.cache.indices, :, : layout.columns] for held in self.held)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of columns that a mask has, and the first of them."""
        assert self.cache.layout is not None  # noqa: S101 - `reserve` was called
        return self.cache.layout.columns + self.cache.extra_length, 0

    def get_seq_length(self) -> int:
        """The length before this pass, the same for all rows; their own lengths are in the layout."""
        assert self.cache.layout is not None  # noqa: S101 - `reserve` was called
        return self.cache.layout.columns - self.cache.layout.positions.shape[1] + self.cache.extra_length

    def get_max_length(self) -> int:
        """No limit."""
        return -1
