"""Finds the devices that the engines run on. "auto" asks torch, which may be unable to use a GPU of the machine.

Its caller must stay small, so torch is asked in a process of its own, and only where there is a driver.
"""

import ctypes
import json
import logging
import os
import subprocess
import sys

log = logging.getLogger(__name__)
DRIVER = "libcuda.so.1"
ASK = """
import json, torch
usable, reason = [], ""
try:
    torch.cuda.init()
except Exception as error:
    reason = str(error)
else:
    for index in range(torch.cuda.device_count()):
        try:
            (torch.ones(1, device=f"cuda:{index}") + 1).item()
            usable.append(f"cuda:{index}")
        except Exception as error:
            reason = reason or str(error)
print(json.dumps([usable, reason]))
"""
"""Computes a sum on each GPU, since torch also counts GPUs that it has no kernels for."""
SECONDS = 120.0
"""Longest time for torch to say which GPUs it can use."""


def accelerators(device: str) -> list[str]:
    """List the devices to start engines on.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        Every GPU that torch can use, or the CPU. For "cuda" without a GPU it is cuda:0, and the engine then reports why
        it cannot use it.
    """
    if device == "cpu":
        return ["cpu"]
    return _gpus() or (["cpu"] if device == "auto" else ["cuda:0"])


def _gpus() -> list[str]:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() in ("", "-1") or not _driver():
        return []
    try:
        asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=SECONDS)  # noqa: S603
        usable, reason = json.loads(asked.stdout) if asked.returncode == 0 else ([], asked.stderr.strip())
    except (subprocess.TimeoutExpired, ValueError) as error:
        usable, reason = [], str(error)
    if reason:
        log.warning("device: torch cannot use a GPU of this machine (%s)", reason.strip().splitlines()[-1])
    return [str(gpu) for gpu in usable]


def _driver() -> bool:
    """Whether there is a driver, without which torch finds no GPU; asking torch would take seconds."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True
