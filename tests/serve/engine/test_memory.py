"""Processors, memory and devices as the engine sees them, and what loading a model takes of them."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from checkout import ROOT
from served import Served
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from serve.engine import cgroup, model, promises, threads
from serve.engine.device import accelerators
from serve.engine.engine import Engine
from serve.engine.memory import free_memory
from serve.engine.model import load

NO_LIMIT_V1 = str(0x7FFFFFFFFFFFF000)
GIB = 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    """A machine's files, under `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2_CONTAINER = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
}
V2_NESTED = {
    "proc/self/cgroup": "0::/pods/one\n",
    "sys/fs/cgroup/pods/cpu.max": "100000 100000\n",
    "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
    "sys/fs/cgroup/pods/memory.max": f"{8 * GIB}\n",
    "sys/fs/cgroup/pods/memory.current": f"{6 * GIB}\n",
    "sys/fs/cgroup/pods/one/memory.max": "max\n",
    "sys/fs/cgroup/pods/one/memory.high": f"{4 * GIB}\n",
    "sys/fs/cgroup/pods/one/memory.current": f"{1 * GIB}\n",
}
V1_CONTAINER = {
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:pids:/docker/abc\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 2}\n",
}
V1_NESTED = {
    "proc/self/cgroup": "5:cpu:/slice\n4:memory:/slice\n0::/\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/slice/cpu.cfs_quota_us": "300000\n",
    "sys/fs/cgroup/cpu/slice/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
    "sys/fs/cgroup/memory/slice/memory.limit_in_bytes": f"{6 * GIB}\n",
    "sys/fs/cgroup/memory/slice/memory.usage_in_bytes": f"{1 * GIB}\n",
}
NO_LIMITS = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
    "sys/fs/cgroup/memory.max": "max\n",
    "sys/fs/cgroup/memory.current": "5\n",
}


@pytest.mark.parametrize(
    ("files", "processors", "free"),
    [
        (V2_CONTAINER, 1.5, 3 * GIB),
        (V2_NESTED, 1.0, 2 * GIB),
        (V1_CONTAINER, 0.5, 3 * GIB // 2),
        (V1_NESTED, 3.0, 5 * GIB),
        (NO_LIMITS, None, None),
        ({}, None, None),
    ],
    ids=["v2 in a container", "v2 nested", "v1 in a container", "v1 nested", "no limits", "macOS"],
)
def test_what_the_container_allows(
    files: dict[str, str], processors: float | None, free: int | None, tmp_path: Path
) -> None:
    root = tree(tmp_path, files)
    assert cgroup.processors(root) == processors
    assert cgroup.free_memory(root) == free


def test_free_memory_is_the_less_of_the_machines_and_the_containers(tmp_path: Path) -> None:
    root = tree(tmp_path, {**V2_CONTAINER, "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1024 kB\n"})
    assert free_memory("cpu", root) == 2**20
    tree(root, {"proc/meminfo": f"MemAvailable: {64 * 2**20} kB\n"})
    assert free_memory("cpu", root) == 3 * GIB


def test_a_machine_that_does_not_say_has_half_of_its_memory(tmp_path: Path) -> None:
    assert free_memory("cpu", tmp_path) == psutil.virtual_memory().total // 2


def test_this_machine_says() -> None:
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        ("3", V1_CONTAINER, 3),
        ("5,2", {}, 5),
        (" 4 ", {}, 4),
        (None, V1_CONTAINER, 1),
        ("0", V1_CONTAINER, 1),
        ("many", V1_CONTAINER, 1),
        (None, {}, len(os.sched_getaffinity(0))),
        (None, V1_NESTED, min(3, len(os.sched_getaffinity(0)))),
    ],
)
def test_threads(
    told: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.count(tree(tmp_path, files)) == expected


def python(program: str, *arguments: str, **environment: str) -> str:
    """What the program prints last, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip().splitlines()[-1]


def test_a_process_computes_with_as_many_threads_as_it_is_told(never_ending: Path) -> None:
    program = """
import sys, torch
from pathlib import Path
from serve.engine.model import load
load(Path(sys.argv[1]), "cpu", "auto")
print(torch.get_num_threads())
"""
    assert python(program, str(never_ending), OMP_NUM_THREADS="1") == "1"
    assert python(program, str(never_ending), OMP_NUM_THREADS="3") == "3"


LOADING = """
import sys
from pathlib import Path
import transformers.models.llama.modeling_llama
from serve.engine.model import load

def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1])

before = peak()
loaded = load(Path(sys.argv[1]), "cpu", "float32", threads=1)
assert sum(type(module).__name__ == "_PackedLinear" for module in loaded.modules()) == 57
print(peak() - before)
"""


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_packing_takes_no_more_memory_than_the_model(stored: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400, max_position_embeddings=128, hidden_size=768, intermediate_size=3072, num_hidden_layers=8,
            num_attention_heads=12, num_key_value_heads=12, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    size = 4 * sum(parameter.numel() for parameter in made.parameters())
    made.to(stored).save_pretrained(tmp_path)
    # a file in another format is mapped beside the model that is made of it, before any layer is packed
    mapped = 0 if stored == torch.float32 else size // 2
    compared = (
        48 * 2**20
    )  # activations and caches of the prompts that are compared with generate's; no share of the size
    assert size > 250 * 2**20
    assert int(python(LOADING, str(tmp_path))) < 1.2 * size + mapped + compared


def test_a_model_whose_packed_weights_differ_is_served_with_plain_ones(
    never_ending: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model, "TOLERANCE", 0.0)
    with caplog.at_level(logging.WARNING):
        loaded = load(never_ending, "cpu", "auto", threads=1)
    assert "packed weights cannot be used for this model (its logits differ by" in caplog.text
    plain = AutoModelForCausalLM.from_pretrained(never_ending, dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    assert torch.allclose(loaded(ids).logits, plain(ids).logits, atol=1e-5)
    assert not any(type(module).__name__ == "_PackedLinear" for module in loaded.modules())


def test_tied_weights_are_still_there_after_packing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4000, max_position_embeddings=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    made.save_pretrained(tmp_path)
    ids = torch.arange(5, 25)[None]
    assert torch.allclose(load(tmp_path, "cpu", "float32", threads=1)(ids).logits, made(ids).logits, atol=1e-5)


def test_a_context_smaller_than_promised_is_said_with_its_reason(never_ending: Path) -> None:
    loaded = load(never_ending, "cpu", "auto", threads=1)
    loaded.generation_config = GenerationConfig(eos_token_id=0, max_new_tokens=300)
    whole = Engine(loaded).limits
    assert whole.context == 4096
    assert promises.unmet_promises(loaded, whole) == []
    small = Engine(loaded, cache_bytes=2**21).limits
    lines = promises.unmet_promises(loaded, small)
    assert len(lines) == 2
    assert lines[0].startswith(f"context: {small.context} tokens for question and answer together")
    assert "config.json promises 4096; memory for keys and values has no room for more: see --cache-bytes" in lines[0]
    assert "generation_config.json promises up to 300 tokens" in lines[1]


def test_the_server_logs_a_context_smaller_than_promised(never_ending: Path) -> None:
    with Served(never_ending, "--cache-bytes", str(2**21)) as server:
        pass
    assert "engine: context: " in (said := server.output())
    assert "config.json promises 4096" in said


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
        ("auto", {"FAKE_OLD": "1"}, ["cpu"], "torch cannot use a GPU that is here (The NVIDIA driver"),
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
