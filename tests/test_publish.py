"""Publishing through the real client to the test Hub, and to a folder."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import CPU, TOKEN
from hub_server import HubServer

from job import evaluate, pipeline, publish
from job import hub as hub_client
from job.config import PublishSection
from job.errors import ConfigError, PublishError

QUESTIONS = ["What is 3 plus 3?", "What is 9 plus 9?"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A run folder as `run` leaves it, made once."""
    from conftest import ROWS

    from job.config import Config

    folder = tmp_path_factory.mktemp("finished")
    (folder / "rows.json").write_text(json.dumps(ROWS))
    config = Config.model_validate(
        {
            "dataset": {"file": str(folder / "rows.json")},
            "model": {"base": str(tiny_base), "max_length": 64, "max_new_tokens": 12},
            "train": {"epochs": 2, "learning_rate": 3e-3, "precision": "fp32"},
            "publish": {"license": "mit"},
            "output": str(folder / "run"),
        }
    )
    pipeline.run(config)
    return folder / "run"


def ask(folder: Path, questions: list[str]) -> list[str]:
    return evaluate.answer(folder, questions, CPU)


def to_hub(finished: Path, **values: object) -> dict[str, str]:
    section = PublishSection.model_validate({"repo": "ada/soccer", "timeout_seconds": 5.0, **values})
    hub_client.configure(section.timeout_seconds)
    publish.preflight(section)
    return publish.publish(section, finished / "model", QUESTIONS, ask)


def test_one_commit_with_the_whole_contract(hub: HubServer, finished: Path) -> None:
    published = to_hub(finished, tag="v1", branch="tuned")
    commits = hub.commits("models", "ada/soccer", "tuned")
    files = hub.files("models", "ada/soccer", "tuned")
    assert published["revision"] == commits[0].sha
    assert len(commits) == 2, "the empty first commit, and ours"
    assert set(publish.CONTRACT) <= set(files)
    for name in publish.CONTRACT:
        assert files[name] == (finished / "model" / name).read_bytes()
    assert hub.repos["models", "ada/soccer"].private
    assert hub.repos["models", "ada/soccer"].tags == {"v1": commits[0].sha}


def test_publishing_again_changes_nothing(hub: HubServer, finished: Path) -> None:
    first = to_hub(finished, tag="v1")
    assert to_hub(finished, tag="v1") == first
    assert len(hub.commits("models", "ada/soccer")) == 2


def test_what_lay_there_before_is_gone(hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer", {"pytorch_model.bin": b"old", "README.md": b"old"})
    to_hub(finished)
    assert "pytorch_model.bin" not in hub.files("models", "ada/soccer")


def test_a_tag_that_stands_elsewhere(hub: HubServer, finished: Path) -> None:
    old = hub.add_repo("models", "ada/soccer", {"README.md": b"old"})
    hub.repos["models", "ada/soccer"].tags["v1"] = old
    with pytest.raises(PublishError, match=f"has v1 already, on {old}"):
        to_hub(finished, tag="v1")


@pytest.mark.parametrize(
    ("token", "repo", "found"),
    [
        ("hf_wrong", "ada/soccer", "401"),
        ("hf_reader", "ada/soccer", "403"),
        ("hf_stranger", "ada/soccer", "403"),
        (None, "ada/soccer", "no HF_TOKEN"),
    ],
)
def test_a_token_that_may_not_write_is_seen_before_training(
    token: str | None, repo: str, found: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match=found) as caught:
        publish.preflight(PublishSection(repo=repo))
    assert token is None or token not in str(caught.value)


@pytest.mark.parametrize("token", ["hf_reader", "hf_stranger"])
def test_check_sees_it_too_and_makes_no_repository(token: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="may not"):
        publish.preflight(PublishSection(repo="ada/soccer"), create=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish.preflight(PublishSection(repo="ada/soccer"), create=False)
    assert hub.repos == {}


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "PUT", "path": r"^/lfs/", "status": 503, "times": 2},
        {"method": "PUT", "path": r"^/lfs/", "cut_after": 20_000},
        {"method": "POST", "path": r"/preupload/", "status": 429, "headers": {"Retry-After": "1"}},
        {"method": "POST", "path": r"/commit/", "status": 503},
        {"method": "POST", "path": r"/commit/", "lose_answer": True},
        {"method": "POST", "path": r"/commit/", "hang": True},
        {"method": "GET", "path": r"resolve.*safetensors", "cut_after": 10_000},
    ],
    ids=lambda fault: " ".join(f"{value}" for value in fault.values()),
)
def test_a_fault_on_the_way_is_overcome(fault: dict[str, object], hub: HubServer, finished: Path) -> None:
    hub.fail(**fault)  # type: ignore[arg-type]
    published = to_hub(finished, timeout_seconds=3.0)
    assert [commit.sha for commit in hub.commits("models", "ada/soccer")][0] == published["revision"]
    assert len(hub.commits("models", "ada/soccer")) == 2
    assert set(publish.CONTRACT) <= set(hub.files("models", "ada/soccer"))


def test_a_hub_that_stays_down_keeps_the_model_and_tells_the_command(
    hub: HubServer, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish.time, "sleep", lambda seconds: None)
    hub.fail("POST", r"/commit/", times=99, status=500)
    with pytest.raises(PublishError, match="python -m job publish") as caught:
        to_hub(finished)
    assert caught.value.exit_code == 5
    assert (finished / "model" / "model.safetensors").exists()
    assert TOKEN not in str(caught.value)


def test_other_answers_than_here_are_not_called_published(hub: HubServer, finished: Path) -> None:
    answers = iter([["one", "two"], ["one", "three"]])
    section = PublishSection(repo="ada/soccer")
    with pytest.raises(PublishError, match="answers 'three', expected 'two'"):
        publish.publish(section, finished / "model", QUESTIONS, lambda folder, questions: next(answers))


def test_to_a_folder_and_again(finished: Path, tmp_path: Path) -> None:
    section = PublishSection(folder=str(tmp_path / "there"))
    for _ in range(2):
        publish.preflight(section)
        assert publish.publish(section, finished / "model", QUESTIONS, ask) == {"folder": str(tmp_path / "there")}
    assert {path.name for path in (tmp_path / "there").iterdir()} == {
        path.name for path in (finished / "model").iterdir()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="no published model"):
        publish.preflight(PublishSection(folder=str(tmp_path)))


def test_an_incomplete_model_is_not_published(finished: Path, tmp_path: Path) -> None:
    model = shutil.copytree(finished / "model", tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    with pytest.raises(PublishError, match="missing: chat_template.jinja"):
        publish.publish(PublishSection(folder=str(tmp_path / "there")), model, QUESTIONS, ask)
