"""Reads a container's limits on processors and memory from control groups, version 2 and version 1.

The limits of the process' own group and of all visible groups above it count. It reads files below `root` only; where
there are none, as on macOS, there are no limits.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def processors(root: Path = ROOT) -> float | None:
    """Return the smallest quota, in processors; None: no quota."""
    quotas = [_read_words(folder / "cpu.max") for folder in _folders(root, "cpu")]
    for folder in _folders(root, "cpu"):
        quotas.append([*_read_words(folder / "cpu.cfs_quota_us"), *_read_words(folder / "cpu.cfs_period_us")])
    shares = [int(quota[0]) / int(quota[1]) for quota in quotas if len(quota) == 2 and quota[0].isdigit()]
    return min(shares, default=None)


def free_memory(root: Path = ROOT) -> int | None:
    """Return the bytes left until the nearest limit; None: no limit. File pages that can be reclaimed count as free."""
    rooms = []
    for folder in _folders(root, "memory"):
        new = [_read_number(folder / name) for name in ("memory.max", "memory.high")]
        limits = [limit for limit in [*new, _read_number(folder / "memory.limit_in_bytes")] if limit is not None]
        used = _read_number(folder / "memory.current") or _read_number(folder / "memory.usage_in_bytes")
        if limits and used is not None:
            rooms.append(max(0, min(limits) - max(0, used - _reclaimable(folder))))
    return min(rooms, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process' group for `controller` and of those above it, below all usual mounts."""
    mounts = root / "sys/fs/cgroup"
    lines = (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").exists() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            bases = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            bases = [mounts / controllers, mounts / controller]
        else:
            continue
        # a container sees its own group as the mount itself, but its path may be the host's
        groups = [Path(group.lstrip("/")), *Path(group.lstrip("/")).parents]
        for base in bases:
            yield from (base / path for path in groups if (base / path).is_dir())


def _reclaimable(folder: Path) -> int:
    """Bytes of inactive file pages; version 1 has another name for the sum with the groups below."""
    counts = dict(line.split(" ", 1) for line in _read_text(folder / "memory.stat").splitlines() if " " in line)
    return int(counts.get("total_inactive_file", counts.get("inactive_file", 0)))


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if text.isdigit() else None


def _read_words(path: Path) -> list[str]:
    return _read_text(path).split()


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
