"""Finds the files that hold a model's weights as transformers does: one file, or an index and the files it lists.

A repository may hold the same weights in other formats too (consolidated.safetensors, original/, onnx/, GGUF); those
are not fetched. It knows file names. It does not read weights, and it knows neither the Hub nor torch.
"""

import json
from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def indexed_files(folder: Path) -> list[str]:
    """List the files that the index in `folder` names; empty if there is no index.

    Raises:
        ValueError: the index cannot be read, or names a file outside the folder.
    """
    path = folder / INDEX
    if not path.exists():
        return []
    try:
        weight_map = json.loads(path.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{INDEX} cannot be read; publish the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{INDEX} names {name!r}, expected a .safetensors file beside it; publish the model again")
    return names


def weight_files(folder: Path) -> list[str]:
    """List the files that transformers would load from `folder`, whether they exist or not.

    The single file takes precedence over an index.
    """
    return [SINGLE] if (folder / SINGLE).exists() else indexed_files(folder) or [SINGLE]
