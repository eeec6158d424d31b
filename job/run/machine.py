"""What the run computes with: the device, the precision, and the processes that share the work.

It knows torch's devices and process group (torchrun's environment variables). It knows nothing of models.
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
"""For the CUDA 13.0 libraries that torch's wheels bring."""
DEVICES = Path("/dev")
DRIVER = Path("/proc/driver/nvidia/version")
Item = TypeVar("Item")
Result = TypeVar("Result")
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

    @property
    def exact(self) -> torch.dtype:
        """The type that sums are kept in: float64 where the device has it. An Apple GPU and some of Intel's do not."""
        if self.device.type == "mps":
            return torch.float32
        if self.device.type == "xpu" and not torch.xpu.get_device_properties(self.device).has_fp64:
            return torch.float32
        return torch.float64

    @property
    def name(self) -> str:
        """The device's name: the GPU's model, else the kind of device."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of `values` over all processes, in place."""
        if self.processes > 1:
            dist.all_reduce(values)
        return values

    def share(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """`work` done once on each of `items`, shared out among the processes; each gets all results, in order."""
        mine = [work(item) for item in items[self.rank :: self.processes]]
        if self.processes == 1:
            return mine
        parts: list[list[Result]] = [[] for _ in range(self.processes)]
        dist.all_gather_object(parts, mine)
        return [parts[index % self.processes][index // self.processes] for index in range(len(items))]

    def gather(self, value: Item) -> list[Item]:
        """The `value` of each process, by rank."""
        return self.share(range(self.processes), lambda _: value)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            dist.barrier()

    def free_cache(self) -> None:
        """Give back GPU memory that torch keeps for itself: cuBLAS and others cannot take it from there."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def peak_gib(self) -> float:
        """The most memory that was in use: of the GPU if it is CUDA's, else of the process."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
        import resource

        unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def detect(device_wanted: str, precision_wanted: str) -> Machine:
    """The machine this process runs on; joins the process group when torchrun started it.

    Raises:
        ConfigError: the device or the precision asked for is not to be had.
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
    """None for the CPU. A GPU that is there and cannot be used is an error: on the CPU a run would take days."""
    if wanted == "cpu":
        return None
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    if any(DEVICES.glob("nvidia[0-9]*")):
        raise ConfigError(
            f"train.device: found an NVIDIA GPU that torch {torch.__version__} cannot use, with {_driver()}; expected "
            f"driver {OLDEST_DRIVER} or newer and torch for CUDA; take a newer driver, or train.device=cpu"
        )
    if wanted == "gpu":
        raise ConfigError(
            "train.device: expected a GPU, found none; start the container with --gpus all, ask for nvidia.com/gpu in "
            "the Pod's limits, or set train.device to auto or cpu"
        )
    return None


def _driver() -> str:
    """As the kernel module tells it: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  ..."."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", DRIVER.read_text())
    except OSError:
        found = None
    return f"driver {found[0]}" if found else "a driver of unknown version"


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
