"""Several processes under torchrun, over gloo: the same result, one writer, one way to stop, the job's exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkout import ROOT
from configs import write_config
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from job import launch
from job.errors import Exit

TRAIN = "train: {{epochs: {epochs}, batch_size: {size}, learning_rate: 3e-3, precision: fp32, logging_steps: 1}}"


def launched(processes: int, config: Path, *overrides: str) -> subprocess.Popen[str]:
    arguments = ["--standalone", f"--nproc-per-node={processes}", "-m", "job", "run", str(config), *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "job.launch", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(processes: int, config: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and output."""
    process = launched(processes, config, *overrides)
    output, _ = process.communicate(timeout=110)
    return process.returncode, output


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / "run" / name).read_text())


def curve(folder: Path) -> list[float]:
    return [point.get("train_loss", point.get("test_loss")) for point in read(folder, "training.json")["history"]]


def worker(launcher: psutil.Process, rank: int) -> psutil.Process:
    return next(child for child in launcher.children(recursive=True) if child.environ().get("RANK") == str(rank))


def test_two_processes_search_together(still: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, still, TRAIN.format(epochs="auto", size=4))
    code, output = run(2, config, "train.learning_rate=auto", "train.search_minutes=0.2", "evaluate.gate=off")
    assert code == Exit.DONE, output
    found = read(tmp_path, "search.json")
    assert found["finished"]
    assert output.count("search: found learning rate") == 1
    assert read(tmp_path, "training.json")["steps"] == found["epochs"] * 5


def test_two_processes_with_half_the_batch_are_one(still: Path, tmp_path: Path) -> None:
    folders = []
    for processes, size in ((1, 16), (2, 8)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        code, output = run(processes, write_config(folder, still, TRAIN.format(epochs=2, size=size)))
        assert code == Exit.DONE, output
        assert output.count("rows in = ") == 1, "the data are prepared once"
        folders.append(folder)
    one, two = folders
    assert curve(one) == pytest.approx(curve(two), rel=1e-4)
    assert read(one, "training.json")["processes"] == 1
    assert read(two, "training.json")["processes"] == 2
    metrics = [read(folder, "metrics.json") for folder in folders]
    assert metrics[0]["model"]["rows"] == metrics[1]["model"]["rows"]
    intervals = [metric["base"].pop("intervals") for metric in metrics]
    kinds = [metric["base"].pop("interval_kinds") for metric in metrics]
    assert kinds[0] == kinds[1]
    assert all(metric["base"].pop("answer_seconds") > 0 for metric in metrics)
    assert metrics[0]["base"] == pytest.approx(metrics[1]["base"], rel=1e-6)
    assert intervals[0]["loss"] == pytest.approx(intervals[1]["loss"], rel=1e-6)
    assert metrics[0]["model"]["loss"] == pytest.approx(metrics[1]["model"]["loss"], rel=1e-3)
    asked = [[row["question"] for row in read(folder, "answers.json")["base"]] for folder in folders]
    assert asked[0] == asked[1]
    given = [[row["answer"] for row in read(folder, "answers.json")["base"]] for folder in folders]
    assert given[0] == given[1]


def test_a_signal_at_one_process_stops_all_and_the_next_run_goes_on(still: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, still, TRAIN.format(epochs=100, size=8))
    process = launched(2, config, "train.save_steps=1", "train.save_total_limit=1")
    deadline = time.monotonic() + 90
    while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    worker(psutil.Process(process.pid), 1).send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, output
    stopped = {line.partition("stopped at step ")[2].split()[0] for line in output.splitlines() if "stopped at" in line}
    assert len(stopped) == 1, output
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{int(stopped.pop()):08d}", output
    again = launched(2, config, "train.save_steps=1", "train.save_total_limit=1")
    deadline = time.monotonic() + 90
    seen = ""
    assert again.stdout is not None
    while "continuing from the checkpoint of step" not in seen:
        assert time.monotonic() < deadline and again.poll() is None, seen
        seen += again.stdout.readline()
    again.send_signal(signal.SIGTERM)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == Exit.INTERRUPTED, output


def test_the_launcher_ends_as_the_job_did(tmp_path: Path, tiny_base: Path) -> None:
    config = write_config(tmp_path, tiny_base)
    assert run(2, config, "train.device=gpu")[0] == Exit.CONFIG
    (tmp_path / "rows.json").unlink()
    code, output = run(2, config)
    assert code == Exit.DATA, output


@pytest.mark.parametrize(
    ("codes", "expected"), [((1, 6), 6), ((6, 1), 6), ((1, 2), 2), ((1, 1), 1), ((-9, 1), 137), ((75, 75), 75)], ids=str
)
def test_a_lost_connection_does_not_hide_the_reason(
    codes: tuple[int, int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both workers have ended within one second, which is all that torchrun tells apart."""
    failures = {rank: ProcessFailure(rank, 1000 + rank, code, "none") for rank, code in enumerate(codes)}

    def main(arguments: list[str]) -> None:
        raise ChildFailedError("job", failures)

    monkeypatch.setattr(launch, "main", main)
    assert launch.launch([]) == expected


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("interrupted,interrupted", Exit.INTERRUPTED),
        ("interrupted,full", Exit.FAILED),
        ("full,config", Exit.CONFIG),
        ("lost,interrupted", Exit.INTERRUPTED),
        ("lost,defect", Exit.FAILED),
    ],
)
def test_after_a_signal_the_launcher_ends_as_the_workers_did(ends: str, expected: Exit, tmp_path: Path) -> None:
    """torchrun tells nothing of their codes then; a full disk would pass for an interruption."""
    arguments = ["--standalone", "--nproc-per-node=2", str(ROOT / "tests/support/ending_process.py"), ends]
    process = subprocess.Popen(
        [sys.executable, "-m", "job.launch", *arguments, str(write_config(tmp_path, "x"))],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    ready: set[str] = set()
    while len(ready) < 2:
        line = process.stdout.readline()
        assert line, "it ended before it was asked to"
        ready |= {line} if line.startswith("ready") else set()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == expected, output
    assert not list(tmp_path.glob("kickoff-codes-*"))


def test_one_process_killed_stops_both_and_the_next_run_ends_as_an_unbroken_one(still: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "broken")]
    configs = []
    for folder in folders:
        folder.mkdir()
        configs.append(write_config(folder, still, TRAIN.format(epochs=8, size=8)))
    overrides = ("train.save_steps=2", "evaluate.generate_rows=0")
    assert run(2, configs[0], *overrides)[0] == Exit.DONE
    process = launched(2, configs[1], *overrides)
    deadline = time.monotonic() + 90
    while not list((folders[1] / "run" / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    ranks = [worker(psutil.Process(process.pid), rank) for rank in (0, 1)]
    ranks[1].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode not in (Exit.DONE, Exit.CONFIG, Exit.DATA), output
    assert not [rank for rank in ranks if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
    assert not (folders[1] / "run" / "model").exists()
    code, output = run(2, configs[1], *overrides)
    assert code == Exit.DONE, output
    assert "continuing from the checkpoint of step" in output
    assert curve(folders[0]) == curve(folders[1])
    weights = [(folder / "run" / "model" / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
