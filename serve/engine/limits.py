"""Computes the limits of a request: from the model's config, from what can be verified, and from the cache's memory.

It knows the keys that transformers' models use in their configs. It does not know requests.
"""

from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from serve.context import NAMES
from serve.engine.cache import BLOCK
from serve.engine.request import Limits

DEFAULT_CONTEXT = 2048
"""The context of a model whose config names none, such as BLOOM."""
ORIGINAL = "original_max_position_embeddings"
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
VERIFY_BUDGET = {"cpu": 3 * 10**11, "cuda": 10**14}
"""Weights times tokens that a prompt of `verify` may cost: seconds on two cores, or on a GPU."""


def limits(model: PreTrainedModel, cache_bytes: int, bytes_per_token: int) -> Limits:
    """Compute the limits of a request.

    Args:
        model: the loaded model.
        cache_bytes: memory for keys and values.
        bytes_per_token: of the cache.

    Raises:
        ValueError: the memory is too small for any request.
    """
    # the other half of the bytes is for rounding up the rows, and for the copy while the cache grows
    cache_tokens = cache_bytes // 2 // bytes_per_token
    context, reason = min(_contexts(model))
    if cache_tokens - BLOCK < min(context, BLOCK):
        raise ValueError(f"found {cache_bytes} bytes for its cache, expected at least {4 * BLOCK * bytes_per_token}")
    if cache_tokens - BLOCK < context:
        context, reason = cache_tokens - BLOCK, f"what fits into {cache_bytes} bytes of cache"
    return Limits(context, vocabulary(model), cache_tokens, reason)


def config_context(config: Any) -> tuple[int, str] | None:
    """Return the context that a model's config names, and where; None if it names none."""
    named = [(getattr(config, name, None), f"its config's {name}") for name in NAMES]
    return next(((bound, name) for bound, name in named if isinstance(bound, int) and bound > 0), None)


def vocabulary(model: PreTrainedModel) -> int:
    """Return the number of token ids that the model has an embedding for."""
    return int(cast(Any, model.get_input_embeddings()).num_embeddings)


def windows(model: PreTrainedModel) -> list[int]:
    """List the windows, in tokens, of layers that do not attend to the whole text."""
    config = model.config.get_text_config()
    values = {getattr(config, name, None) for name in WINDOWS}
    return sorted(window for window in values if isinstance(window, int) and window > 0)


def can_verify(model: PreTrainedModel, window: int) -> bool:
    """Whether `verify` can afford a prompt that is longer than `window` tokens."""
    config = model.config.get_text_config()
    weights: int = 12 * config.num_hidden_layers * config.hidden_size**2
    return (window + BLOCK) * weights <= VERIFY_BUDGET.get(model.device.type, VERIFY_BUDGET["cpu"])


def _contexts(model: PreTrainedModel) -> list[tuple[int, str]]:
    """All bounds on the context, each with its source."""
    config = model.config.get_text_config()
    bounds = [config_context(config) or (DEFAULT_CONTEXT, "its config names none")]
    bounds += [(bound, "the positions that its rotary embedding has before it changes") for bound in _ropes(config)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "pos" in name and module is not model.get_input_embeddings():
            # fairseq's models reserve the first positions for padding
            unused = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            bounds.append((module.num_embeddings - unused, "its table of positions"))
    for window in windows(model):
        if not can_verify(model, window):
            bounds.append((window, "its sliding window, whose edge is too far away to verify at the start"))
    return bounds


def _ropes(config: Any) -> list[int]:
    """Lengths above which a rotary embedding ("longrope", "dynamic") changes for all tokens, cached ones included."""
    lengths: list[int] = []
    parameters = getattr(config, "rope_parameters", None) or {}
    for rope in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
        kind = str(rope.get("rope_type", rope.get("type", "")))
        if kind == "longrope" or "dynamic" in kind:
            named = [holder.get(ORIGINAL) for holder in (rope, config.to_dict())]
            lengths += [bound for bound in named if isinstance(bound, int)]
    return lengths
