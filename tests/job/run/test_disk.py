"""The room that a run needs on disk, against what a real run takes."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from configs import MakeConfig
from hub_server import HubServer
from tiny import save_tiny
from transformers import GPT2Config, GPT2LMHeadModel

from job import check, pipeline, prepare
from job.config.schema import Config
from job.data.local_files import local_data
from job.errors import ConfigError
from job.evaluation import evaluate
from job.run import disk, durable
from job.run.disk import Need
from job.run.folder import RunFolder
from job.training.loop import Training


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 0.9M weights, which has them in bf16 on disk."""
    config = GPT2Config(
        vocab_size=400, n_positions=128, n_embd=128, n_layer=4, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return save_tiny(tmp_path_factory.mktemp("half"), GPT2LMHeadModel(config).to(torch.bfloat16))


def watch(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> dict[Path, list[int]]:
    """Note how large folders are whenever something that was written aside has got its place, the old still there."""
    seen: dict[Path, list[int]] = {folder: [0] for folder in folders}
    unchanged = durable.replace

    def noting(partial: Path, target: Path) -> None:
        for folder in folders:
            seen[folder].append(disk.size(folder))
        unchanged(partial, target)

    monkeypatch.setattr(durable, "replace", noting)
    return seen


def room_of(config: Config, scratch: Path) -> dict[str, Need]:
    """What `check` counts, in a folder of its own."""
    trial = RunFolder(config.model_copy(update={"output": str(scratch)}))
    trial.path.mkdir()
    trial.open(local_data(config.dataset, trial.finished_request()))
    prepare.prepare(trial.config, trial)
    return {room.key: room for room in disk.estimate(config, trial.path)}


@pytest.mark.parametrize(("limit", "keep"), [(1, "best"), (3, "best"), (1, "last"), (3, "last")])
def test_the_estimate_equals_what_a_run_writes(
    limit: int, keep: str, half: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step's weights are better than the last one's, so that each checkpoint has its own best weights."""
    losses = iter(range(100, 0, -1))
    monkeypatch.setattr(Training, "test_loss", lambda training, stop_requested: float(next(losses)))
    (tmp_path / "out").mkdir()
    config = make_config(
        model={"base": str(half)},
        train={"save_steps": 1, "save_total_limit": limit, "test_steps": 1, "keep": keep},
        evaluate={"gate": "off"},
        publish={"folder": str(tmp_path / "out/there")},
    )
    room = room_of(config, tmp_path / "scratch")
    seen = watch(monkeypatch, tmp_path / "run", tmp_path / "out")
    pipeline.run(config)
    pipeline.publish_only(config)  # now an older model lies there
    taken = max(seen[tmp_path / "run"])
    assert taken <= room["output"].training <= 1.02 * taken + disk._SMALL_FILES
    old = disk.size(tmp_path / "out/there")
    copies = max(seen[tmp_path / "out"])
    assert copies == 2 * old, "the new one and the old one, for a moment"
    assert copies - old <= room["publish.folder"].publishing <= copies - old + disk._SMALL_FILES
    finished = disk.size(tmp_path / "run")
    assert finished <= room["output"].publishing <= finished + 2 * disk._SMALL_FILES


def test_files_that_exist_are_not_counted_again(half: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(model={"base": str(half)})
    new = room_of(config, tmp_path / "one")["output"]
    pipeline.run(config)
    begun = room_of(config, tmp_path / "two")["output"]
    assert begun.training == 0
    assert 0 <= begun.publishing <= 2 * disk._SMALL_FILES
    shutil.rmtree(tmp_path / "run/model")
    left = disk.size(tmp_path / "run")
    begun = room_of(config, tmp_path / "three")["output"]
    assert begun.training == pytest.approx(new.training - left, abs=1000), (
        "but for lengths of paths in the data's facts"
    )


def test_a_published_model_is_downloaded_to_the_temporary_folder(
    hub: HubServer, half: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(
        model={"base": str(half)}, train={"epochs": 1}, evaluate={"gate": "off"}, publish={"repo": "ada/sums"}
    )
    counted = room_of(config, tmp_path / "scratch")["TMPDIR"]
    taken: list[int] = []
    answer = evaluate.answer

    def noting(folder: Path, *rest: Any, **more: Any) -> list[str]:
        if "kickoff-published-" in str(folder):
            assert counted.path in folder.parents
            taken.append(disk.size(folder))
        return answer(folder, *rest, **more)

    monkeypatch.setattr(evaluate, "answer", noting)
    pipeline.run(config)
    assert taken[0] <= counted.publishing <= taken[0] + disk._SMALL_FILES


def test_each_disk_is_checked_separately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    assert other.stat().st_dev != tmp_path.stat().st_dev
    asked: list[Path] = []

    def usage(place: Path) -> Usage:
        asked.append(place)
        return Usage(0, 0, 2**30 if other in (place, *place.parents) else 5 * 2**30)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    gib = 2**30
    output = Need("output", tmp_path / "runs/a", 5 * gib, gib)
    folder = Need("publish.folder", tmp_path / "there", 0, 4 * gib)
    lines = disk.require_free([output, folder, Need("TMPDIR", other, 0, gib)])
    assert lines == [
        f"5.0 GiB needed, 5.0 GiB free for output {tmp_path}/runs/a, publish.folder {tmp_path}/there",
        "1.0 GiB needed, 1.0 GiB free for TMPDIR /dev/shm",
    ]
    assert asked == [tmp_path, other]
    with pytest.raises(ConfigError) as caught:
        disk.require_free([output, Need("publish.folder", other / "there", 0, 2 * gib), Need("TMPDIR", other, 0, gib)])
    assert str(caught.value) == (
        "publish.folder and TMPDIR: found 1.0 GiB free on the disk of publish.folder /dev/shm/there, TMPDIR /dev/shm, "
        "expected 3.0 GiB; free some, or choose another publish.folder, or set the environment's TMPDIR to a folder "
        "on a larger disk"
    )
    with pytest.raises(ConfigError, match="output and publish.folder: found 5.0 GiB .* expected 6.0 GiB; .*save_total"):
        disk.require_free([output, Need("publish.folder", tmp_path, 0, 5 * gib)])


def test_check_refuses_a_run_that_does_not_fit(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 2**20))
    with pytest.raises(ConfigError, match=r"^output: found 1 MiB free on the disk of output .*/run, expected \d+ MiB"):
        check.check(make_config())
