"""Contract: the files of a published model, and the mark by which Kickoff knows its own again.

The mark is a small JSON file in the repository that lists the files beside it with their SHA-256. Without a right
mark nothing that is already there is replaced, because it may be somebody's work. The mark goes up to the Hub like
every other file; transformers and servers do not look at it.

It knows names and hashes of files. It does not know where they are published.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from job.run import durable

CONTRACT = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "run.yaml",
    "metrics.json",
    "loss.png",
)
"""What the repository holds; a server relies on it. Weights above the shard size come as several files."""
MARK = ".kickoff-published.json"
_VERSION = 1
_NOBODYS = {".DS_Store", "Thumbs.db", "desktop.ini", ".gitattributes"}
"""Left by a file manager that looked into the folder, or by the Hub, in a clone: no reason to refuse, nor published."""
_DOWNLOADED = ".cache/huggingface/"
"""Where the Hub's client notes what it has downloaded into a folder."""
_CARD = "README.md"
"""People edit the card, and every publishing writes it anew: an edited card is no reason to refuse."""
_MORE = (
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
"""What the tokenizer and large weights add to CONTRACT."""


def missing(model: Path) -> list[str]:
    """Files of the contract that a folder lacks."""
    lacking = [name for name in CONTRACT if not (model / name).is_file() and name != "model.safetensors"]
    return lacking + ([] if list(model.glob("model*.safetensors")) else ["model.safetensors"])


def put_mark(model: Path) -> None:
    """Write the mark of a complete model folder; equal files give an equal mark."""
    sums = {name: sha256(model / name) for name in files(model) if name != MARK}
    durable.write(model / MARK, json.dumps({"version": _VERSION, "files": sums}, indent=2))


def read_mark(content: bytes | None) -> dict[str, str] | None:
    """The files that a mark lists, with their SHA-256; None if it is no mark."""
    try:
        found: Any = json.loads(content or b"")
        sums = {str(name): str(digest) for name, digest in found["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return sums if sums else None


def not_ours(names: Iterable[str], mark: Mapping[str, str] | None, digest: Mapping[str, str]) -> list[str]:
    """The files of a published place that Kickoff did not write, or that were changed since.

    Args:
        names: every file that lies there.
        mark: what the mark there lists; None if there is no mark.
        digest: SHA-256 of the files there, of as many as are known.
    """
    others = sorted(name for name in set(names) - {MARK} if not _is_nobodys(name))
    if mark is None:
        # versions before the mark left exactly these files
        whole = set(CONTRACT) - {"model.safetensors"} <= set(others)
        return [name for name in others if not whole or not _is_usual(name)]
    return [
        name for name in others if name not in mark or (name != _CARD and digest.get(name, mark[name]) != mark[name])
    ]


def foreign(folder: Path) -> list[str]:
    """The same for a folder; empty for a folder that holds nothing."""
    mark = read_mark((folder / MARK).read_bytes() if (folder / MARK).is_file() else None)
    names = files(folder)
    known = [name for name in names if mark and name in mark]
    return not_ours(names, mark, {name: sha256(folder / name) for name in known})


def files(folder: Path) -> list[str]:
    """Every file and every link in a folder, wherever a link leads, and every folder in it that holds nothing."""
    found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if _is_entry(path)]
    return [name for name in found if not _is_nobodys(name)]


def _is_entry(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir() or not any(path.iterdir())


def sha256(file: Path) -> str:
    """Of a file's bytes; of a link, or of anything else that is no file, nothing that a mark could list."""
    if file.is_symlink() or not file.is_file():
        return "no file"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_nobodys(name: str) -> bool:
    return name in _NOBODYS or name.startswith(_DOWNLOADED)


def _is_usual(name: str) -> bool:
    return name in CONTRACT or any(fnmatch(name, pattern) and "/" not in name for pattern in _MORE)
