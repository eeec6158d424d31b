"""Publishing to a repository that holds something: ours is replaced, somebody's is left alone."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hub_clients import TOKEN
from hub_repos import FIRST_FILES
from hub_server import HubServer
from huggingface_hub import HfApi
from publishing import QUESTIONS, ask, config_of, content, preflight, publish_to_hub

from job.errors import ConfigError, PublishError
from job.publishing import contract, publish


def test_publishing_again_changes_nothing(hub: HubServer, finished: Path) -> None:
    first = publish_to_hub(finished, tag="v1")
    assert publish_to_hub(finished, tag="v1") == first
    assert len(hub.commits("models", "ada/soccer")) == 2


def test_with_replace_what_lay_there_before_is_gone(hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer", {"pytorch_model.bin": b"old", "README.md": b"old"})
    publish_to_hub(finished, replace=True)
    assert "pytorch_model.bin" not in hub.files("models", "ada/soccer")
    assert len(hub.commits("models", "ada/soccer")) == 2


SOMEBODYS = {
    "weights of another format": {"pytorch_model.bin": b"weights", "config.json": b"{}"},
    "another model": {"model.safetensors": b"weights", "config.json": b"{}", "README.md": b"# Mine"},
    "a quantized copy": {"model.Q4.gguf": b"weights"},
    "a data file": {"README.md": b"# Mine", "data/rows.jsonl": b"{}"},
}


@pytest.mark.parametrize("files", SOMEBODYS.values(), ids=SOMEBODYS)
def test_a_repository_of_somebody_is_not_emptied(files: dict[str, bytes], hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer", files)
    with pytest.raises(ConfigError, match="which it did not write; .*publish.replace to true"):
        preflight(repo="ada/soccer")
    with pytest.raises(PublishError, match="which it did not write.*python -m job publish .*run.yaml"):
        publish.publish(config_of(repo="ada/soccer").publish, finished / "model", QUESTIONS, ask)
    assert hub.files("models", "ada/soccer") == files
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main"}


def test_a_new_repository_of_the_hubs_page_is_published_to(hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer", {**FIRST_FILES, "README.md": b"---\nlicense: mit\n---\n"})
    publish_to_hub(finished)
    assert "model.safetensors" in hub.files("models", "ada/soccer")


def published_before(hub: HubServer, finished: Path, **more: bytes | None) -> dict[str, bytes]:
    """A repository of ours with some files changed, added or removed since."""
    files = {name: data for name, data in {**content(finished / "model"), **more}.items() if data is not None}
    hub.add_repo("models", "ada/soccer", files)
    return files


def test_an_older_model_of_ours_is_replaced_also_with_another_card(hub: HubServer, finished: Path) -> None:
    published_before(hub, finished, **{"README.md": b"# Edited"})
    publish_to_hub(finished)
    assert hub.files("models", "ada/soccer") == content(finished / "model")


def test_a_model_from_before_the_mark_is_replaced(hub: HubServer, finished: Path) -> None:
    published_before(hub, finished, **{contract.MARK: None, "README.md": b"# Old", "merges.txt": b"a b"})
    publish_to_hub(finished)
    assert hub.files("models", "ada/soccer") == content(finished / "model")


@pytest.mark.parametrize(
    "more",
    [
        {"notes.txt": b"mine"},
        {"model.safetensors": b"somebody's own weights"},
        {contract.MARK: None, "notes.txt": b"mine"},
        {contract.MARK: b"{}", "notes.txt": b"mine"},
        {contract.MARK: b"no mark", "notes.txt": b"mine"},
    ],
    ids=str,
)
def test_what_was_put_beside_a_model_of_ours_is_kept(more: dict[str, Any], hub: HubServer, finished: Path) -> None:
    files = published_before(hub, finished, **more)
    with pytest.raises(ConfigError, match=next(name for name, data in reversed(more.items()) if data)):
        preflight(repo="ada/soccer")
    assert hub.files("models", "ada/soccer") == files


def test_a_new_branch_beside_somebodys_main(hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer", SOMEBODYS["another model"])
    publish_to_hub(finished, branch="tuned")
    assert hub.files("models", "ada/soccer") == SOMEBODYS["another model"]
    assert hub.files("models", "ada/soccer", "tuned") == content(finished / "model")
    api = HfApi(token=TOKEN)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="mine.txt", repo_id="ada/soccer", revision="tuned")
    with pytest.raises(ConfigError, match="ada/soccer@tuned holds mine.txt"):
        publish_to_hub(finished, branch="tuned")


def test_a_branch_that_a_killed_run_left_is_used_and_removed(hub: HubServer, finished: Path) -> None:
    hub.add_repo("models", "ada/soccer")
    digest = hashlib.sha256((finished / "model" / contract.MARK).read_bytes()).hexdigest()[:12]
    api = HfApi(token=TOKEN)
    api.create_branch("ada/soccer", branch=f"kickoff-{digest}")
    api.upload_file(
        path_or_fileobj=b"half", path_in_repo="half.bin", repo_id="ada/soccer", revision=f"kickoff-{digest}"
    )
    publish_to_hub(finished)
    assert hub.files("models", "ada/soccer").keys() - FIRST_FILES.keys() == content(finished / "model").keys()
    assert set(hub.repos["models", "ada/soccer"].branches) == {"main"}
