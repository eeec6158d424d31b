"""Machine: describes what the numbers were measured on: processor, cores, memory, instruction sets, versions.

It does not know what is measured.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "transformers", "litserve", "uvicorn", "fastapi", "tokenizers")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "avx512_vnni")


def facts() -> dict[str, Any]:
    """Return the description for the results file."""
    flags = _cpuinfo("flags").split()
    return {
        "cpu": _cpuinfo("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "flags": {flag: flag in flags for flag in FLAGS},
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def best_dtype() -> str:
    """Return the processor's fastest dtype; emulated bfloat16 is many times slower than float32."""
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()) else "float32"


def lines(known: dict[str, Any]) -> str:
    """Format the description for the terminal."""
    present = ", ".join(flag for flag, has in known["flags"].items() if has)
    versions = ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    return (
        f"{known['cpu']}, {known['cores']} cores, {known['memory_gib']} GiB, {present}\n"
        f"{versions}, Python {known['python']}; load average at the start {known['load_average'][0]}"
    )


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    fields = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in fields if line.startswith(field)), "")
