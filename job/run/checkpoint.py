"""Checkpoints: saves and loads the state of an unfinished training, atomically.

A checkpoint is written to a temporary folder, synced to disk and renamed. Its manifest holds the SHA-256 of every file,
so that a truncated or damaged checkpoint is skipped. The module knows files and checksums, not what the state means.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from job.run import durable
from job.run.out_of_memory import is_out_of_memory

MANIFEST = "complete.json"
NEARLY_FULL = 2**24
"""Free bytes below which a failed write is reported as a full disk."""
log = logging.getLogger(__name__)


def save(folder: Path, step: int, tensors: dict[str, Any], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep` complete ones, and any of a later step.

    Args:
        folder: Where the checkpoints of the run are.
        step: Optimizer steps done.
        tensors: State dicts by name.
        state: Everything else, as JSON.
        keep: Complete checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or broken; the older checkpoints are unchanged.
    """
    target = folder / f"step-{step:08d}"
    partial = target.with_suffix(".partial")
    for unfinished in folder.glob("*.partial"):
        shutil.rmtree(unfinished)
    partial.mkdir(parents=True)
    try:
        _write(partial, tensors, {**state, "step": step})
        durable.replace(partial, target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # free the space; the partial checkpoint is useless
        raise
    _prune(folder, target, keep)
    return target


def _write(partial: Path, tensors: dict[str, Any], state: dict[str, Any]) -> None:
    try:
        torch.save(tensors, partial / "tensors.pt")
    except RuntimeError as error:  # torch's writer in C++ does not report what is wrong with the disk
        if is_out_of_memory(error):
            raise
        code = errno.ENOSPC if shutil.disk_usage(partial).free < NEARLY_FULL else errno.EIO
        raise OSError(code, os.strerror(code), str(partial)) from None
    (partial / "state.json").write_text(json.dumps(state))
    sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps(sums))


def _prune(folder: Path, latest: Path, keep: int) -> None:
    """Remove old checkpoints.

    A damaged one does not count, or it would displace an older good one. One of a later step is stale: it was damaged,
    or its steps had another number of rows, and training restarted before it.
    """
    kept = 0
    for path in list(_newest_first(folder)):
        if path.name <= latest.name and kept < keep and (path == latest or _is_complete(path)):
            kept += 1
        else:
            shutil.rmtree(path)


def load_newest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Load the newest complete checkpoint.

    Args:
        folder: Where the checkpoints of the run are.

    Returns:
        Its tensors and its state, as given to `save`; None if there is no complete checkpoint.
    """
    for path in _newest_first(folder):
        if _is_complete(path):
            return torch.load(path / "tensors.pt", map_location="cpu"), json.loads((path / "state.json").read_text())
        log.warning(f"checkpoint {path.name} is incomplete or damaged and is skipped")
    return None


def describe_newest(folder: Path) -> str:
    """Say in an error which checkpoint a later run will resume from."""
    newest = next((path for path in _newest_first(folder) if _is_complete(path)), None)
    return f"the checkpoint {newest} is kept" if newest else "there is no checkpoint yet"


def _newest_first(folder: Path) -> Iterator[Path]:
    yield from sorted((path for path in folder.glob("step-" + "[0-9]" * 8) if path.is_dir()), reverse=True)


def _is_complete(path: Path) -> bool:
    try:
        sums = json.loads((path / MANIFEST).read_text())
        return bool(sums) and all(_sha256(path / name) == expected for name, expected in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """Load the model's weights from one checkpoint; None if it is incomplete or damaged."""
    if not _is_complete(path):
        return None
    weights: dict[str, torch.Tensor] = torch.load(path / "tensors.pt", map_location="cpu", mmap=True)["model"]
    return weights
