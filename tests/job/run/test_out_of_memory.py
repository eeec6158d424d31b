"""Out of memory: known whichever library says it, and nothing else is taken for it."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from checkout import ROOT
from datasets import DatasetDict
from machines import CPU
from tiny import save_tiny
from training import SECTION, Stopping
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from job.config.schema import ModelSection
from job.errors import DataError, Exit, Interrupted, OutOfMemory
from job.model import base
from job.run import checkpoint, out_of_memory
from job.run.out_of_memory import is_out_of_memory
from job.training.loop import Training
from job.training.next_token import NextToken
from job.training.step import Learner
from job.training.train import rehearse, train

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
def test_out_of_memory_messages_of_every_library_are_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), out_of_memory.convert_errors("while testing", "take less"):
        raise error


def test_real_out_of_memory_errors_are_recognized() -> None:
    for ask in (lambda: torch.empty(2**60), lambda: np.empty(2**58), lambda: pa.allocate_buffer(2**62)):
        with (
            pytest.raises(OutOfMemory, match="out of memory while testing; take less"),
            out_of_memory.convert_errors("while testing", "take less"),
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


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


KINDS = [MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")]
LOADING: dict[str, tuple[Any, str]] = {
    "loading": (AutoModelForCausalLM, "from_pretrained"),
    "to the device": (PreTrainedModel, "to"),
    "the optimizer": (torch.optim.AdamW, "__init__"),
}
COMPUTING: dict[str, tuple[Any, str]] = {
    "the optimizer's step": (torch.optim.AdamW, "step"),
    "the gradients' norm": (torch.nn.utils, "get_total_norm"),
    "the autocast": (type(CPU), "autocast"),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("place", LOADING | COMPUTING)
def test_a_rehearsal_reports_out_of_memory_at_every_point(
    place: str, kind: Exception, rows: DatasetDict, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*(LOADING | COMPUTING)[place], failing(kind))
    with pytest.raises(OutOfMemory, match="^out of memory .*; use a smaller model.base") as caught:
        rehearse(SECTION, rows["train"], fetched, CPU)
    assert caught.value.exit_code == Exit.MEMORY


TRAINING: dict[str, tuple[Any, str]] = {
    "the test loss": (NextToken, "_measure"),
    "a checkpoint": (torch, "save"),
    "the model's folder": (PreTrainedModel, "save_pretrained"),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("place", LOADING | COMPUTING | TRAINING)
def test_training_reports_out_of_memory_at_every_point(
    place: str, kind: Exception, rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*(LOADING | COMPUTING | TRAINING)[place], failing(kind))
    with pytest.raises(OutOfMemory, match="^out of memory .*; "):
        train(SECTION, 1, rows, fetched, tmp_path, CPU)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "place", [(checkpoint, "load_newest"), (torch.optim.AdamW, "load_state_dict")], ids=lambda at: at[1]
)
def test_a_checkpoint_that_does_not_fit_is_reported(
    place: tuple[Any, str], kind: Exception, rows: DatasetDict, fetched: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", Stopping([3]).step)
        with pytest.raises(Interrupted):
            train(SECTION, 1, rows, fetched, tmp_path, CPU)
    monkeypatch.setattr(*place, failing(kind))
    with pytest.raises(OutOfMemory, match="out of memory while the checkpoint was loaded"):
        train(SECTION, 1, rows, fetched, tmp_path, CPU)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_test_rows_that_do_not_fit_together_are_measured_in_parts(
    kind: Exception, rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(SECTION, 1, rows, fetched, tmp_path, CPU, 16)
    expected = training.test_loss(lambda: False)
    batch = training.objective.test_rows.batch
    seen: list[int] = []

    def small_memory(part: list[int], device: torch.device) -> Any:
        if len(part) > 1:
            raise kind
        seen.append(part[0])
        return batch(part, device)

    monkeypatch.setattr(training.objective.test_rows, "batch", small_memory)
    assert training.test_loss(lambda: False) == pytest.approx(expected, rel=1e-6)
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_halves_the_forward_pass(
    kind: Exception, rows: DatasetDict, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(SECTION, 1, rows["train"], fetched, Path(), CPU, 10)
    batch = learner.rows.batch
    monkeypatch.setattr(
        learner.rows, "batch", lambda part, *more: failing(kind)() if len(part) > 2 else batch(part, *more)
    )
    assert learner.step([0, 1, 2, 3]).taken
    assert learner.micro_size == 2


BOUNDED = """
import resource, sys
from pathlib import Path
import datasets
from job.config.schema import TrainSection
from job.errors import KickoffError
from job.run import machine
from job.training.train import rehearse
here = machine.detect("cpu", "fp32")
rows = datasets.load_from_disk(sys.argv[1])["train"]
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[3]) * 2**20,) * 2)
try:
    rehearse(TrainSection(batch_size=1), rows, Path(sys.argv[2]), here)
except KickoffError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("mebibytes", [16, 200, 400], ids=["loading", "gradients", "optimizer"])
def test_a_real_bound_on_memory_is_out_of_memory(mebibytes: int, rows: DatasetDict, tmp_path: Path) -> None:
    """A model of 100 MiB: weights, gradients and moments need 400."""
    config = GPT2Config(
        vocab_size=400, n_positions=128, n_embd=1024, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    base.fetch(
        ModelSection(base=str(save_tiny(tmp_path / "wide", GPT2LMHeadModel(config))), max_length=64, max_new_tokens=12),
        tmp_path / "base",
    )
    rows.save_to_disk(tmp_path / "rows")
    command = [sys.executable, "-c", BOUNDED, str(tmp_path / "rows"), str(tmp_path / "base"), str(mebibytes)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert ended.returncode == Exit.MEMORY, ended.stdout + ended.stderr
    assert ended.stdout.startswith("out of memory"), ended.stdout
