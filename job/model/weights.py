"""Weights: checks that the loaded model has all weights of the files, and no others.

It reads the loading info of `from_pretrained`. It does not know what the model does with the weights.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from job.errors import ConfigError
from job.run.messages import join_names


def require_loaded(base: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Require that every weight came from the files and is finite.

    Args:
        base: Name of the base, for errors.
        model: The loaded base.
        info: The loading info of `from_pretrained(output_loading_info=True, ignore_mismatched_sizes=True)`.

    Raises:
        ConfigError: Weights are missing (they would start at random), differ in size, are left over, or not finite.
    """
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        name, actual, expected = mismatched[0]
        more = f" and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        raise ConfigError(
            f"model.base: {base}: {name} has the size {tuple(actual)}, config.json requires {tuple(expected)}"
            f"{more}; config.json and weights do not belong together"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        saved_as = ", ".join(getattr(model.config, "architectures", None) or [])
        origin = f"; it was saved as {saved_as}" if saved_as and saved_as != type(model).__name__ else ""
        wanted = "its output layer" if model.get_output_embeddings() is not None else "all of them"
        raise ConfigError(
            f"model.base: {base} lacks weights that {type(model).__name__} needs and that would start at random: "
            f"{join_names(missing)}{origin}; use a model that was saved with {wanted}"
        )
    layers, parts = _find_unused(model, info["unexpected_keys"])
    if layers:
        raise ConfigError(
            f"model.base: {base} holds weights of more layers than config.json names: {join_names(layers)}; "
            "config.json and weights do not belong together"
        )
    if parts:
        raise ConfigError(
            f"model.base: {base} holds weights that config.json leaves out of the model: {join_names(parts)}; enable "
            "them in config.json (attention_bias and the like), or use the config.json that belongs to the weights"
        )
    # minimum and maximum are NaN if one weight is
    broken = [
        name for name, weight in model.named_parameters() if not torch.isfinite(torch.stack(weight.aminmax())).all()
    ]
    if broken:
        names = join_names(broken)
        raise ConfigError(f"model.base: {base} holds weights that are NaN or infinite: {names}")


def _find_unused(model: PreTrainedModel, unexpected: Iterable[str]) -> tuple[list[str], list[str]]:
    """Find weights in the files that belong to the model but would be dropped silently.

    Other heads and buffers of older versions (a mask, `inv_freq`) are harmless and not among them. A file may name its
    weights without the base model's prefix, as GPT-2's on the Hub does.

    Returns:
        Weights of layers beyond the last one, and weights of the model's own layers, such as a bias.
    """
    known = {_pattern(name) for name, _ in model.named_parameters()}
    modules = dict(model.named_modules())
    prefix = f"{model.base_model_prefix}."
    layers, parts = [], []
    for key in sorted(unexpected):
        names = (key, prefix + key, key.removeprefix(prefix))
        if any(_pattern(name) in known for name in names):
            layers.append(key)
        elif any(_is_part(name, modules) for name in names):
            parts.append(key)
    return layers, parts


def _is_part(name: str, modules: dict[str, torch.nn.Module]) -> bool:
    """Return whether a missing weight belongs to one of the model's leaf modules, or is an extra one in a layer."""
    above = name.split(".")[:-1]
    inside = [modules[path] for end in range(1, len(above) + 1) if (path := ".".join(above[:end])) in modules]
    if not inside:
        return False
    nearest = inside[-1]
    if not list(nearest.children()) and list(nearest.parameters(recurse=False)):
        return True
    return name.endswith(".weight") and any(isinstance(module, torch.nn.ModuleList) for module in inside)


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)
