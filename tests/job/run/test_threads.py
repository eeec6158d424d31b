"""How torch's threads wait: set before torch is loaded, in every process that computes, and never against the user."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import ROOT
from configs import write_config

from bench.train import shared
from job.errors import Exit
from job.run import threads

ACTIVE = "30000000000"
"""What libgomp makes of OMP_WAIT_POLICY=active."""
QUIET = {"GOMP_SPINCOUNT": threads.SPINS}
BUSY = {"OMP_WAIT_POLICY": "passive"}


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
    [({}, "0"), ({"OMP_WAIT_POLICY": "active"}, ACTIVE)],
    ids=["chosen", "the user's"],
)
def test_on_a_busy_machine_threads_sleep_at_once_by_default(
    environment: dict[str, str], expected: str, tmp_path: Path, tiny_base: Path
) -> None:
    with shared.busy(os.cpu_count() or 1):
        assert spins(tmp_path, tiny_base, [], **environment) == [expected]


def test_the_launcher_chooses_for_its_workers(tmp_path: Path, tiny_base: Path) -> None:
    with shared.busy(os.cpu_count() or 1):
        found = spins(tmp_path, tiny_base, ["-m", "job.launch", "--standalone", "--nproc-per-node=2"])
    assert found.count("0") >= 1, found
    assert len(found) - found.count("0") == 1, "the launcher, which has loaded torch before and computes nothing"


def stat(processors: dict[int, tuple[int, int]]) -> str:
    """The kernel's count, as proc(5) has it: what each processor worked and was idle, in ticks."""
    lines = [f"cpu{number} {work} 0 0 {idle} 0 0 0 0 0 0" for number, (work, idle) in processors.items()]
    return "\n".join(["cpu  9 9 9 9 9 9 9 9 9 9", *lines, "intr 1 2 3", "ctxt 4"]) + "\n"


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({0: (100, 125), 1: (100, 125)}, QUIET),
        ({0: (103, 122), 1: (105, 120)}, QUIET),
        ({0: (125, 100), 1: (100, 125)}, BUSY),
        ({0: (125, 100), 1: (125, 100)}, BUSY),
        ({0: (110, 115), 1: (105, 120)}, BUSY),
        ({0: (100, 125), 1: (100, 125), 2: (125, 100)}, QUIET),
    ],
    ids=["quiet", "a third of one", "one busy", "both busy", "more than half of one", "another's processor"],
)
def test_the_work_of_others_on_the_processors_of_this_process_decides(
    later: dict[int, tuple[int, int]], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "stat"
    counted.write_text(stat({0: (100, 100), 1: (100, 100), 2: (100, 100)}))
    monkeypatch.setattr(threads, "STAT", counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(time, "sleep", lambda _: counted.write_text(stat(later)))
    monkeypatch.setattr(os, "environ", {})
    threads.configure()
    assert dict(os.environ) == expected


def test_without_statistics_the_machine_counts_as_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "STAT", tmp_path / "none")
    assert threads.other_load() == 0


def test_the_benchmark_measures_what_the_job_chooses_and_takes_the_middle() -> None:
    assert QUIET in shared.WAYS.values()
    assert BUSY in shared.WAYS.values()
    rows = shared.summary({"a": {0: [100, 90, 200], 1: [50], 3: [20]}, "b": {0: [97], 1: [65, 66, 67], 3: [40]}})
    assert rows[1]["shares"] == {0: 0.97, 1: 0.66, 3: 0.4}
    assert shared.table(rows).splitlines()[-1] == "| b | 97 (97%) | 66 (66%) | 40 (40%) |"
