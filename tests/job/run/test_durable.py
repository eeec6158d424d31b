"""Files and folders that are there whole or not at all."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from job.run import durable


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order."""
    seen: list[str] = []
    sync, rename, replace = os.fsync, Path.rename, Path.replace

    def note_sync(handle: int) -> None:
        seen.append("sync " + Path(f"/proc/self/fd/{handle}").readlink().name)
        sync(handle)

    def note_rename(path: Path, target: Path) -> Path:
        seen.append(f"rename {path.name}")
        return rename(path, target)

    def note_replace(path: Path, target: Path) -> Path:
        seen.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(Path, "replace", note_replace)
    return seen


def test_a_file_is_synced_then_renamed_then_its_folder_synced(tmp_path: Path, order: list[str]) -> None:
    durable.write(tmp_path / "a.json", "1")
    assert order == ["sync a.json.partial", "rename a.json.partial", f"sync {tmp_path.name}"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_synced_with_all_its_files(tmp_path: Path, order: list[str]) -> None:
    for folder in (tmp_path / "new.partial" / "inner", tmp_path / "new" / "old"):
        folder.mkdir(parents=True)
    (tmp_path / "new.partial/inner/file").write_text("1")
    durable.replace(tmp_path / "new.partial", tmp_path / "new")
    assert order == ["sync inner", "sync file", "sync new.partial", "rename new.partial", f"sync {tmp_path.name}"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["inner"]


def test_the_previous_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text("before")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        durable.write(tmp_path / "a.json", "after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError("Not enough disk space. Needed: 5 GiB"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (None, False),
    ],
)
def test_a_full_disk_is_recognized_in_every_form(error: Exception | None, full: bool) -> None:
    assert durable.is_disk_full(error) is full


def test_json_has_no_nan_or_infinity() -> None:
    value = {"a": [1, 1.5, math.nan, {"b": math.inf}], "c": (-math.inf, None, True, "NaN ☃")}
    text = durable.as_json(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [1, 1.5, None, {"b": None}],
        "c": [None, None, True, "NaN ☃"],
    }
    assert "☃" in text
