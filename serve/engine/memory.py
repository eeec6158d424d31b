"""Memory: how much is free, how the allocator handles freed memory, and which errors mean that there is none.

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
"""Messages of torch's allocator, CUDA, cuBLAS, oneDNN (also for a kernel without memory), C++ and Python."""
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""mallopt's parameters, as in malloc.h."""
DONTNEED = 4
"""madvise's MADV_DONTNEED: this process no longer needs the pages; the system may keep them cached."""


def free_memory(device: str, root: Path = cgroup.ROOT) -> int:
    """Return the free bytes of a device; on a CPU the container's limit counts as well as the machine's memory."""
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
    # macOS and others have no such file: guess half of the memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there was no memory. torch has a class for a GPU's, and else only messages."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def return_freed_memory() -> None:
    """Return freed tensors to the system at once, not into holes of the heap; for the time of loading."""
    if libc := _glibc():
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 2**20)


def keep_freed_memory() -> None:
    """Keep freed tensors in the heap, since mapping large blocks again zeroes their pages; for the time of steps."""
    if libc := _glibc():
        libc.malloc_trim(0)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(TOP_PAD, 64 * 2**20)


def forget_pages(tensor: torch.Tensor) -> None:
    """Release the pages of a tensor that is mapped from the weights' file and unchanged; they can be read again."""
    libc = _glibc()
    if libc is None or tensor.device.type != "cpu" or not _is_file_mapped(tensor.data_ptr()):
        return
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), DONTNEED)


def _is_file_mapped(address: int) -> bool:
    """Whether the address is mapped from a file; other memory would lose its content."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, _, *name = line.split(maxsplit=5)
        begin, end = (int(bound, 16) for bound in addresses.split("-"))
        if begin <= address < end:
            return bool(name) and name[0].startswith("/")
    return False


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None
