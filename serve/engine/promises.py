"""Compares the lengths that the repository promises with the engine's limits, for a warning.

It knows a model's config and the engine's limits. It refuses nothing, since a shorter context serves most questions.
"""

from transformers import PreTrainedModel

from serve.engine.cache import BLOCK
from serve.engine.limits import config_context
from serve.engine.request import Limits


def unmet_promises(model: PreTrainedModel, limits: Limits) -> list[str]:
    """Return a line for each promise that is not kept: the context, and the longest answer."""
    context, _ = config_context(model.config.get_text_config()) or (limits.context, "")
    lines = []
    if limits.context < context:
        by_memory = limits.cache_tokens - BLOCK <= limits.context
        lines.append(
            f"context: {limits.context} tokens for question and answer together, and config.json promises {context}; "
            + ("the cache has no room for more: see --cache-bytes" if by_memory else
               "beyond them the engine would not compute what the model does")
        )  # fmt: skip
    longest = model.generation_config.max_new_tokens
    if longest is not None and longest >= limits.context:
        lines.append(
            f"answers: generation_config.json promises up to {longest} tokens, and question and answer together have "
            f"{limits.context}; an answer ends there"
        )
    return lines
