"""The files of a published retriever: which of them there are, and what can be checked without loading them.

It reads retriever.json and modules.json. It does not read vectors, answers or weights, and it imports neither torch nor
sentence-transformers: the main process and the HTTP process use it.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from serve import weights

MARK = "retriever.json"
"""The file that tells a retriever from a generator."""
MODULES = "modules.json"
ANSWERS = "answers.parquet"
VECTORS = "index.safetensors"
NEIGHBOURS = "index.faiss"
"""Only beside very many rows."""
VERSION = 1
SIMILARITY = "cosine"
OWN_CODE = "sentence_transformers."
"""A module of another package would be code that the repository chooses."""
NEEDED = (MODULES, "config.json", "tokenizer.json")
SMALL_FILES = ("*.json", "*.txt", "*.model")
AGAIN = "publish the model again"


@dataclass(frozen=True)
class Threshold:
    """From when on an answer counts as known, and the answer to what is not known."""

    confidence: float
    """Least confidence of a known answer."""
    certain_score: float
    """Score from which an answer is known whatever its confidence: the question is one of the rows' own."""
    unknown_answer: str


def is_retriever(folder: Path) -> bool:
    """Whether the model in `folder` is a retriever."""
    return (folder / MARK).exists()


def threshold(folder: Path) -> Threshold:
    """Read retriever.json.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    content = _json(folder / MARK)
    if not isinstance(content, dict):
        raise ValueError(f"{MARK} holds no JSON object; {AGAIN}")
    version, similarity = content.get("version"), content.get("similarity")
    unknown = content.get("unknown_answer")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"{MARK} has version {version!r}, expected {VERSION}; serve it with the Kickoff that made it")
    if similarity != SIMILARITY:
        raise ValueError(f"{MARK}: similarity is {similarity!r}, expected {SIMILARITY!r}; {AGAIN}")
    if not isinstance(unknown, str) or not unknown.strip():
        raise ValueError(f"{MARK}: unknown_answer is {unknown!r}, expected a text; {AGAIN}")
    return Threshold(_cosine(content, "threshold"), _cosine(content, "certain_score"), unknown)


def _cosine(content: dict[str, Any], name: str) -> float:
    value = content.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or abs(value) > 1:
        raise ValueError(f"{MARK}: {name} is {value!r}, expected a number from -1 to 1; {AGAIN}")
    return float(value)


def check(folder: Path, complete: bool = True) -> None:
    """Check that the model in `folder` can be served, as far as its small files tell.

    Args:
        folder: the model.
        complete: the large files must be there, too.

    Raises:
        ValueError: something is missing, damaged, or needs code from outside sentence-transformers.
    """
    threshold(folder)
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if complete:
        missing += [name for name in (ANSWERS, VECTORS) if not (folder / name).exists()]
        missing += _missing_weights(folder)
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; {AGAIN}")
    modules = module_paths(folder)
    if complete:
        for path in modules:
            _check_module(folder, path)


def module_paths(folder: Path) -> list[str]:
    """List the subfolders of the modules that modules.json names; the one in `folder` itself is left out.

    Raises:
        ValueError: modules.json is damaged, or names a module that is not part of sentence-transformers.
    """
    modules = _json(folder / MODULES)
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{MODULES} holds no list of modules; {AGAIN}")
    paths = []
    for module in modules:
        kind, path = module.get("type"), module.get("path")
        if not isinstance(kind, str) or not kind.startswith(OWN_CODE):
            raise ValueError(
                f"{MODULES} names the module {kind!r}, which is not part of sentence-transformers; its code is not run"
            )
        if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"{MODULES} names the folder {path!r}, expected one inside the repository; {AGAIN}")
        paths.append(path)
    return [path for path in paths if path]


def large_patterns(folder: Path) -> list[str]:
    """List patterns of the files to fetch from the Hub once the small ones of the main folder are there.

    Raises:
        ValueError: see `module_paths`.
    """
    inner = [f"{path}/{name}" for path in module_paths(folder) for name in (*SMALL_FILES, "*.safetensors")]
    return [ANSWERS, VECTORS, NEIGHBOURS, *inner]


def served_files(folder: Path) -> list[Path]:
    """List the files that are served, for a digest of the folder.

    Raises:
        ValueError: see `module_paths`.
    """
    inner = [
        path
        for module in module_paths(folder)
        for pattern in (*SMALL_FILES, "*.safetensors")
        for path in (folder / module).glob(pattern)
    ]
    return [folder / ANSWERS, folder / VECTORS, *folder.glob(NEIGHBOURS), *inner]


def _missing_weights(folder: Path) -> list[str]:
    lost = [name for name in weights.weight_files(folder) if not (folder / name).exists()]
    other = sorted(path.name for pattern in ("*.bin", "*.pt", "*.onnx") for path in folder.glob(pattern))
    found = f", found only {', '.join(other)}" if other else ""
    return [f"weights as .safetensors ({', '.join(lost)}){found}"] if lost else []


def _check_module(folder: Path, path: str) -> None:
    """Check a module's folder, which may be empty or absent; sentence-transformers would unpickle other weights."""
    inner = folder / path
    if any(inner.glob("*.bin")) and not any(inner.glob("*.safetensors")):
        raise ValueError(f"{path} has its weights as .bin, expected model.safetensors; save it again")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}); {AGAIN}") from None
