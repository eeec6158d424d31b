"""The key-value cache of the running requests.

A request has a row of it, and a token's column is its position. A step writes its tokens and reads the cache as it
lies: no gather, no block table. What a row's neighbours do changes only how many columns are masked behind its own, in
blocks that begin at its first token, so an answer does not depend on who else is served.

It knows rows and columns. It does not know requests.
"""

import inspect
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from serve.engine.attention import Layout

BLOCK = 64
"""Columns of the cache are looked at in whole blocks, so that sums over them have the same order in any company."""
PROMPT_BLOCK = 8
"""Prompts are padded to a multiple of it: for each new number of tokens oneDNN makes kernels and keeps them."""
OTHERWISE = "serve this model with transformers itself"
NO_KEYS = "found {}, which keeps no keys and values of attention; " + OTHERWISE


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """transformers' own cache for one text.

    Raises:
        ValueError: the model keeps another state than keys and values of attention, or none.
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
    """Keys and values of one token in each layer, which tells their shapes; a layer that uses another's has none.

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
    return sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in layer)


class RowCache(Cache):
    """Keys and values of the rows. A token's column is its position, so nothing moves while a row grows.

    Each layer holds (rows, heads, columns, head size) twice, allocated to what is needed and allocated anew to grow.
    """

    def __init__(self, shapes: list[list[torch.Tensor]]) -> None:
        """`shapes`: keys and values of one token, see `one_token`."""
        self.rows = [_RowLayer(self, layer) for layer in shapes]
        super().__init__(layers=list(self.rows))
        self.lengths: list[int] = []
        self.reserved: list[int] = []
        self.layout: Layout | None = None
        self.extra_length = 0
        """Columns more than there are that the model is told of; `verify` finds out whether it computes with them."""
        self.targets: list[int] = []
        self.indices = torch.empty(0, dtype=torch.long)

    def add_row(self, reserved: int) -> None:
        """An empty row behind the others. Once it is written to, there is room for `reserved` tokens."""
        self.lengths.append(0)
        self.reserved.append(reserved)

    def reserve(self, rows: list[int], counts: list[int], decode: bool, device: torch.device) -> Layout:
        """Make room for so many tokens more in each of `rows`, and say where they lie."""
        starts = [self.lengths[row] for row in rows]
        ends = [start + count for start, count in zip(starts, counts, strict=True)]
        columns = -(-max(ends) // BLOCK) * BLOCK
        self._allocate(columns)
        width = 1 if decode else -(-max(counts) // PROMPT_BLOCK) * PROMPT_BLOCK
        # what pads a prompt stands at the place of its last token: there is such a place, and it sees something
        ahead = torch.arange(width).minimum(torch.tensor(counts)[:, None] - 1)
        positions = (torch.tensor(starts)[:, None] + ahead).to(device)
        self.layout, self.targets = Layout(starts, counts, columns, positions, decode), rows
        self.indices = torch.tensor(rows, device=device)
        return self.layout

    def commit(self) -> None:
        """The tokens of the last `place` are there."""
        assert self.layout is not None  # noqa: S101 - `place` came before
        for row, count in zip(self.targets, self.layout.counts, strict=True):
            self.lengths[row] += count

    def arrange(self, order: list[int]) -> None:
        """Row i is what row order[i] was; the others are dropped."""
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
        """Write zeros over a row: what is not a number reaches even those who mask it."""
        for held in (held for layer in self.rows for held in layer.held):
            held[row : row + 1] = 0

    def release(self) -> None:
        """Give the memory back; there must be no rows."""
        for layer in self.rows:
            layer.held = [held[:0, :, :0].clone() for held in layer.held]

    def _allocate(self, columns: int) -> None:
        """Allocate anew, layer by layer, what has too few rows or columns."""
        rows, used = len(self.lengths), max(self.lengths)
        for layer in self.rows:
            for kind, held in enumerate(layer.held):
                if held.shape[0] >= rows and held.shape[2] >= columns:
                    continue
                room = -(-max(columns, used, *self.reserved) // BLOCK) * BLOCK
                # zeros: what the mask hides still takes part in products, and NaN times zero is NaN
                fresh = held.new_zeros(1 << (rows - 1).bit_length(), held.shape[1], room + BLOCK, held.shape[3])
                count, width = min(rows, held.shape[0]), min(used, held.shape[2])
                fresh[:count, :, :width] = held[:count, :, :width]
                layer.held[kind] = fresh
                del held


class _RowLayer(CacheLayerMixin):
    """One model layer's part, as transformers' attention asks for it."""

    def __init__(self, cache: RowCache, shapes: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.held = [shape.new_zeros(0, shape.shape[1], 0, shape.shape[3]) for shape in shapes]
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: `RowCache` allocates."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layout, rows = self.cache.layout, self.cache.targets
        assert layout is not None  # noqa: S101 - `place` came before
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
        assert self.cache.layout is not None  # noqa: S101 - `place` came before
        return self.cache.layout.columns + self.cache.extra_length, 0

    def get_seq_length(self) -> int:
        assert self.cache.layout is not None  # noqa: S101 - `place` came before
        return self.cache.layout.columns - self.cache.layout.positions.shape[1] + self.cache.extra_length

    def get_max_length(self) -> int:
        return -1
