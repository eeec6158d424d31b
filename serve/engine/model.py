"""Loading a published model for inference: device, number format, threads, and how much memory its cache may take.

On a CPU, weights of linear layers are laid out for oneDNN once, in bfloat16 where the processor computes in it, and
all else stays in float32. In bfloat16 that is 1.6 to 1.8 times the tokens a second of a model that is bfloat16
throughout, and closer to the float32 model, since only products are rounded; in float32 it is 1.5 to 3 times what
torch's own linear layers give on an AMD processor without AVX-512. On a GPU the model is converted.

It knows transformers' models, torch and the machine. It does not know requests.
"""

import ctypes
import logging
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from serve.engine import verify
from serve.engine.steady import steady

log = logging.getLogger(__name__)
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
PACKABLE = (nn.Linear, Conv1D)
PROBE = 8
"""Tokens of the forward passes that compare packed with plain weights."""


def load(folder: Path, device: str, dtype: Dtype, threads: int | None = None) -> PreTrainedModel:
    """The model in `folder`, ready for inference on `device` ("cpu", "cuda:0", ...).

    Raises:
        ValueError, OSError: the files are not a causal language model, or the device cannot compute in `dtype`.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # of prompts that hold the padding token, which is harmless
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device: found {device}, and torch {torch.__version__} can use no GPU here; give the container one "
            "(--gpus all, nvidia.com/gpu) on a machine with driver 580 or newer, or take --device cpu"
        )
    chosen = _dtype(torch.device(device), dtype)
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        torch.set_num_threads(threads or cpus())
        _keep_freed_memory()
    loading: Any = AutoModelForCausalLM.from_pretrained
    model: PreTrainedModel
    model, found = loading(
        folder,
        dtype=torch.float32 if on_cpu else chosen,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random numbers in their place
        raise ValueError(f"its weights lack {', '.join(missing[:3])}{' and more' if missing[3:] else ''}")
    nn.Module.to(model, device).eval().requires_grad_(False)
    verify.settle(model)
    if on_cpu:
        steady(model)
        _pack(model, chosen)
    verify.company(model)
    return model


def cpus() -> int:
    """Processors that this process may use: its affinity and the container's quota, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        allowed = min(allowed, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, allowed)


def free_memory(device: str) -> int:
    """Bytes that are free on the device; on a CPU the container's limit counts, not only the host's memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    host = next(int(line.split()[1]) * 1024 for line in _read("/proc/meminfo").splitlines() if "MemAvailable" in line)
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    return min(host, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else host


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _dtype(device: torch.device, requested: Dtype) -> torch.dtype:
    if device.type == "cuda":
        best = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
        best = torch.bfloat16 if bf16 else torch.float32
    else:
        best = torch.float16
    if requested == "auto":
        return best
    chosen: torch.dtype = getattr(torch, requested)
    if chosen not in (best, torch.float32):
        raise ValueError(f"dtype: found {requested}, expected auto, float32 or {str(best)[6:]} on this {device.type}")
    return chosen


class _PackedLinear(nn.Module):
    """A linear layer whose weights oneDNN has laid out in a `dtype` of its own; takes and gives float32.

    One row alone is computed twice: oneDNN has a kernel of its own for it, which sums in another order than the one
    for more rows and takes as long as that for two.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), None)
        self.bias = None if bias is None else bias.to(dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.reshape(-1, input.shape[-1]).to(self.dtype)
        taken = rows.expand(2, -1) if len(rows) == 1 else rows
        output = torch.ops.mkldnn._linear_pointwise(taken, self.weight, self.bias, "none", [], "")[: len(rows)]
        return output.float().view(*input.shape[:-1], -1)  # type: ignore[no-any-return]


@torch.inference_mode()
def _pack(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Exchange the linear layers for packed ones, or leave the model as it is where that cannot be or differs."""
    ids = torch.arange(PROBE)[None]
    plain = model(ids).logits
    originals: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in PACKABLE
    ]
    try:
        for parent, name, child in originals:
            weight, bias = child.weight, child.bias
            setattr(parent, name, _PackedLinear(weight.t() if type(child) is Conv1D else weight, bias, dtype))
        difference = float((model(ids).logits - plain).norm() / plain.norm())
        if difference < 0.05:
            return
        reason = f"its logits differ by {difference:.0%}"
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
    for parent, name, child in originals:
        setattr(parent, name, child)
    log.warning("engine: packed weights cannot be used for this model (%s); plain float32 instead", reason)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what tensors gave back, since mapping large blocks anew zeroes their pages at each step."""
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # the parameters' numbers in malloc.h
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 * 2**20)
