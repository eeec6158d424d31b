"""Checkpoints that are damaged on the disk: passed over with a line, and the run still ends as an unbroken one."""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_points import at_once, chance, note, result
from fork_server import ForkServer

from job.errors import Exit


def truncate(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def wipe(file: Path, chance: random.Random) -> None:
    """A block of zeros, as a disk leaves where it has lost what was written."""
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    file.write_bytes(content)


def remove(file: Path, chance: random.Random) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "a bit flipped": flip,
    "zeros": wipe,
    "removed": remove,
}
FILES = ("tensors.pt", "state.json", "complete.json")


@pytest.fixture(scope="module")
def stopped(jobs: ForkServer, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints, of a run that was stopped."""
    folder = tmp_path_factory.mktemp("stopped")
    run = jobs.start(folder, "run", f"{reference}/config.yaml", f"output={folder}/run")
    run.until(lambda: (folder / "run/checkpoints/step-00000030").exists())
    run.signal(signal.SIGTERM)
    assert run.wait() == Exit.INTERRUPTED, run.text()
    return folder / "run"


def resumed(
    jobs: ForkServer, reference: Path, stopped: Path, folder: Path, damage: str, names: list[str]
) -> dict[str, Any]:
    """One point: the newest checkpoint (or both) damaged in one file, then the run goes on to its end."""
    random = chance("damage", folder.name)
    folder.mkdir()
    shutil.copytree(stopped, folder / "run")
    checkpoints = sorted((folder / "run/checkpoints").glob("step-*"), reverse=True)
    assert len(checkpoints) == 2
    for checkpoint, name in zip(checkpoints, names, strict=False):
        before = (checkpoint / name).read_bytes()
        DAMAGES[damage](checkpoint / name, random)
        if (checkpoint / name).exists() and (checkpoint / name).read_bytes() == before:
            flip(checkpoint / name, random)  # zeros where there were zeros
    (folder / "run/checkpoints/step-99999999.partial").mkdir()
    (folder / "run/checkpoints/step-of-somebody-else").mkdir()
    run = jobs.run(folder, "run", f"{reference}/config.yaml", f"output={folder}/run")
    passed = [checkpoint.name for checkpoint in checkpoints[: len(names)]]
    older = [checkpoint.name for checkpoint in checkpoints[len(names) :]]
    text = run.text()
    said = all(f"checkpoint {name} is incomplete or damaged and is skipped" in text for name in passed)
    went_on = (
        f"continuing from the checkpoint of step {int(older[0][5:])} " in text if older else "continuing" not in text
    )
    done = run.code == Exit.DONE
    return {
        "point": f"{' and '.join(names)} {damage}",
        "survived": done and said and went_on,
        "equal": done and result(folder / "run") == result(reference / "run"),
        "wrong": False,
        "said": [run.code, text[:1000]],
    }


def damage_all(
    jobs: ForkServer, reference: Path, stopped: Path, tmp_path: Path, points: list[tuple[str, list[str]]], title: str
) -> None:
    found = at_once(
        lambda point: resumed(jobs, reference, stopped, tmp_path / f"damage-{point[0]}", *point[1]),
        list(enumerate(points)),
    )
    note(title, found)
    assert not [one for one in found if not (one["survived"] and one["equal"])]


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_damaged_checkpoints(jobs: ForkServer, reference: Path, stopped: Path, tmp_path: Path) -> None:
    points = [(damage, [name]) for damage in DAMAGES for name in FILES]
    points += [("a bit flipped", ["tensors.pt"])] * 4 + [("truncated", ["tensors.pt"])] * 2
    points += [("a bit flipped", ["tensors.pt", "state.json"]), ("truncated", ["complete.json", "tensors.pt"])]
    damage_all(jobs, reference, stopped, tmp_path, points, "damaged checkpoint")


def test_a_damaged_checkpoint(jobs: ForkServer, reference: Path, stopped: Path, tmp_path: Path) -> None:
    points = [("a bit flipped", ["tensors.pt"]), ("truncated", ["state.json", "complete.json"])]
    damage_all(jobs, reference, stopped, tmp_path, points, "damaged checkpoint, sample")
