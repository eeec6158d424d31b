"""How torch's threads wait: set before torch is loaded, in every process that computes, and never against the user."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_main import ROOT, write_config

from bench import shared
from job.errors import Exit
from job.run import waiting


def spins(folder: Path, base: Path, launcher: list[str], **environment: str) -> list[str]:
    """What OpenMP says it has read, in each process that has loaded torch; none of them computes anything."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    inherited = {key: value for key, value in os.environ.items() if key not in unset}
    command = [sys.executable, *launcher, "-m", "job", "run", str(write_config(folder, base)), "train.device=gpu"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "VERBOSE", **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == Exit.CONFIG, ended.stderr
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", ended.stderr)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, waiting.SPINS), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
    ids=["chosen", "the user's count", "the user's policy"],
)
def test_openmp_reads_it_when_torch_is_loaded(
    environment: dict[str, str], expected: str, tmp_path: Path, tiny_base: Path
) -> None:
    assert spins(tmp_path, tiny_base, [], **environment) == [expected]


def test_the_workers_of_the_launcher_have_it(tmp_path: Path, tiny_base: Path) -> None:
    found = spins(tmp_path, tiny_base, ["-m", "job.launch", "--standalone", "--nproc-per-node=2"])
    assert found.count(waiting.SPINS) >= 1, found
    assert len(found) - found.count(waiting.SPINS) == 1, "the launcher, which computes nothing"


def test_the_benchmark_measures_what_the_job_chooses_and_takes_the_middle() -> None:
    assert {"GOMP_SPINCOUNT": waiting.SPINS} in shared.WAYS.values()
    rows = shared.summary({"a": {0: [100, 90, 200], 1: [50], 3: [20]}, "b": {0: [97], 1: [65, 66, 67], 3: [40]}})
    assert rows[1]["shares"] == {0: 0.97, 1: 0.66, 3: 0.4}
    assert shared.table(rows).splitlines()[-1] == "| b | 97 (97%) | 66 (66%) | 40 (40%) |"
