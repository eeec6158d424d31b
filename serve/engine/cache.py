"""The key-value cache of the running requests.

A request has a row of it, and a token's column is its position. A step writes one token a row and reads the cache as it
lies: no gather, no block table. What a row's neighbours do changes only how many columns are masked behind its own, in
blocks that begin at its first token, so an answer does not depend on who else is served.
"""

from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

BLOCK = 64
"""Columns of the cache are looked at in whole blocks, so that sums over them have the same order in any company."""


class RowCache(Cache):
    """Keys and values of the running rows. A token's column is its position, so nothing moves while a row grows.

    Each layer holds (rows, heads, columns, head size) twice, allocated to what is needed and allocated anew to grow.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        probe = DynamicCache(config=model.config)
        if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in probe.layers):
            kinds = {type(layer).__name__ for layer in probe.layers}
            raise ValueError(f"found layers of kind {', '.join(sorted(kinds))}, expected attention layers only")
        self.rows = [_RowLayer(self) for _ in probe.layers]
        super().__init__(layers=list(self.rows))
        self.lengths: list[int] = []
        self.places = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        self._allocated = 0, 0
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.bytes_per_token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize

    @property
    def columns(self) -> int:
        """How many columns a step looks at: room for every row's next token, in whole blocks."""
        return (max(self.lengths, default=0) // BLOCK + 1) * BLOCK

    def prepare_step(self, device: torch.device) -> torch.Tensor:
        """Make room for a token more in each row. Gives the mask, (rows, columns): 1 for a row's tokens and the new."""
        self._make_room(len(self.lengths), self.columns, [layer.held for layer in self.rows])
        lengths = torch.tensor(self.lengths, device=device)
        self.places = torch.arange(len(self.lengths), device=device), lengths
        return (torch.arange(self.columns, device=device) <= lengths[:, None]).long()

    def end_step(self) -> None:
        """Each row has grown by a token."""
        self.lengths = [length + 1 for length in self.lengths]

    def join(self, prefilled: DynamicCache, lengths: list[int]) -> None:
        """Add rows whose prompts, padded on the right, have just been computed."""
        count = len(self.lengths)
        new = [[layer.keys, layer.values] for layer in cast(list[Any], prefilled.layers)]
        width = new[0][0].shape[2]
        self._make_room(count + len(lengths), width, new)
        for layer, pair in zip(self.rows, new, strict=True):
            for held, tensor in zip(layer.held, pair, strict=True):
                held[count : count + len(lengths), :, :width] = tensor
        self.lengths += lengths

    def keep(self, indices: list[int]) -> list[int]:
        """Drop all rows but `indices` (ascending); the last rows fill the holes. Gives the new order of the old."""
        stay, movers = set(indices), [index for index in indices if index >= len(indices)]
        order = [index if index in stay else movers.pop() for index in range(len(indices))]
        for hole, index in enumerate(order):
            if hole != index:
                length = self.lengths[index]
                for layer in self.rows:
                    for held in layer.held:
                        held[hole, :, :length] = held[index, :, :length]
        self.lengths = [self.lengths[index] for index in order]
        return order

    def _make_room(self, rows: int, columns: int, like: list[list[torch.Tensor]]) -> None:
        """Allocate anew if `rows` or `columns` have become too many; `like` gives shapes and types."""
        if rows <= self._allocated[0] and columns <= self._allocated[1]:
            return
        count, used = len(self.lengths), max(self.lengths, default=0)
        self._allocated = 1 << (rows - 1).bit_length(), max((columns // BLOCK + 1) * BLOCK, self.columns)
        for layer, shapes in zip(self.rows, like, strict=True):
            for kind, shape in enumerate(shapes):
                # zeros: what the mask hides still takes part in products, and NaN times zero is NaN
                fresh = shape.new_zeros(self._allocated[0], shape.shape[1], self._allocated[1], shape.shape[3])
                if count:
                    fresh[:count, :, :used] = layer.held[kind][:count, :, :used]
                layer.held[kind : kind + 1] = [fresh]


class _RowLayer(CacheLayerMixin):
    """One model layer's part, as transformers' attention asks for it in a decode step."""

    def __init__(self, cache: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.held: list[torch.Tensor] = []
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: `RowCache` allocates."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        indices, lengths = self.cache.places
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            held[indices, :, lengths] = new[:, :, 0]
        keys, values = (held[: len(indices), :, : self.cache.columns] for held in self.held)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.columns, 0

    def get_seq_length(self) -> int:
        return self.cache.columns - 1

    def get_max_length(self) -> int:
        return -1
