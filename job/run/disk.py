"""Disk: estimates the disk space a run needs and compares it with what is free.

A run writes to up to three folders, which may be on three disks: the run folder, publish.folder, and the folder for
temporary files, into which a published model is downloaded to verify it. Training comes before publishing, and the
checkpoints are removed in between.

The module knows file sizes. It does not know what the files hold.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from job.config.schema import Config
from job.errors import ConfigError

_WEIGHT_BYTES = 4
"""Bytes of one weight during training: fp32, whatever dtype the base has on disk."""
_COPIES = 3
"""A checkpoint holds the weights and AdamW's two moments, all in fp32."""
_BEST_COPIES = {"best": 1, "last": 0}
"""Beside each checkpoint lie the best weights until then, by `train.keep`; at most as many files as checkpoints."""
_SMALL_FILES = 2**22
"""Bytes for the report, the loss curve, TensorBoard's events and the like."""
_REMEDIES = {
    "output": "choose another output, or lower train.save_total_limit",
    "publish.folder": "choose another publish.folder",
    "TMPDIR": "set the environment's TMPDIR to a folder on a larger disk",
}


def require_writable(folder: Path) -> None:
    """Create the run folder; raise ConfigError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(
            f"output: expected a writable folder, found {folder}: {error.strerror}; mount it "
            f"writable for user {os.geteuid()}, or choose another output"
        ) from None


@dataclass(frozen=True)
class Need:
    """Additional bytes needed in one folder, during training and during publishing."""

    key: str
    """The config key or environment variable that names the folder."""
    path: Path
    training: int
    publishing: int


def estimate(config: Config, prepared: Path) -> list[Need]:
    """Estimate the disk space that a run needs.

    Args:
        config: The run's config.
        prepared: A run folder with the base model and the prepared data of this config.

    Returns:
        One need for each folder the run writes to.
    """
    base = size(prepared / "base")
    data = size(prepared) - base
    weights = int(json.loads((prepared / "base" / "base.json").read_text())["parameters"])
    checkpoint = weights * _WEIGHT_BYTES * (_COPIES + _BEST_COPIES[config.train.keep])
    # a new checkpoint is complete before the oldest is removed; the saved model has the dtype of the base
    training = base + data + checkpoint * (config.train.save_total_limit + 1) + _SMALL_FILES
    if config.model.decoding == "auto":  # the search keeps the models of two trials
        training += 2 * base
    published = base + _SMALL_FILES
    output = Path(config.output)
    present, trained = size(output), (output / "model").exists()
    publishing = max(0, data + base + published - present)
    needs = [Need("output", output, 0 if trained else max(0, training - present), publishing)]
    if config.publish.folder is not None:  # the older model is removed after the new one is complete
        needs.append(Need("publish.folder", Path(config.publish.folder), 0, published))
    if config.publish.repo is not None:
        needs.append(Need("TMPDIR", Path(tempfile.gettempdir()), 0, published))
    return needs


def require_free(needs: Iterable[Need]) -> list[str]:
    """Compare the needs with the free space of each disk.

    Args:
        needs: As `estimate` returns them; needs on the same disk are added.

    Returns:
        A line for each disk: bytes needed, bytes free, folders.

    Raises:
        ConfigError: A disk has too little space; the text says which, how much is missing, and what helps.
    """
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(_existing_parent(need.path).stat().st_dev, []).append(need)
    lines, problems = [], []
    for group in disks.values():
        needed = max(sum(need.training for need in group), sum(need.publishing for need in group))
        free = shutil.disk_usage(_existing_parent(group[0].path)).free
        folders = ", ".join(f"{need.key} {need.path}" for need in group)
        lines.append(f"{_gib(needed)} needed, {_gib(free)} free for {folders}")
        if free < needed:
            remedies = ", or ".join(_REMEDIES[need.key] for need in group)
            keys = " and ".join(need.key for need in group)
            problem = f"found {_gib(free)} free on the disk of {folders}, expected {_gib(needed)}"
            problems.append(f"{keys}: {problem}; free some, or {remedies}")
    if problems:
        raise ConfigError("\n".join(problems))
    return lines


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing_parent(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"
