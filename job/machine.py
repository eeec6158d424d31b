"""What the run computes with: the device, the precision, and the processes that share the work.

It knows torch's devices and process group (torchrun's environment variables). It knows nothing of models.
"""

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from job.errors import ConfigError

Precision = Literal["bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Machine:
    device: torch.device
    precision: Precision
    rank: int = 0
    processes: int = 1

    @property
    def dtype(self) -> torch.dtype:
        """The type of matrix multiplications."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[None]:
        """Matrix multiplications in `dtype`, over weights that stay fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over all processes, in place."""
        if self.processes > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            dist.barrier()


def detect(requested: str) -> Machine:
    """The machine this process runs on; joins the process group when torchrun started it.

    Raises:
        ConfigError: the precision asked for is not to be had on this device.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        device = torch.device("cpu")
        _keep_freed_memory()
    else:
        device = torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device.index)
    if processes > 1 and not dist.is_initialized():
        # rank 0 prepares the data while the others wait at a barrier: an hour is not too long
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=4))
    rank = int(os.environ.get("RANK", "0"))
    return Machine(device, _precision(requested, device), rank, processes)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what tensors gave back.

    By default each large tensor is mapped and unmapped anew, and its pages are zeroed every time: a fifth of a
    training step on two cores. Elsewhere than on glibc nothing happens.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # the parameters' numbers in malloc.h
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 * 2**20)


def _precision(requested: str, device: torch.device) -> Precision:
    if requested == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision: found fp16 on a CPU, expected a GPU for it; use auto")
    if requested == "bf16" and device.type == "cuda" and not _computes_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"train.precision: found bf16 on {name}, which cannot compute in it; use auto (fp16 there)")
    for precision in ("bf16", "fp16", "fp32"):
        if requested == precision:
            return precision
    if _computes_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False
