"""kill -9 around the moment at which the best weights get their place, and long after it: the same weights are kept."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from fault_points import at_once, note, result
from fork_server import ForkServer

from job.errors import Exit


def command(reference: Path, folder: Path) -> list[str]:
    """Measured amid epochs too, and a checkpoint every third step: most best weights are newer than the checkpoint."""
    own = [f"output={folder}/run", "train.test_steps=2", "train.patience=8"]
    return ["run", f"{reference}/config.yaml", *own]


@pytest.fixture(scope="module")
def whole(jobs: ForkServer, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing broke; its output says what it did with files."""
    folder = tmp_path_factory.mktemp("whole")
    run = jobs.run(folder, *command(reference, folder), dies_at_file=-1, within=str(folder))
    assert run.code == Exit.DONE, run.text()
    return folder


def renames(whole: Path, name: str = "best") -> list[int]:
    """At which touches of a file best weights get their place, or checkpoints."""
    text = (whole / next(path.name for path in whole.glob("output-*.txt"))).read_text()
    pattern = rf"^touches (\d+): os.rename .*/{name}[-\d]*.partial$"
    return [int(number) for number in re.findall(pattern, text, re.MULTILINE)]


def kill_at(jobs: ForkServer, reference: Path, whole: Path, folder: Path, number: int) -> dict[str, Any]:
    folder.mkdir()
    first = jobs.run(folder, *command(reference, folder), dies_at_file=number, within=str(folder))
    kept = sorted(path.name for path in (folder / "run/checkpoints").iterdir())
    last = jobs.run(folder, *command(reference, folder))
    done = last.code == Exit.DONE
    return {
        "point": f"file {number}",
        "survived": done and first.code == -signal.SIGKILL,
        "equal": done and result(folder / "run") == result(whole / "run"),
        "wrong": False,
        "newer": max([name[5:13] for name in kept if name.startswith("best-0")], default="")
        > max([name[5:13] for name in kept if name.startswith("step-0")], default=""),
        "left over": done and (folder / "run/checkpoints").exists(),
        "said": [last.code, last.text()[-1000:]],
    }


def kill_all(
    jobs: ForkServer, reference: Path, whole: Path, tmp_path: Path, numbers: list[int], title: str
) -> list[dict[str, Any]]:
    found = at_once(lambda number: kill_at(jobs, reference, whole, tmp_path / f"file-{number}", number), numbers)
    note(title, found)
    assert not [one for one in found if not (one["survived"] and one["equal"]) or one["left over"]]
    return found


def test_killed_just_before_and_after_the_best_weights_get_their_place(
    jobs: ForkServer, reference: Path, whole: Path, tmp_path: Path
) -> None:
    written = renames(whole)
    assert len(written) > 5
    numbers = [written[2], written[3] + 1, written[-1] + 1, renames(whole, "step")[-1]]
    found = kill_all(jobs, reference, whole, tmp_path, numbers, "kill -9 at the best weights, sample")
    assert [one for one in found if one["newer"]], "the best weights were newer than the newest checkpoint"


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_killed_at_all_best_weights(jobs: ForkServer, reference: Path, whole: Path, tmp_path: Path) -> None:
    numbers = [number + after for number in renames(whole) for after in (0, 1)]
    kill_all(jobs, reference, whole, tmp_path, numbers, "kill -9 at the best weights")
