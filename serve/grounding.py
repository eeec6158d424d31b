"""The files of a grounded generator: a generator whose prompt carries the rows that a retriever finds.

Beside the generator's files lie `grounding.json` and, in a subfolder, a whole published retriever. It reads small files
only, and imports no torch: the main process and the HTTP process use it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve import weights
from serve.retriever import files as retriever
from serve.retriever.files import AGAIN, Threshold

MARK = "grounding.json"
FOLDER = "retriever"
VERSION = 1
MOST_ROWS = 20
PATTERNS = [f"{FOLDER}/*.{ending}" for ending in ("json", "txt", "model", "safetensors", "parquet")]
"""Of the retriever's files on the Hub; * means subfolders too."""


@dataclass(frozen=True)
class Grounding:
    """How a generator is grounded."""

    rows: int
    """Rows in a prompt."""
    threshold: Threshold
    """From when on the retriever knows; below, nothing is generated."""


def is_grounded(folder: Path) -> bool:
    """Whether the model in `folder` is a grounded generator."""
    return (folder / MARK).exists()


def read(folder: Path) -> Grounding:
    """Read grounding.json and the retriever's threshold.

    Raises:
        ValueError: a file is damaged, or of another version.
    """
    return Grounding(_rows(folder), retriever.threshold(folder / FOLDER))


def check(folder: Path, complete: bool = True) -> None:
    """Check that the retriever can be served, as far as small files tell.

    Args:
        folder: the grounded generator.
        complete: the retriever's files must be there, too.

    Raises:
        ValueError: something is missing, damaged, or of another version.
    """
    _rows(folder)
    if not complete:
        return
    if not retriever.is_retriever(folder / FOLDER):
        raise ValueError(f"it has a {MARK} and no {FOLDER}/{retriever.MARK}; {AGAIN}")
    try:
        retriever.check(folder / FOLDER)
    except ValueError as error:
        raise ValueError(f"its folder {FOLDER}: {error}") from None


def served_files(folder: Path) -> list[Path]:
    """List the retriever's files that are served, for a digest of the folder.

    Raises:
        ValueError: one of them is damaged.
    """
    inner = folder / FOLDER
    small = [path for pattern in retriever.SMALL_FILES for path in inner.glob(pattern)]
    return [*small, *(inner / name for name in weights.weight_files(inner)), *retriever.served_files(inner)]


def _rows(folder: Path) -> int:
    try:
        content: Any = json.loads((folder / MARK).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{MARK} cannot be read ({error}); {AGAIN}") from None
    version, rows = (content.get(name) for name in ("version", "rows")) if isinstance(content, dict) else (None, None)
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"{MARK} has version {version!r}, expected {VERSION}; serve it with the Kickoff that made it")
    if not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"{MARK}: rows is {rows!r}, expected a number from 1 to {MOST_ROWS}; {AGAIN}")
    return rows
