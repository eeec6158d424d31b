"""Durable: files and folders that are there whole or not at all, also after a kill -9 or a power cut.

Everything is written aside, synced to the disk and renamed, and the rename is synced too: without the first sync a
file system may keep the new name and lose what it stands for. It knows nothing of what the files hold.
"""

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> None:
    """Write a file, all of it or nothing; what was there before stays until then."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(partial)
    except OSError:  # on a full disk the rest of it would only be in the way
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    _sync(path.parent)


def as_json(value: Any) -> str:
    """As JSON that every reader takes: it has no NaN and no infinity, so both become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def place(partial: Path, target: Path) -> None:
    """Give a file or a folder that was written aside its name; an older folder of that name goes first."""
    for path in sorted(partial.rglob("*")):
        _sync(path)
    _sync(partial)
    if target.is_dir():
        shutil.rmtree(target)
    partial.rename(target)
    _sync(target.parent)


def is_full(error: BaseException | None) -> bool:
    """Whether a disk or a quota is full, in the words of the libraries: datasets' error has no number, and
    safetensors' is no OSError, since it writes from Rust."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in ("No space left on device", "Not enough disk space"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
