"""Checkpoints on disk: the newest whole one comes back, and only the newest are kept."""

from pathlib import Path

import pytest
import torch

from job.run import checkpoint
from job.run.checkpoint import WeightsFile


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, step, {"model": {"weight": torch.full((4,), float(step))}}, {"seconds": 1.5}, keep)


def test_the_newest_checkpoint_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 12)
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found[1] == {"step": 12, "seconds": 1.5}
    assert found[0]["model"]["weight"].tolist() == [12.0] * 4


def test_without_checkpoints_none_is_loaded(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "checkpoints") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no manifest", "no tensors", "unfinished"])
def test_a_damaged_checkpoint_is_skipped_and_logged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 5)
    newest = save(tmp_path, 6)
    tensors = newest / "tensors.pt"
    content = bytearray(tensors.read_bytes())
    if damage == "truncated":
        tensors.write_bytes(content[:-10])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    elif damage == "no manifest":
        (newest / checkpoint.MANIFEST).unlink()
    elif damage == "no tensors":
        tensors.unlink()
    else:
        newest.rename(newest.with_suffix(".partial"))
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 5
    assert ("step-00000006 is incomplete or damaged" in caplog.text) == (damage != "unfinished")


def test_damaged_checkpoints_do_not_replace_a_good_one(tmp_path: Path) -> None:
    save(tmp_path, 5)
    for step in (6, 7):
        (save(tmp_path, step) / "tensors.pt").write_bytes(b"damaged")
    save(tmp_path, 8)
    (tmp_path / "step-00000008" / "state.json").unlink()
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000008"]


def test_a_write_that_fails_leaves_the_older_ones_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5)

    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.durable, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def save_best(folder: Path, step: int, before: WeightsFile | None = None) -> WeightsFile:
    return checkpoint.save_best(folder, step, {"weight": torch.full((4,), float(step))}, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name[:13] for path in folder.iterdir())


def test_best_weights_stay_as_long_as_a_checkpoint_lists_them(tmp_path: Path) -> None:
    best = save_best(tmp_path, 4)
    checkpoint.save(tmp_path, 5, {}, {}, 2, best)
    best = save_best(tmp_path, 8, best)
    assert names(tmp_path) == ["best-00000004", "best-00000008", "step-00000005"]
    best = save_best(tmp_path, 9, best)
    assert names(tmp_path) == ["best-00000004", "best-00000009", "step-00000005"]
    checkpoint.save(tmp_path, 10, {}, {}, 1, best)
    assert names(tmp_path) == ["best-00000009", "step-00000010"]
    found = checkpoint.load_best(tmp_path, best)
    assert found is not None
    assert found["weight"].tolist() == [9.0] * 4


@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_a_checkpoint_whose_best_weights_are_damaged_is_not_complete(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 3, {}, {}, 2)
    best = save_best(tmp_path, 4)
    newest = checkpoint.save(tmp_path, 5, {"model": {}}, {}, 2, best)
    file = tmp_path / best.name
    file.write_bytes(file.read_bytes()[::-1]) if damage == "flipped" else file.unlink()
    found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 3
    assert checkpoint.load_best(tmp_path, best) is None
    assert checkpoint.load_weights(newest) == {}, "its own weights are whole"


def test_best_weights_that_cannot_be_written_leave_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = save_best(tmp_path, 4)

    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.durable, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        save_best(tmp_path, 6, best)
    assert [path.name for path in tmp_path.iterdir()] == [best.name]


def test_unfinished_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "best.partial").write_bytes(b"half")
    (tmp_path / "step-00000003.partial").mkdir()
    save_best(tmp_path, 4)
    assert names(tmp_path) == ["best-00000004"]
    (tmp_path / "best.partial").write_bytes(b"half")
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-00000005"]
