"""Durable: writes files and folders atomically, so that a kill -9 or a power cut leaves the old one or the new one.

Everything is written under a temporary name, synced to disk and renamed; then the rename is synced. Without the first
sync a file system may keep the new name and lose the contents. The module does not know what the files hold.
"""

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically; an older file of that name stays until the new one is complete."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(partial)
    except OSError:  # free the space; the partial file is useless
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    _sync(path.parent)


def as_json(value: Any) -> str:
    """Return strict JSON, in which NaN and infinity become null."""
    return json.dumps(_replace_nonfinite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace(partial: Path, target: Path) -> None:
    """Rename a complete file or folder to its final name, durably; an older one of that name is removed.

    Args:
        partial: The file or folder under its temporary name, on the same file system.
        target: Its final name.
    """
    for path in sorted(partial.rglob("*")):
        _sync(path)
    _sync(partial)
    if target.is_dir():
        shutil.rmtree(target)
    partial.rename(target)
    _sync(target.parent)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error reports a full disk or an exhausted quota.

    Not every library sets errno: datasets raises an OSError without one, and safetensors, which writes from Rust, an
    exception of its own. So the message is searched too.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in ("No space left on device", "Not enough disk space"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
