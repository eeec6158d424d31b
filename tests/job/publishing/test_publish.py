"""Publishing through the real client to the test Hub."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_clients import TOKEN
from hub_repos import FIRST_FILES
from hub_server import HubServer
from huggingface_hub import HfApi
from publishing import QUESTIONS, ask, config_of, other_answers, preflight, publish_to_hub

from job.errors import ConfigError, PublishError
from job.hub import errors as hub_errors
from job.publishing import contract, publish
from job.publishing import hub as publishing_hub


def test_one_commit_with_the_whole_contract(hub: HubServer, finished: Path) -> None:
    published = publish_to_hub(finished, tag="v1", branch="tuned")
    commits = hub.commits("models", "ada/soccer", "tuned")
    files = hub.files("models", "ada/soccer", "tuned")
    assert published.revision == commits[0].sha
    assert len(commits) == 2, "the empty first commit, and ours"
    assert set(contract.CONTRACT) <= set(files)
    for name in contract.CONTRACT:
        assert files[name] == (finished / "model" / name).read_bytes()
    assert hub.repos["models", "ada/soccer"].private
    assert hub.repos["models", "ada/soccer"].tags == {"v1": commits[0].sha}
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main", "tuned"}, "the branch for asking is gone"


def test_a_tag_on_another_commit_prevents_publishing(hub: HubServer, finished: Path) -> None:
    old = hub.add_repo("models", "ada/soccer", {"README.md": b"old"})
    hub.repos["models", "ada/soccer"].tags["v1"] = old
    with pytest.raises(PublishError, match=f"already has the tag v1, on {old}; not published"):
        publish_to_hub(finished, tag="v1")
    assert hub.files("models", "ada/soccer") == {"README.md": b"old"}
    publish_to_hub(finished)
    with pytest.raises(ConfigError, match=f"already has the tag v1, on {old}"):
        preflight(repo="ada/soccer", tag="v1")


def test_a_tag_on_the_head_is_taken_too_while_the_model_is_still_to_be_trained(hub: HubServer, finished: Path) -> None:
    sha = publish_to_hub(finished, tag="v1").revision
    with pytest.raises(ConfigError, match=f"already has the tag v1, on {sha}"):
        preflight(repo="ada/soccer", tag="v1")
    publish_to_hub(finished, tag="v1")


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"license": "Apache 2.0"}, r"publish\.license 'Apache 2\.0' .*\"license\" must be one of \[apache-2\.0, mit"),
        ({"language": "English"}, r"publish\.language 'English': .*\"language\" must only contain ISO 639 codes"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_card_that_the_hub_does_not_take_is_seen_before_training(
    create: bool, section: dict[str, str], told: str, hub: HubServer
) -> None:
    with pytest.raises(ConfigError, match=told):
        preflight(create, repo="ada/soccer", **section)
    assert hub.repos == {}
    preflight(create, repo="ada/soccer", license="mit", language="en")
    preflight(create, repo="ada/soccer", license=None, language=None)


def test_a_card_that_the_hub_refuses_at_last_is_told_whole(hub: HubServer, finished: Path, tmp_path: Path) -> None:
    model = shutil.copytree(finished / "model", tmp_path / "run/model")
    (model / "README.md").write_text("---\nlicense: Apache 2.0\nlanguage: English\n---\n")
    with pytest.raises(PublishError) as caught:
        publish.publish(config_of(repo="ada/soccer").publish, model, QUESTIONS, ask)
    assert len(str(caught.value).splitlines()) == 1
    for words in ('"license" must be one of', '"language" must only contain', "python -m job publish"):
        assert words in str(caught.value)
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main"}


@pytest.mark.parametrize(
    ("token", "repo", "found"),
    [
        ("hf_wrong", "ada/soccer", "401"),
        ("hf_reader", "ada/soccer", "403"),
        ("hf_stranger", "ada/soccer", "403"),
        (None, "ada/soccer", "HF_TOKEN is not set"),
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
        preflight(repo=repo)
    assert token is None or token not in str(caught.value)


@pytest.mark.parametrize("token", ["hf_reader", "hf_stranger"])
def test_check_sees_it_too_and_makes_no_repository(token: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="may not"):
        preflight(create=False, repo="ada/soccer")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    preflight(create=False, repo="ada/soccer")
    assert hub.repos == {}


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "PUT", "path": r"^/lfs/", "status": 503, "times": 2},
        {"method": "PUT", "path": r"^/lfs/", "cut_after": 20_000},
        {"method": "POST", "path": r"/preupload/", "status": 429, "headers": {"Retry-After": "1"}},
        {"method": "POST", "path": r"/commit/", "status": 503},
        {"method": "POST", "path": r"/commit/main", "status": 503},
        {"method": "POST", "path": r"/commit/main", "lose_answer": True},
        {"method": "POST", "path": r"/commit/kickoff-", "lose_answer": True},
        {"method": "POST", "path": r"/branch/kickoff-", "lose_answer": True},
        {"method": "DELETE", "path": r"/branch/kickoff-", "lose_answer": True},
        {"method": "DELETE", "path": r"/branch/kickoff-", "status": 503},
        {"method": "POST", "path": r"/commit/", "lose_answer": True},
        {"method": "POST", "path": r"/commit/", "hang": True},
        {"method": "GET", "path": r"resolve.*safetensors", "cut_after": 10_000},
    ],
    ids=lambda fault: " ".join(f"{value}" for value in fault.values()),
)
def test_a_fault_on_the_way_is_overcome(fault: dict[str, object], hub: HubServer, finished: Path) -> None:
    hub.fail(**fault)  # type: ignore[arg-type]
    published = publish_to_hub(finished, timeout_seconds=3.0)
    assert [commit.sha for commit in hub.commits("models", "ada/soccer")][0] == published.revision
    assert len(hub.commits("models", "ada/soccer")) == 2
    assert set(contract.CONTRACT) <= set(hub.files("models", "ada/soccer"))
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main"}


def test_a_hub_that_stays_down_keeps_the_model_and_tells_the_command(
    hub: HubServer, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_errors.time, "sleep", lambda seconds: None)
    hub.fail("POST", r"/commit/", times=99, status=500)
    with pytest.raises(PublishError, match="python -m job publish") as caught:
        publish_to_hub(finished)
    assert caught.value.exit_code == 5
    assert (finished / "model" / "model.safetensors").exists()
    assert TOKEN not in str(caught.value)


def test_a_copy_with_other_answers_never_reaches_main(hub: HubServer, finished: Path) -> None:
    with pytest.raises(PublishError, match="answers 'three', expected 'two'"):
        publish_to_hub(finished, other_answers)
    repo = hub.repos["models", "ada/soccer"]
    assert hub.files("models", "ada/soccer") == FIRST_FILES
    assert set(repo.branches) == {"main"}


def test_main_does_not_move_during_verification(hub: HubServer, finished: Path) -> None:
    before: list[dict[str, bytes]] = []

    def look(folder: Path, questions: list[str]) -> list[str]:
        before.append(hub.files("models", "ada/soccer"))
        return ask(folder, questions)

    publish_to_hub(finished, look)
    assert before == [FIRST_FILES, FIRST_FILES]


def test_a_commit_of_somebody_else_is_not_overwritten(hub: HubServer, finished: Path) -> None:
    def meanwhile(folder: Path, questions: list[str]) -> list[str]:
        if folder.name != "model":
            api = HfApi(token=TOKEN)
            api.upload_file(path_or_fileobj=b"mine", path_in_repo="mine.txt", repo_id="ada/soccer")
        return ask(folder, questions)

    with pytest.raises(PublishError, match="somebody else has committed to ada/soccer in the meantime") as caught:
        publish_to_hub(finished, meanwhile)
    assert caught.value.exit_code == 5
    assert hub.files("models", "ada/soccer") == {**FIRST_FILES, "mine.txt": b"mine"}
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main"}


def test_a_commit_just_before_ours_is_not_overwritten(
    hub: HubServer, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look and the commit: the Hub itself has to refuse, by the parent that is named."""
    unchanged = publishing_hub._commit

    def late(api: HfApi, repo: str, branch: str, *rest: Any) -> str:
        if branch == "main":
            api.upload_file(path_or_fileobj=b"mine", path_in_repo="mine.txt", repo_id=repo)
        return unchanged(api, repo, branch, *rest)

    monkeypatch.setattr(publishing_hub, "_commit", late)
    with pytest.raises(PublishError, match="somebody else has committed"):
        publish_to_hub(finished)
    assert hub.files("models", "ada/soccer") == {**FIRST_FILES, "mine.txt": b"mine"}


def test_out_of_memory_while_asking_is_not_the_hubs(hub: HubServer, finished: Path) -> None:
    def hungry(folder: Path, questions: list[str]) -> list[str]:
        if folder.name != "model":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return ask(folder, questions)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        publish_to_hub(finished, hungry)
    assert hub.files("models", "ada/soccer") == FIRST_FILES


def test_an_incomplete_model_is_not_published(finished: Path, tmp_path: Path) -> None:
    model = shutil.copytree(finished / "model", tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    with pytest.raises(PublishError, match="it lacks chat_template.jinja"):
        publish.publish(config_of(folder=str(tmp_path / "there")).publish, model, QUESTIONS, ask)
