"""kill -9 at random times and before every touch of a file, then the same command again, until it is done.

The run is then compared with one that nothing broke: weights bit for bit, loss curve, steps, metrics and answers. What
was finished when the kill came must not have been done again.
"""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fault_points import at_once, chance, note, result
from fork_server import ForkServer, Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def command(reference: Path, folder: Path) -> list[str]:
    return ["run", f"{reference}/config.yaml", f"output={folder}/run", f"publish.folder={folder}/published"]


def finished(run: Path) -> set[str]:
    """Phases whose result is in the run folder, and which must not be done again."""
    marks = {"encode": "data.json", "base": "base", "train": "model", "evaluate": "metrics.json"}
    return {phase for phase, file in marks.items() if (run / file).exists()}


def run_again(jobs: ForkServer, reference: Path, folder: Path) -> tuple[Run, list[str]]:
    """The same command to its end, and which finished phases it began again although they were finished."""
    before = finished(folder / "run")
    run = jobs.run(folder, *command(reference, folder))
    return run, [phase for phase in before if f"begin {phase}" in run.phases() and phase != "base"]


def compare(reference: Path, folder: Path, run: Run, repeated: list[str], point: str) -> dict[str, Any]:
    done = run.code == 0
    there = folder / "published"
    model = {path.name: path.read_bytes() for path in (folder / "run/model").iterdir()} if done else {}
    return {
        "point": point,
        "survived": done,
        "equal": done and result(folder / "run") == result(reference / "run") and not repeated,
        "wrong": done and {path.name: path.read_bytes() for path in there.iterdir()} != model,
        "repeated": repeated,
        "left over": sorted(str(path.relative_to(folder)) for path in folder.rglob("*.partial")) if done else [],
        "said": [run.code, run.text()[-1000:]],
    }


def half_published(folder: Path) -> bool:
    """Whether the folder that servers read holds anything but a whole model. The tests publish there for the first
    time, so that it may be missing."""
    there = folder / "published"
    return there.exists() and not (there / "README.md").exists()


def kill_at_times(jobs: ForkServer, reference: Path, folder: Path, times: int, seconds: float) -> dict[str, Any]:
    """One case: killed `times` times, each at a random moment of what is still to do, then run to the end."""
    folder.mkdir()
    random = chance("kill", folder.name)
    wrong = False
    for _ in range(times):
        run = jobs.start(folder, *command(reference, folder))
        time.sleep(random.uniform(0, seconds))
        run.signal(signal.SIGKILL)
        run.wait()
        wrong = wrong or half_published(folder)
    last, repeated = run_again(jobs, reference, folder)
    found = compare(reference, folder, last, repeated, f"{folder.name}, {times} times")
    return found | {"wrong": found["wrong"] or wrong, "kills": times}


def seconds_of_a_run(jobs: ForkServer, reference: Path, tmp_path: Path) -> float:
    folder = tmp_path / "timed"
    folder.mkdir()
    started = time.monotonic()
    assert jobs.run(folder, *command(reference, folder)).code == 0
    return time.monotonic() - started


def kill_all(jobs: ForkServer, reference: Path, tmp_path: Path, cases: list[int], title: str) -> None:
    seconds = seconds_of_a_run(jobs, reference, tmp_path)
    found = at_once(
        lambda case: kill_at_times(jobs, reference, tmp_path / f"kill-{case[0]}", case[1], seconds),
        list(enumerate(cases)),
    )
    note(title, found, points=sum(cases))
    assert not [one for one in found if not (one["survived"] and one["equal"]) or one["wrong"] or one["left over"]]


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_killed_at_random_times(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    kill_all(jobs, reference, tmp_path, [1] * 60 + [2] * 20 + [3] * 10, "kill -9 at a random time of a run")


def test_killed_at_some_times(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    kill_all(jobs, reference, tmp_path, [1, 2], "kill -9, sample")


def kill_at_file(jobs: ForkServer, reference: Path, folder: Path, number: int) -> dict[str, Any]:
    """One case: killed just before the n-th time that the job touches a file of its run or of what it publishes."""
    folder.mkdir()
    first = jobs.run(folder, *command(reference, folder), dies_at_file=number, within=str(folder))
    wrong = half_published(folder)
    last, repeated = run_again(jobs, reference, folder)
    found = compare(reference, folder, last, repeated, f"file {number}")
    return found | {"wrong": found["wrong"] or wrong, "died": first.code == -signal.SIGKILL}


def count_files(jobs: ForkServer, reference: Path, tmp_path: Path) -> int:
    folder = tmp_path / "counted"
    folder.mkdir()
    run = jobs.run(folder, *command(reference, folder), dies_at_file=-1, within=str(folder))
    return sum(line.startswith("touches ") for line in run.text().splitlines())


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_killed_at_files(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    last = count_files(jobs, reference, tmp_path)
    numbers = sorted(chance("files").sample(range(1, last + 1), 100))
    found = at_once(lambda number: kill_at_file(jobs, reference, tmp_path / f"file-{number}", number), numbers)
    note("kill -9 just before a file is touched", found)
    assert not [one for one in found if not (one["survived"] and one["equal"]) or one["wrong"] or one["left over"]]
    assert all(one["died"] for one in found)


def curve(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "run/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars("train_loss")]


def test_tensorboard_shows_the_curve_of_an_unbroken_run(jobs: ForkServer, reference: Path, tmp_path: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        run = jobs.start(tmp_path, *command(reference, tmp_path))
        run.until(lambda: len(list((tmp_path / "run/checkpoints").glob("step-*"))) > 1)
        run.signal(number)
        run.wait()
    assert jobs.run(tmp_path, *command(reference, tmp_path)).code == 0
    history = json.loads((reference / "run/training.json").read_text())["history"]
    losses = [(point["step"], pytest.approx(point["train_loss"])) for point in history if "train_loss" in point]
    assert curve(tmp_path) == losses
