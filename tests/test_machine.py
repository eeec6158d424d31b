"""The device: what is asked for, what is there, and one clear line where they do not agree."""

from pathlib import Path

import pytest

from job import machine
from job.errors import ConfigError
from job.machine import Machine, detect

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


def test_a_gpu_that_nobody_wants_is_left_alone(unusable_gpu: Path) -> None:
    assert detect("cpu", "fp32").device.type == "cpu"


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    monkeypatch.setattr(machine.torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="expected a GPU, found none; start the container with --gpus all"):
        detect("gpu", "auto")
    assert detect("auto", "fp32").device.type == "cpu"


def test_one_process_does_all_the_work_in_order() -> None:
    assert Machine(machine.torch.device("cpu"), "fp32").share([3, 1, 2], lambda item: item * 2) == [6, 2, 4]
