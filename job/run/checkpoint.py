"""Checkpoints: the state of an unfinished training, complete or not there at all.

It knows files and checksums, nothing of what the state means. A checkpoint is written aside, synced to disk and
renamed; its manifest holds the SHA-256 of every file, so that one which was cut off or damaged is passed over.
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
"""Bytes free, below which a failed write is the full disk's."""
log = logging.getLogger(__name__)


def save(folder: Path, step: int, tensors: dict[str, Any], state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step, then drop all but the newest `keep` good ones, none of a later step.

    Args:
        tensors: state dicts, by name.
        state: everything else, as JSON.

    Raises:
        OSError: the disk is full or broken; the older checkpoints are as they were.
    """
    target = folder / f"step-{step:08d}"
    partial = target.with_suffix(".partial")
    for unfinished in folder.glob("*.partial"):
        shutil.rmtree(unfinished)
    partial.mkdir(parents=True)
    try:
        _write(partial, tensors, {**state, "step": step})
        durable.place(partial, target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it would only be in the way
        raise
    _drop_all_but(folder, target, keep)
    return target


def _write(partial: Path, tensors: dict[str, Any], state: dict[str, Any]) -> None:
    try:
        torch.save(tensors, partial / "tensors.pt")
    except RuntimeError as error:  # of torch's writer in C++, which says nothing of the disk
        if is_out_of_memory(error):
            raise
        code = errno.ENOSPC if shutil.disk_usage(partial).free < NEARLY_FULL else errno.EIO
        raise OSError(code, os.strerror(code), str(partial)) from None
    (partial / "state.json").write_text(json.dumps(state))
    sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps(sums))


def _drop_all_but(folder: Path, latest: Path, keep: int) -> None:
    """A damaged checkpoint does not count, or else it would push out the good one that is older.

    One of a later step was damaged, or its steps had another number of rows; the training has left it behind.
    """
    good = 0
    for path in list(_newest_first(folder)):
        if path.name <= latest.name and good < keep and (path == latest or _is_complete(path)):
            good += 1
        else:
            shutil.rmtree(path)


def newest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tensors and state of the newest complete checkpoint; None if there is none."""
    for path in _newest_first(folder):
        if _is_complete(path):
            return torch.load(path / "tensors.pt", map_location="cpu"), json.loads((path / "state.json").read_text())
        log.warning(f"checkpoint {path.name} is incomplete or damaged and is passed over")
    return None


def name_of_newest(folder: Path) -> str:
    """For a message: which checkpoint a later run would go on from."""
    found = next((path for path in _newest_first(folder) if _is_complete(path)), None)
    return f"the checkpoint {found} is kept" if found else "there is no checkpoint yet"


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


def weights(path: Path) -> dict[str, torch.Tensor] | None:
    """The model's weights in one checkpoint; None if it is incomplete or damaged."""
    if not _is_complete(path):
        return None
    found: dict[str, torch.Tensor] = torch.load(path / "tensors.pt", map_location="cpu", mmap=True)["model"]
    return found
