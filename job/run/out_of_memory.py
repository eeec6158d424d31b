"""Out of memory: recognizes the errors by which libraries report that memory did not suffice.

torch has a class for GPU memory only. Its host allocator, cuBLAS, cuDNN, NCCL and the operating system report it in the
message. The module knows these messages and does not import torch, so that data code and the command line can use it.
"""

import errno
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from job.errors import KickoffError, OutOfMemory

Result = TypeVar("Result")
log = logging.getLogger(__name__)
_WORDS = re.compile(
    r"out[ _]of[ _](?:\w+_)?memory"  # CUDA, HIP, MPS, XPU (OUT_OF_DEVICE_MEMORY), NCCL, Arrow
    r"|can(?:'t|not) allocate memory"  # torch's allocator of the host, mmap
    r"|unable to allocate"  # NumPy
    r"|not enough memory"  # torch's allocator of the host on Windows
    r"|failed to allocate (?:\w+ )*memory"
    r"|_ALLOC_FAILED|_ALLOCATION_FAILED|INSUFFICIENT_RESOURCES"  # cuBLAS, cuSPARSE, cuFFT; cuDNN before 9, and since
    r"|bad[_ ]alloc",  # C++
    re.IGNORECASE,
)
_HANDLE = re.compile(r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_NOT_INITIALIZED")
"""A CUDA library could not be initialized: mostly for lack of memory, sometimes because of the driver's version."""
_HANDLE_BYTES = 2**29
"""Free bytes on the GPU below which such a failure counts as lack of memory."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one of its explicit causes, reports that GPU or host memory did not suffice."""
    while error is not None:
        if _reports_lack(error):
            return True
        error = error.__cause__
    return False


@contextmanager
def convert_errors(doing: str, remedy: str) -> Iterator[None]:
    """Convert errors for lack of memory within the block.

    Args:
        doing: What the block does, such as "while loading gpt2".
        remedy: What the user can do.

    Raises:
        OutOfMemory: "out of memory DOING; REMEDY", in place of a library's error.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory {doing}; {remedy}") from None


def halved(size: int, what: str) -> int:
    """Return how many rows to try after `size` did not fit.

    Args:
        size: rows that were computed at once.
        what: a single row in the user's words, for the message.

    Raises:
        OutOfMemory: it was a single row.
    """
    if size == 1:
        raise OutOfMemory(
            f"out of memory with {what}; use a smaller model.base, lower model.max_length, or run on a machine with "
            "more memory"
        )
    return (size + 1) // 2


def in_halves(
    rows: list[int], work: Callable[[list[int]], list[Result]], stage: str, free: Callable[[], None] = lambda: None
) -> list[Result]:
    """Do the work of a batch; where memory does not suffice, that of its halves, one after the other.

    Args:
        rows: the batch, by number.
        work: what to do; the results of the halves are joined.
        stage: for the log.
        free: called before the halves, to give back memory that a library keeps.

    Returns:
        The results.

    Raises:
        OutOfMemory: a single row does not fit.
    """
    try:
        return work(rows)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # outside of the handler, which would keep the failed batch's tensors alive
    middle = len(rows) - halved(len(rows), "a single test row")
    free()
    log.warning(f"{stage}: out of memory with {len(rows)} rows, continuing with {middle}")
    return in_halves(rows[:middle], work, stage, free) + in_halves(rows[middle:], work, stage, free)


def _reports_lack(error: BaseException) -> bool:
    if isinstance(error, KickoffError):  # its text may quote a row, a path or the user's own words
        return False
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return True
    # an OSError with errno may name a path, a ValueError may quote anything; safetensors raises a plain Exception
    if number is not None or not (
        isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
    ):
        return False
    text = str(error)
    return bool(_WORDS.search(text)) or (bool(_HANDLE.search(text)) and _gpu_is_full())


def _gpu_is_full() -> bool:
    torch = sys.modules.get("torch")
    try:
        return torch is not None and torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < _HANDLE_BYTES
    except RuntimeError:  # CUDA is in a failed state
        return False
