"""Contract: the files of a published model, and the mark by which Kickoff recognizes what it published.

The mark is a small JSON file in the repository that lists the other files with their SHA-256. Files that no valid mark
lists are never replaced, because they may be somebody's work. The mark is uploaded to the Hub like every other file;
transformers and servers ignore it.

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
"""The files of a published generator, which a server relies on. Large weights are split into several files."""
RETRIEVER = (
    "model.safetensors",
    "config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "answers.parquet",
    "index.safetensors",
    "retriever.json",
    "README.md",
    "run.yaml",
    "metrics.json",
    "loss.png",
)
"""The files of a published retriever. Of more than a million rows there is index.faiss, too; without it the server
is slower, not wrong."""
MARK = ".kickoff-published.json"
_VERSION = 1
_IGNORED = {".DS_Store", "Thumbs.db", "desktop.ini", ".gitattributes"}
"""Written by file managers, or by the Hub in a clone: neither a reason to refuse nor published."""
_DOWNLOADED = ".cache/huggingface/"
"""Where the Hub's client records what it has downloaded into a folder."""
_CARD = "README.md"
"""The card is rewritten on each publishing, so that an edited one is no reason to refuse."""
_OPTIONAL = (
    "confidence.json",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
"""Files that a calibrated confidence, some tokenizers and large weights add to CONTRACT."""


def missing_files(model: Path) -> list[str]:
    """Return the files of the contract that a folder lacks."""
    wanted: tuple[str, ...] = RETRIEVER if (model / "modules.json").is_file() else CONTRACT
    if (model / "grounding.json").is_file():
        wanted += tuple(f"retriever/{name}" for name in RETRIEVER[:9])  # those that a server relies on
    lacking = [name for name in wanted if not (model / name).is_file() and name != "model.safetensors"]
    return lacking + ([] if list(model.glob("model*.safetensors")) else ["model.safetensors"])


def write_mark(model: Path) -> None:
    """Write the mark of a complete model folder; equal files get an equal mark."""
    sums = {name: sha256(model / name) for name in files(model) if name != MARK}
    durable.write(model / MARK, json.dumps({"version": _VERSION, "files": sums}, indent=2))


def read_mark(content: bytes | None) -> dict[str, str] | None:
    """Parse a mark.

    Returns:
        {name: SHA-256} of the files that it lists; None if the content is not a mark.
    """
    try:
        mark: Any = json.loads(content or b"")
        sums = {str(name): str(digest) for name, digest in mark["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return sums if sums else None


def foreign_files(names: Iterable[str], mark: Mapping[str, str] | None, digest: Mapping[str, str]) -> list[str]:
    """Find the files of a published repository or folder that Kickoff did not write, or that were changed since.

    Args:
        names: All its files.
        mark: The files that its mark lists; None if it has no mark.
        digest: {name: SHA-256} of its files, as far as known.

    Returns:
        Names of the foreign files, sorted.
    """
    others = sorted(name for name in set(names) - {MARK} if not _is_ignored(name))
    if mark is None:
        # versions of Kickoff before the mark wrote exactly these files
        is_complete = set(CONTRACT) - {"model.safetensors"} <= set(others)
        return [name for name in others if not is_complete or not _is_contract_file(name)]
    return [
        name for name in others if name not in mark or (name != _CARD and digest.get(name, mark[name]) != mark[name])
    ]


def foreign_files_in(folder: Path) -> list[str]:
    """Find the foreign files in a folder, as `foreign_files` does."""
    mark = read_mark((folder / MARK).read_bytes() if (folder / MARK).is_file() else None)
    names = files(folder)
    known = [name for name in names if mark and name in mark]
    return foreign_files(names, mark, {name: sha256(folder / name) for name in known})


def files(folder: Path) -> list[str]:
    """List all files, links and empty folders in a folder, relative to it."""
    entries = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if _is_entry(path)]
    return [name for name in entries if not _is_ignored(name)]


def _is_entry(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir() or not any(path.iterdir())


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file; "no file", which no mark lists, for a link or anything else."""
    if file.is_symlink() or not file.is_file():
        return "no file"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_ignored(name: str) -> bool:
    return name in _IGNORED or name.startswith(_DOWNLOADED)


def _is_contract_file(name: str) -> bool:
    return name in CONTRACT or any(fnmatch(name, pattern) and "/" not in name for pattern in _OPTIONAL)
