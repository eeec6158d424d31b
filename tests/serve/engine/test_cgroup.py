"""Processors and memory as the container allows them."""

import os
from pathlib import Path

import psutil
import pytest
from system_files import tree

from serve.engine import cgroup, threads
from serve.engine.memory import free_memory

NO_LIMIT_V1 = str(0x7FFFFFFFFFFFF000)
GIB = 2**30

V2_CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
}
V2_NESTED = {
    "proc/self/cgroup": "0::/pods/one\n",
    "sys/fs/cgroup/pods/cpu.max": "100000 100000\n",
    "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
    "sys/fs/cgroup/pods/memory.max": f"{8 * GIB}\n",
    "sys/fs/cgroup/pods/memory.current": f"{6 * GIB}\n",
    "sys/fs/cgroup/pods/one/memory.max": "max\n",
    "sys/fs/cgroup/pods/one/memory.high": f"{4 * GIB}\n",
    "sys/fs/cgroup/pods/one/memory.current": f"{1 * GIB}\n",
}
V1_CONTAINER = {
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:pids:/docker/abc\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 2}\n",
}
V1_NESTED = {
    "proc/self/cgroup": "5:cpu:/slice\n4:memory:/slice\n0::/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/slice/cpu.cfs_quota_us": "300000\n",
    "sys/fs/cgroup/cpu/slice/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
    "sys/fs/cgroup/memory/slice/memory.limit_in_bytes": f"{6 * GIB}\n",
    "sys/fs/cgroup/memory/slice/memory.usage_in_bytes": f"{1 * GIB}\n",
}
NO_LIMITS = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
    "sys/fs/cgroup/memory.max": "max\n",
    "sys/fs/cgroup/memory.current": "5\n",
}


@pytest.mark.parametrize(
    ("files", "processors", "free"),
    [
        (V2_CONTAINER, 1.5, 3 * GIB),
        (V2_NESTED, 1.0, 2 * GIB),
        (V1_CONTAINER, 0.5, 3 * GIB // 2),
        (V1_NESTED, 3.0, 5 * GIB),
        (NO_LIMITS, None, None),
        ({}, None, None),
    ],
    ids=["v2 in a container", "v2 nested", "v1 in a container", "v1 nested", "no limits", "macOS"],
)
def test_what_the_container_allows(
    files: dict[str, str], processors: float | None, free: int | None, tmp_path: Path
) -> None:
    root = tree(tmp_path, files)
    assert cgroup.processors(root) == processors
    assert cgroup.free_memory(root) == free


def test_free_memory_is_the_less_of_the_machines_and_the_containers(tmp_path: Path) -> None:
    root = tree(tmp_path, {**V2_CONTAINER, "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1024 kB\n"})
    assert free_memory("cpu", root) == 2**20
    tree(root, {"proc/meminfo": f"MemAvailable: {64 * 2**20} kB\n"})
    assert free_memory("cpu", root) == 3 * GIB


def test_without_a_figure_half_of_the_memory_counts_as_free(tmp_path: Path) -> None:
    assert free_memory("cpu", tmp_path) == psutil.virtual_memory().total // 2


def test_this_machine_reports_its_free_memory() -> None:
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        ("3", V1_CONTAINER, 3),
        ("5,2", {}, 5),
        (" 4 ", {}, 4),
        (None, V1_CONTAINER, 1),
        ("0", V1_CONTAINER, 1),
        ("many", V1_CONTAINER, 1),
        (None, {}, len(os.sched_getaffinity(0))),
        (None, V1_NESTED, min(3, len(os.sched_getaffinity(0)))),
    ],
)
def test_threads(
    told: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.count(tree(tmp_path, files)) == expected
