"""Out of memory: known whichever library says it, and nothing else is taken for it."""

import errno

import numpy as np
import pyarrow as pa
import pytest
import torch

from job.errors import DataError, OutOfMemory
from job.machine import is_out_of_memory
from job.run import memory

TAKEN = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    MemoryError("std::bad_alloc"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes. Buy new RAM!"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.89 GB, other allocations: 61.19 MB)"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("unable to mmap 1234 bytes from file </base/model.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("Cannot allocate memory (os error 12)"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/out of memory/rows.json"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("could not convert 'out of memory' to a number"),
    DataError("row 7: found 'out of memory', expected text"),
    KeyError("out of memory"),
]


@pytest.mark.parametrize("error", TAKEN, ids=str)
def test_every_librarys_words_are_known(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), memory.needed("while testing", "take less"):
        raise error


def test_what_libraries_really_raise_is_known() -> None:
    for ask in (lambda: torch.empty(2**60), lambda: np.empty(2**58), lambda: pa.allocate_buffer(2**62)):
        with (
            pytest.raises(OutOfMemory, match="out of memory while testing; take less"),
            memory.needed("while testing", "take less"),
        ):
            ask()


def test_the_cause_of_an_error_counts() -> None:
    wrapped = RuntimeError("An error occurred while generating the dataset")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(("free", "expected"), [(2**20, True), (2**34, False)])
def test_a_library_that_does_not_start_lacked_memory_if_the_gpu_is_full(
    free: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2**34))
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate(handle)")) == expected
