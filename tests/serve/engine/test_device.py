"""The device: a CPU is a CPU, and the GPUs are those that torch can use."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from system_files import tree

from serve.engine.device import accelerators


def test_a_cpu_is_a_cpu_and_auto_takes_it_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerators("cpu") == ["cpu"]
    monkeypatch.setattr("serve.engine.device.DRIVER", "libnowhere.so.1")
    assert accelerators("auto") == ["cpu"]
    assert accelerators("cuda") == ["cuda:0"]


FAKE_TORCH = """
import os
class cuda:
    @staticmethod
    def init():
        if "FAKE_OLD" in os.environ:
            raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")
    @staticmethod
    def device_count():
        return len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(","))
class ones:
    def __init__(self, count, device):
        if device == os.environ.get("FAKE_BROKEN"):
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
    def __add__(self, other):
        return self
    def item(self):
        return 2.0
"""
"""What torch says on machines with GPUs; everything else is as on a machine with the driver."""


@pytest.mark.parametrize(
    ("device", "environment", "expected", "says"),
    [
        ("auto", {}, ["cuda:0", "cuda:1"], ""),
        ("cuda", {}, ["cuda:0", "cuda:1"], ""),
        ("cpu", {}, ["cpu"], ""),
        ("auto", {"CUDA_VISIBLE_DEVICES": "1"}, ["cuda:0"], ""),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, ["cpu"], ""),
        ("auto", {"CUDA_VISIBLE_DEVICES": "-1"}, ["cpu"], ""),
        ("auto", {"FAKE_OLD": "1"}, ["cpu"], "torch cannot use a GPU of this machine (The NVIDIA driver"),
        ("auto", {"FAKE_BROKEN": "cuda:1"}, ["cuda:0"], "no kernel image is available"),
        ("cuda", {"FAKE_OLD": "1"}, ["cuda:0"], "too old"),
    ],
)
def test_the_gpus_are_those_that_torch_can_use(
    device: str, environment: dict[str, str], expected: list[str], says: str, tmp_path: Path
) -> None:
    tree(tmp_path, {"torch.py": FAKE_TORCH})
    some_library = next(Path(sys.base_prefix).glob("lib*/**/*.so*"), None) or next(
        Path("/usr/lib").glob("**/libm.so.6")
    )
    shutil.copy(some_library, tmp_path / "libcuda.so.1")
    program = """
import json, logging, sys
logging.basicConfig(stream=sys.stderr)
from serve.engine.device import accelerators
found = accelerators(sys.argv[1])
assert "torch" not in sys.modules
print(json.dumps(found))
"""
    clean = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    ended = subprocess.run(
        [sys.executable, "-c", program, device], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**clean, "PYTHONPATH": f"{tmp_path}:{ROOT}", "LD_LIBRARY_PATH": str(tmp_path), **environment},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == expected
    assert (says in ended.stderr) if says else ended.stderr == ""
