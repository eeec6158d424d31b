"""Disk: how much room a run needs, and where.

A run writes to up to three places, which may be three disks: the run folder, publish.folder, and the folder for
temporary files, into which a published model is downloaded to be asked. Training and publishing come one after the
other, and the checkpoints are gone before anything is published.

It knows sizes of files. It does not know what is in them.
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

_BYTES = 4
"""Of a weight while it is trained: fp32, whatever the base has on disk."""
_COPIES = 3
"""A checkpoint holds the weights and AdamW's two moments."""
_REST = 2**22
"""Report, loss curve, TensorBoard's events, tokenizer of the checkpoint and the like."""
_REMEDIES = {
    "output": "choose another output, or lower train.save_total_limit",
    "publish.folder": "choose another publish.folder",
    "TMPDIR": "set the environment's TMPDIR to a folder on a larger disk",
}


def require_writable(folder: Path) -> None:
    """Make the run folder; raise ConfigError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(
            f"output: expected a folder that can be written, found {folder}: {error.strerror}; mount it "
            f"writable for user {os.geteuid()}, or choose another output"
        ) from None


@dataclass(frozen=True)
class Room:
    """Bytes that are needed at one place, beside what lies there, while training and while publishing."""

    key: str
    place: Path
    training: int
    publishing: int


def needed(config: Config, prepared: Path) -> list[Room]:
    """What a run of this config needs, at each place.

    Args:
        prepared: a run folder with the base and the prepared data of this config.
    """
    base = size(prepared / "base")
    data = size(prepared) - base
    weights = int(json.loads((prepared / "base" / "base.json").read_text())["parameters"])
    checkpoint = weights * _BYTES * _COPIES
    # a new checkpoint is complete before the oldest goes; the model takes the form that the base has on disk
    training = base + data + checkpoint * (config.train.save_total_limit + 1) + _REST
    published = base + _REST
    output = Path(config.output)
    there, trained = size(output), (output / "model").exists()
    publishing = max(0, data + base + published - there)
    rooms = [Room("output", output, 0 if trained else max(0, training - there), publishing)]
    if config.publish.folder is not None:  # the older model goes when the new one has its place
        rooms.append(Room("publish.folder", Path(config.publish.folder), 0, published))
    if config.publish.repo is not None:
        rooms.append(Room("TMPDIR", Path(tempfile.gettempdir()), 0, published))
    return rooms


def require(rooms: Iterable[Room]) -> list[str]:
    """Compare with what is free; a line for each disk.

    Raises:
        ConfigError: a disk has too little; which one, how much, and what helps.
    """
    disks: dict[int, list[Room]] = {}
    for room in rooms:
        disks.setdefault(_existing(room.place).stat().st_dev, []).append(room)
    lines, problems = [], []
    for together in disks.values():
        wanted = max(sum(room.training for room in together), sum(room.publishing for room in together))
        free = shutil.disk_usage(_existing(together[0].place)).free
        where = ", ".join(f"{room.key} {room.place}" for room in together)
        lines.append(f"{_gib(wanted)} needed, {_gib(free)} free for {where}")
        if free < wanted:
            remedies = ", or ".join(_REMEDIES[room.key] for room in together)
            keys = " and ".join(room.key for room in together)
            found = f"found {_gib(free)} free on the disk of {where}, expected {_gib(wanted)}"
            problems.append(f"{keys}: {found}; free some, or {remedies}")
    if problems:
        raise ConfigError("\n".join(problems))
    return lines


def size(folder: Path) -> int:
    """Bytes of all files in a folder; 0 if it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.absolute().parents) if path.exists())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.0f} MiB"
