"""Which devices the engines run on. "auto" is for torch to say, since a GPU that is there may be none it can use.

It is asked by processes that must stay small, so torch is asked in a process of its own, and only where there is a
driver.
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
"""A sum on each GPU: torch counts those too that it has no code for."""
SECONDS = 120.0


def accelerators(device: str) -> list[str]:
    """The devices that `device` ("auto", "cpu" or "cuda") stands for: every GPU that torch can use, or the CPU.

    "cuda" where there is none is cuda:0 all the same, and the engine says why that cannot be.
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
        log.warning("device: torch cannot use a GPU that is here (%s)", reason.strip().splitlines()[-1])
    return [str(gpu) for gpu in usable]


def _driver() -> bool:
    """Without it torch finds no GPU; and without the seconds that asking torch takes."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True
