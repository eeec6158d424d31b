"""Machine: the device, the precision and the processes that a run computes with.

The module knows torch's devices and process group (torchrun's environment variables). It does not know models.
"""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from job.errors import ConfigError

Precision = Literal["bf16", "fp16", "fp32"]
OLDEST_DRIVER = 580
"""Major version of the oldest NVIDIA driver that runs the CUDA 13.0 libraries in torch's wheels."""
DEVICES = Path("/dev")
DRIVER = Path("/proc/driver/nvidia/version")
Item = TypeVar("Item")
Result = TypeVar("Result")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Machine:
    """The device and precision of this process, its rank, and the number of processes."""

    device: torch.device
    precision: Precision
    rank: int = 0
    processes: int = 1

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix multiplications."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which matrix multiplications run in `dtype`; weights stay fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def sum_dtype(self) -> torch.dtype:
        """The dtype of accumulated sums: float64, or float32 on Apple GPUs and on Intel GPUs without float64."""
        if self.device.type == "mps":
            return torch.float32
        if self.device.type == "xpu" and not torch.xpu.get_device_properties(self.device).has_fp64:
            return torch.float32
        return torch.float64

    @property
    def name(self) -> str:
        """The name of a CUDA GPU's model; for other devices the device type."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum `values` over all processes, in place (all-reduce)."""
        if self.processes > 1:
            dist.all_reduce(values)
        return values

    def distribute(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """Apply `work` to each item once, distributed over the processes.

        Args:
            items: The same sequence in every process.
            work: Called for every n-th item in the n processes.

        Returns:
            The results of all items in order, in every process.
        """
        mine = [work(item) for item in items[self.rank :: self.processes]]
        if self.processes == 1:
            return mine
        parts: list[list[Result]] = [[] for _ in range(self.processes)]
        dist.all_gather_object(parts, mine)
        return [parts[index % self.processes][index // self.processes] for index in range(len(items))]

    def gather(self, value: Item) -> list[Item]:
        """Return the `value` of each process, by rank."""
        return self.distribute(range(self.processes), lambda _: value)

    def wait(self) -> None:
        """Wait until every process has reached this call (barrier)."""
        if self.processes > 1:
            dist.barrier()

    def free_cache(self) -> None:
        """Release GPU memory that torch caches, so that libraries such as cuBLAS can allocate it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_gib(self) -> float:
        """Return the peak memory in GiB: of the GPU's allocations on CUDA, else of the process."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
        import resource

        unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def detect(device_wanted: str, precision_wanted: str) -> Machine:
    """Detect the device and precision of this process, and join the process group if torchrun started it.

    Args:
        device_wanted: train.device of the config: auto, gpu or cpu.
        precision_wanted: train.precision of the config: auto, bf16, fp16 or fp32.

    Raises:
        ConfigError: The device or the precision is not available.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = _accelerator(device_wanted)
    if accelerator is None:
        device = torch.device("cpu")
        _keep_freed_memory()
    else:
        device = torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device.index)
    if processes > 1 and not dist.is_initialized():
        # the others wait at a barrier while rank 0 prepares the data, which may take hours for a million rows
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=4))
    rank = int(os.environ.get("RANK", "0"))
    return Machine(device, _precision(precision_wanted, device), rank, processes)


def _accelerator(wanted: str) -> torch.device | None:
    """Return the accelerator; None for the CPU. An unusable GPU is an error: on the CPU a run would take days."""
    if wanted == "cpu":
        return None
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    if any(DEVICES.glob("nvidia[0-9]*")):
        raise ConfigError(
            f"train.device: found an NVIDIA GPU that torch {torch.__version__} cannot use, with {_driver()}; expected "
            f"driver {OLDEST_DRIVER} or newer and torch for CUDA; install a newer driver, or set train.device=cpu"
        )
    if wanted == "gpu":
        raise ConfigError(
            "train.device: expected a GPU, found none; start the container with --gpus all, request nvidia.com/gpu in "
            "the Pod's limits, or set train.device to auto or cpu"
        )
    return None


def _driver() -> str:
    """Read the kernel module's version: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  ..."."""
    try:
        version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", DRIVER.read_text())
    except OSError:
        version = None
    return f"driver {version[0]}" if version else "a driver of unknown version"


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensors.

    By default each large tensor is mapped and unmapped, and its pages are zeroed every time: a fifth of a training
    step on two cores. Without glibc this does nothing.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # parameter numbers of mallopt, from malloc.h
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
