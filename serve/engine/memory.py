"""Memory: how much is free for the cache, what the allocator does with what tensors give back, and errors of memory.

It knows the machine and torch's devices. It does not know models or requests.
"""

import ctypes
import functools
import mmap
import os
import platform
import sys
from pathlib import Path

import torch

from serve.engine import cgroup

OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "could not allocate", "could not create a memory",
    "could not create a primitive", "could not execute a primitive", "can't start new thread",
    "alloc_failed", "bad_alloc", "bad allocation",
)  # fmt: skip
"""What torch's allocator, CUDA, cuBLAS, oneDNN (of a kernel that it has no memory for, too), C++ and Python say."""
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""The numbers of mallopt's parameters in malloc.h."""
DONTNEED = 4
"""madvise's number for pages that this process no longer needs; the system may keep them for the next start."""


def free_memory(device: str, root: Path = cgroup.ROOT) -> int:
    """Bytes that are free on the device; on a CPU the container's limit counts, not only the machine's memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    machine, container = _free_on_machine(root), cgroup.free_memory(root)
    return machine if container is None else min(machine, container)


def _free_on_machine(root: Path) -> int:
    path = root / "proc/meminfo"
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    # macOS, and whatever else does not say: half of the memory is as good a guess as any
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory. torch has a class of its own for a GPU's, and only words for all else."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def return_freed_memory() -> None:
    """While a model is loaded: what a tensor gives back goes to the system at once, not into holes of the heap."""
    if libc := _glibc():
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 2**20)


def keep_freed_memory() -> None:
    """While the engine steps: keep what tensors gave back, since mapping large blocks anew zeroes their pages."""
    if libc := _glibc():
        libc.malloc_trim(0)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(TOP_PAD, 64 * 2**20)


def forget_pages(tensor: torch.Tensor) -> None:
    """Give back the pages of the weights' file behind a tensor that nobody has written to; they could be read again."""
    libc = _glibc()
    if libc is None or tensor.device.type != "cpu" or not _is_file_mapped(tensor.data_ptr()):
        return
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if whole > 0:
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), DONTNEED)


def _is_file_mapped(address: int) -> bool:
    """Other memory would lose what it holds."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, _, _, _, *name = line.split(maxsplit=5)
        begin, end = (int(bound, 16) for bound in place.split("-"))
        if begin <= address < end:
            return bool(name) and name[0].startswith("/")
    return False


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
