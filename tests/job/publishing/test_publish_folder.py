"""Publishing to a folder: what is replaced, and what is left alone because it may be somebody's work."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from publishing import QUESTIONS, ask, config_of, content, other_answers, preflight

from job.config.schema import Config
from job.errors import ConfigError, PublishError
from job.publishing import contract, publish
from job.run.facts import Published


def publish_to_folder(finished: Path, folder: Path | str, answer: Any = ask, **values: object) -> Published:
    config = config_of(folder=str(folder), **values)
    publish.preflight(config, [])
    return publish.publish(config.publish, finished / "model", QUESTIONS, answer)


def test_to_a_folder_and_again(finished: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert publish_to_folder(finished, tmp_path / "there") == Published(folder=str(tmp_path / "there"))
    assert content(tmp_path / "there") == content(finished / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_answers_otherwise_does_not_take_the_place(finished: Path, tmp_path: Path) -> None:
    publish_to_folder(finished, tmp_path / "there")
    (tmp_path / "there" / "README.md").write_text("older")
    with pytest.raises(PublishError, match="answers 'three', expected 'two'"):
        publish_to_folder(finished, tmp_path / "there", other_answers)
    assert (tmp_path / "there" / "README.md").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def other_run(folder: Path, finished: Path) -> None:
    shutil.copytree(finished, folder)
    (folder / "checkpoints/step-00000100").mkdir(parents=True)
    (folder / "checkpoints/step-00000100/tensors.pt").write_text("hours of work")


def our_model_and(**files: str | None) -> Callable[[Path, Path], None]:
    def make(folder: Path, finished: Path) -> None:
        shutil.copytree(finished / "model", folder)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text) if text is not None else path.unlink()

    return make


def a_letter(folder: Path, finished: Path) -> None:
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")


def an_empty_folder_in_it(folder: Path, finished: Path) -> None:
    (folder / "of mine").mkdir(parents=True)


def only_a_config(folder: Path, finished: Path) -> None:
    folder.mkdir()
    (folder / "run.yaml").write_text("dataset: {file: rows.json}")


def nothing_but_a_view(folder: Path, finished: Path) -> None:
    (folder / "of mine").mkdir(parents=True)
    (folder / "of mine/.DS_Store").write_text("x")


def a_link_to_a_folder(folder: Path, finished: Path) -> None:
    folder.mkdir()
    (folder / "data").symlink_to(finished)


def a_link_to_a_folder_beside_our_model(folder: Path, finished: Path) -> None:
    shutil.copytree(finished / "model", folder)
    (folder / "photos").symlink_to(finished)


FOREIGN: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "another run": (other_run, "run folder of another run"),
    "a letter": (a_letter, "letter.txt"),
    "a folder": (an_empty_folder_in_it, "of mine"),
    "a config": (only_a_config, "run.yaml"),
    "a folder that was looked into": (nothing_but_a_view, "of mine"),
    "another cache": (our_model_and(**{".cache/mine": "mine"}), ".cache/mine"),
    "a link to a folder": (a_link_to_a_folder, "data"),
    "a link to a folder beside our model": (a_link_to_a_folder_beside_our_model, "photos"),
    "notes beside our model": (our_model_and(**{"notes.md": "mine"}), "notes.md"),
    "notes in a folder": (our_model_and(**{"notes/a.md": "mine"}), "notes/a.md"),
    "other weights": (our_model_and(**{"model.safetensors": "mine"}), "model.safetensors"),
    "more, no mark": (our_model_and(**{contract.MARK: None, "more/a": "mine"}), "more/a"),
    "checkpoints, no mark": (our_model_and(**{contract.MARK: None, "checkpoints/a": "mine"}), "checkpoints/a"),
    "another model, no mark": (our_model_and(**{contract.MARK: None, "metrics.json": None}), "config.json"),
}


@pytest.mark.parametrize(("make", "named"), FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_anything_else_in_it_is_left_alone(
    make: Callable[[Path, Path], None], named: str, finished: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    make(there, finished)
    before = content(there)
    with pytest.raises(ConfigError, match=named):
        preflight(folder=str(there))
    if "another run" not in named:
        with pytest.raises(PublishError, match=f"{named}.*the model is kept in .*python -m job publish .*run.yaml"):
            publish.publish(config_of(folder=str(there)).publish, finished / "model", QUESTIONS, ask)
    assert there.is_dir() and content(there) == before
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("name", ["a letter", "notes beside our model", "other weights"])
def test_replace_allows_it(name: str, finished: Path, tmp_path: Path) -> None:
    FOREIGN[name][0](tmp_path / "there", finished)
    publish_to_folder(finished, tmp_path / "there", replace=True)
    assert content(tmp_path / "there") == content(finished / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    "make",
    [
        our_model_and(**{"README.md": "an edited card"}),
        our_model_and(**{contract.MARK: None, "merges.txt": "a b"}),
        lambda folder, finished: folder.mkdir(),
        our_model_and(**{".DS_Store": "x", "Thumbs.db": "x", "desktop.ini": "x"}),
        our_model_and(**{".gitattributes": "x", ".cache/huggingface/download/a.metadata": "x"}),
        our_model_and(**{contract.MARK: None, ".gitattributes": "x"}),
    ],
    ids=["an edited card", "from before the mark", "empty", "looked into", "downloaded", "cloned, before the mark"],
)
def test_a_model_of_ours_is_replaced(make: Callable[[Path, Path], None], finished: Path, tmp_path: Path) -> None:
    make(tmp_path / "there", finished)
    publish_to_folder(finished, tmp_path / "there")
    assert content(tmp_path / "there") == content(finished / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_comes_into_the_folder_while_the_model_is_asked_is_kept(finished: Path, tmp_path: Path) -> None:
    def meanwhile(folder: Path, questions: list[str]) -> list[str]:
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / "letter.txt").write_text("dear")
        return ask(folder, questions)

    with pytest.raises(PublishError, match=r"letter\.txt.*the model is kept in .*python -m job publish .*run\.yaml"):
        publish_to_folder(finished, tmp_path / "there", meanwhile)
    assert content(tmp_path) == {"there/letter.txt": b"dear"}


def test_folders_of_like_names_are_not_touched(finished: Path, tmp_path: Path) -> None:
    for name in ("there.old", "there.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letter.txt").write_text("dear")
    for _ in range(2):
        publish_to_folder(finished, tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "there.old", "there.partial"]
    assert (tmp_path / "there.old/letter.txt").read_text() == (tmp_path / "there.partial/letter.txt").read_text()
    (tmp_path / ".there.kickoff-old").mkdir()
    (tmp_path / ".there.kickoff-old/letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="is in the way, and Kickoff did not write it"):
        preflight(folder=str(tmp_path / "there"))


def test_a_foreign_folder_beside_the_target_is_left_alone(finished: Path, tmp_path: Path) -> None:
    """Of the name that the new model would have until it has its place."""
    digest = hashlib.sha256((finished / "model" / contract.MARK).read_bytes()).hexdigest()[:12]
    aside = tmp_path / f".there.kickoff-{digest}.partial"
    aside.mkdir()
    (aside / "letter.txt").write_text("dear")
    with pytest.raises(PublishError, match="is in the way, and Kickoff did not write it"):
        publish_to_folder(finished, tmp_path / "there")
    assert content(tmp_path) == {f"{aside.name}/letter.txt": b"dear"}


def test_a_run_killed_between_the_two_renames_is_made_good(finished: Path, tmp_path: Path) -> None:
    publish_to_folder(finished, tmp_path / "there")
    (tmp_path / "there").rename(tmp_path / ".there.kickoff-old")
    with pytest.raises(PublishError, match="answers 'three'"):
        publish_to_folder(finished, tmp_path / "there", other_answers)
    assert content(tmp_path / "there") == content(finished / "model"), "the older one is back"
    publish_to_folder(finished, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_through_a_link(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "disk" / "model")
    for _ in range(2):
        publish_to_folder(finished, tmp_path / "there")
    assert (tmp_path / "there").is_symlink()
    assert content(tmp_path / "disk" / "model") == content(finished / "model")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]


def test_a_project_with_a_config_and_checkpoints_is_no_run(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("dataset: {file: rows.json}")
    (tmp_path / "checkpoints").mkdir()
    publish_to_folder(finished, tmp_path / "published")
    assert content(tmp_path / "published") == content(finished / "model")


@pytest.mark.parametrize("names", [["lock.json", "data.json"], ["lock.json", "asked.json"], ["base/base.json"]])
def test_a_folder_in_another_run(names: list[str], tmp_path: Path) -> None:
    for name in ("run.yaml", *names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="run folder of another run"):
        preflight(folder=str(tmp_path / "published"))


MEETING = ["run", "run/", "run/model", "run/published", "RUN", "link", "link/sub", "run/../run", "other/..", "data",
           "data/..", "base", "base/sub", "file", "."]  # fmt: skip


@pytest.mark.parametrize("folder", MEETING)
@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_overlaps_the_run_its_data_or_its_base_is_refused(
    folder: str, replace: bool, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    for name in ("data", "other", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "rows.json").write_text("[]")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    before = content(tmp_path)
    values = {"dataset": {"file": "data/rows.json"}, "model": {"base": "base"}, "output": "run"}
    config = Config.model_validate({**values, "publish": {"folder": folder, "replace": replace}})
    with pytest.raises(ConfigError, match=r"^publish\.folder: "):
        publish.preflight(config, [Path("data/rows.json")])
    assert content(tmp_path) == before


TOUCHES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename"}


def killed_at(number: int, call: Callable[[], object]) -> bool:
    """Whether a process that makes the call was killed just before its n-th touch of a file."""
    pid = os.fork()
    if pid == 0:
        left = number

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            left -= event in TOUCHES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3 != 0)
            if left == 0:
                os._exit(9)

        sys.addaudithook(count)
        try:
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("is_published", [False, True], ids=["first", "again"])
def test_killed_at_every_touch_of_a_file_the_next_run_publishes(
    is_published: bool, finished: Path, tmp_path: Path
) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        if is_published:
            publish_to_folder(finished, folder / "there")
        if not killed_at(number, lambda: publish_to_folder(finished, folder / "there")):  # noqa: B023
            break
        publish_to_folder(finished, folder / "there")
        assert content(folder / "there") == content(finished / "model")
        assert [path.name for path in folder.iterdir()] == ["there"], f"touch {number}"
    assert number > 10
