"""Which files hold a model's weights, as transformers looks for them: one file, or an index and the files it names.

A repository may hold the same weights many times (consolidated.safetensors, original/, onnx/, GGUF): none of that is
fetched. It knows names of files. It does not read weights, and it knows neither the Hub nor torch.
"""

import json
from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def named(folder: Path) -> list[str]:
    """The files that the index names; none if there is no index, which is to be there before them.

    Raises:
        ValueError: it is no index, or names what is not beside it.
    """
    path = folder / INDEX
    if not path.exists():
        return []
    try:
        places = json.loads(path.read_text())["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{INDEX} cannot be read; publish the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{INDEX} names {name!r}, expected a .safetensors file beside it; publish the model again")
    return names


def loaded(folder: Path) -> list[str]:
    """The files that transformers loads from `folder`, there or not; the single file goes before an index."""
    return [SINGLE] if (folder / SINGLE).exists() else named(folder) or [SINGLE]
