"""Checkpoints: saves and loads the state of an unfinished training, atomically.

A checkpoint is written to a temporary folder, synced to disk and renamed. Its manifest holds the SHA-256 of every file,
so that a truncated or damaged checkpoint is skipped. The best weights so far lie beside the checkpoints, in a file of
their own: `best-STEP-HASH.pt`. The manifest of each checkpoint that was written while they were the best lists that
file too, so that the file stays as long as the checkpoint, and a checkpoint without it is not complete.

The module knows files and checksums, not what the state means.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from job.run import durable
from job.run.out_of_memory import is_out_of_memory

MANIFEST = "complete.json"
NEARLY_FULL = 2**24
"""Free bytes below which a failed write is reported as a full disk."""
_BESIDE = "../"
"""Before the name of a file in a manifest that lies beside the checkpoint."""
log = logging.getLogger(__name__)


class WeightsFile(NamedTuple):
    """A file of weights beside the checkpoints."""

    name: str
    sha256: str


def save(
    folder: Path,
    step: int,
    tensors: dict[str, Any],
    state: dict[str, Any],
    keep: int,
    best: WeightsFile | None = None,
) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep` complete ones, and any of a later step.

    Args:
        folder: Where the checkpoints of the run are.
        step: Optimizer steps done.
        tensors: State dicts by name.
        state: Everything else, as JSON.
        keep: Complete checkpoints to keep, at least 1.
        best: The best weights so far, as `save_best` returned them; None if there are none.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The disk is full or broken; the older checkpoints are unchanged.
    """
    target = folder / f"step-{step:08d}"
    partial = target.with_suffix(".partial")
    _remove_partial(folder)
    partial.mkdir(parents=True)
    try:
        _write(partial, tensors, {**state, "step": step}, best)
        durable.replace(partial, target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # free the space; the partial checkpoint is useless
        raise
    _prune(folder, target, keep)
    _remove_unneeded(folder, best)
    return target


def save_best(folder: Path, step: int, weights: Mapping[str, torch.Tensor], before: WeightsFile | None) -> WeightsFile:
    """Write the best weights so far, then remove earlier ones that no checkpoint lists.

    Args:
        folder: Where the checkpoints of the run are.
        step: Optimizer steps done.
        weights: The model's state dict.
        before: The best weights until now; None if there are none.

    Raises:
        OSError: The disk is full or broken; the older weights are unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_partial(folder)
    _remove_unneeded(folder, before)
    partial = folder / "best.partial"
    try:
        _write_tensors(weights, partial)
        digest = _sha256(partial)
        # the hash tells it from one of the same step that a checkpoint of another number of rows in a step lists
        best = WeightsFile(f"best-{step:08d}-{digest[:8]}.pt", digest)
        durable.replace(partial, folder / best.name)
    except OSError:
        partial.unlink(missing_ok=True)  # free the space; the partial file is useless
        raise
    _remove_unneeded(folder, best)
    return best


def load_best(folder: Path, best: WeightsFile) -> dict[str, torch.Tensor] | None:
    """Load the best weights; None if their file is gone or damaged."""
    path = folder / best.name
    if not path.is_file() or _sha256(path) != best.sha256:
        return None
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", mmap=True)
    return weights


def _write(partial: Path, tensors: dict[str, Any], state: dict[str, Any], best: WeightsFile | None) -> None:
    _write_tensors(tensors, partial / "tensors.pt")
    (partial / "state.json").write_text(json.dumps(state))
    sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
    beside = {} if best is None else {_BESIDE + best.name: best.sha256}
    (partial / MANIFEST).write_text(json.dumps(sums | beside))


def _write_tensors(tensors: Mapping[str, object], path: Path) -> None:
    try:
        torch.save(tensors, path)
    except RuntimeError as error:  # torch's writer in C++ does not report what is wrong with the disk
        if is_out_of_memory(error):
            raise
        code = errno.ENOSPC if shutil.disk_usage(path.parent).free < NEARLY_FULL else errno.EIO
        raise OSError(code, os.strerror(code), str(path.parent)) from None


def _remove_partial(folder: Path) -> None:
    for unfinished in folder.glob("*.partial"):
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def _remove_unneeded(folder: Path, best: WeightsFile | None) -> None:
    """Remove each file of best weights, except `best` and those that a checkpoint lists."""
    needed = {_BESIDE + best.name} if best is not None else set()
    for path in _newest_first(folder):
        needed |= _manifest(path).keys()
    for path in folder.glob("best-*.pt"):
        if _BESIDE + path.name not in needed:
            path.unlink()


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


def _is_complete(path: Path, alone: bool = False) -> bool:
    """Return whether all files have their hashes; with `alone`, whatever lies beside the checkpoint."""
    sums = {name: digest for name, digest in _manifest(path).items() if not (alone and name.startswith(_BESIDE))}
    try:
        return bool(sums) and all(_sha256(path / name) == expected for name, expected in sums.items())
    except OSError:
        return False


def _manifest(path: Path) -> dict[str, str]:
    """Read a checkpoint's manifest, {file: SHA-256}; empty if it is missing or damaged."""
    try:
        sums = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """Load the model's weights from one checkpoint; None if it is incomplete or damaged."""
    if not _is_complete(path, alone=True):
        return None
    weights: dict[str, torch.Tensor] = torch.load(path / "tensors.pt", map_location="cpu", mmap=True)["model"]
    return weights
