"""Out of memory: told apart from all other errors, whichever library ran out.

torch has a class for a GPU's memory only; the allocator of the host, cuBLAS, cuDNN, NCCL and the operating system say
it in words. It knows these words and imports no torch, so that data code and the command line may ask as well.
"""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from job.errors import KickoffError, OutOfMemory

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
"""A library that could not be started: mostly for lack of memory, sometimes since the driver does not fit."""
_HANDLE_BYTES = 2**29
"""Free on the GPU, below which a library that could not be started lacked memory."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory did not suffice, of a GPU or of the host; an error's explicit cause counts as well."""
    while error is not None:
        if _says_so(error):
            return True
        error = error.__cause__
    return False


@contextmanager
def needed(doing: str, remedy: str) -> Iterator[None]:
    """Within the block an error for lack of memory becomes OutOfMemory, "out of memory DOING; REMEDY"."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory {doing}; {remedy}") from None


def _says_so(error: BaseException) -> bool:
    if isinstance(error, KickoffError):  # which may quote a row, a path or the user's own words
        return False
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return True
    # an OSError with a number may name a path, a ValueError may quote anything; safetensors' error is a plain Exception
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
    except RuntimeError:  # CUDA does not answer any more
        return False
