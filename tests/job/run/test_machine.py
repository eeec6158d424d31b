"""The device: what is asked for, what is there, and one clear line where they do not agree."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from torch.utils._python_dispatch import TorchDispatchMode
from training import SECTION

from job.errors import ConfigError
from job.run import machine
from job.run.machine import Machine, detect
from job.training.loop import Training

NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3.0\n"


@pytest.fixture
def unusable_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a GPU whose driver torch cannot use: here torch has no CUDA at all. Gives the driver's file."""
    (tmp_path / "nvidia0").touch()
    (tmp_path / "version").write_text(NVRM)
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(machine.torch.accelerator, "is_available", lambda: False)
    return tmp_path / "version"


@pytest.mark.parametrize("wanted", ["auto", "gpu"])
def test_a_gpu_with_too_old_a_driver_is_refused(wanted: str, unusable_gpu: Path) -> None:
    with pytest.raises(ConfigError, match=r"with driver 535\.183\.01; expected driver 580 or newer"):
        detect(wanted, "auto")
    unusable_gpu.unlink()
    with pytest.raises(ConfigError, match="a driver of unknown version"):
        detect(wanted, "auto")


def test_an_unusable_gpu_is_ignored_on_train_device_cpu(unusable_gpu: Path) -> None:
    assert detect("cpu", "fp32").device.type == "cpu"


def test_a_requested_gpu_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine.torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="expected a GPU, found none; start the container with --gpus all"):
        detect("gpu", "auto")
    assert detect("auto", "fp32").device.type == "cpu"


def test_one_process_does_all_the_work_in_order() -> None:
    assert Machine(machine.torch.device("cpu"), "fp32").distribute([3, 1, 2], lambda item: item * 2) == [6, 2, 4]


class WithoutDouble(TorchDispatchMode):
    """A device that has no float64, as an Apple GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
                )
        return found


class Apple(Machine):
    """A CPU that sums as an Apple GPU does."""

    @property
    def sum_dtype(self) -> torch.dtype:
        return Machine(torch.device("mps"), self.precision).sum_dtype


def test_a_device_without_float64_trains_and_measures(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    apple, plain = (
        Training(SECTION, 1, rows, fetched, tmp_path, kind(torch.device("cpu"), "fp32"), 16)
        for kind in (Apple, Machine)
    )
    with WithoutDouble():
        outcome, loss = apple.learner.step([0, 1, 2, 3]), apple.test_loss(lambda: False)
        with pytest.raises(TypeError, match="float64"):
            plain.learner.step([0, 1, 2, 3])
    exact = Training(SECTION, 1, rows, fetched, tmp_path, Machine(torch.device("cpu"), "fp32"), 16)
    assert outcome.summed == pytest.approx(exact.learner.step([0, 1, 2, 3]).summed, rel=1e-6)
    assert loss == pytest.approx(exact.test_loss(lambda: False), rel=1e-6)


def test_sums_are_kept_in_float64_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine(torch.device("cpu"), "fp32").sum_dtype == torch.float64
    assert Machine(torch.device("cuda", 0), "fp32").sum_dtype == torch.float64
    assert Machine(torch.device("mps"), "fp32").sum_dtype == torch.float32
    for there, expected in ((True, torch.float64), (False, torch.float32)):
        properties = type("Properties", (), {"has_fp64": there})
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device, found=properties: found)
        assert Machine(torch.device("xpu", 0), "fp32").sum_dtype == expected
