"""What may be served and what is refused at the start, from a folder and from the Hub."""

import errno
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer
from huggingface_hub import HfApi
from repositories import edit, no_template

from serve.repository import Decoding, Refused, decoding, find


def test_a_whole_folder_is_found_and_its_revision_is_its_content(folder: Path, published: Path) -> None:
    found = find(str(folder), None)
    assert (found.name, found.folder) == (str(folder), folder)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found.revision)
    assert find(str(published), None).revision == found.revision
    edit(folder / "generation_config.json", max_new_tokens=13)
    assert find(str(folder), None).revision != found.revision


def no_eos(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=None)


def only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def beams(folder: Path) -> None:
    edit(folder / "generation_config.json", num_beams=4)


def broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


FAULTS = [
    (no_template, "a chat template"),
    (no_eos, "eos_token_id in generation_config.json"),
    (only_bin, "weights as .safetensors (model.safetensors), found only pytorch_model.bin"),
    (no_tokenizer, "tokenizer.json"),
    (beams, "num_beams=4"),
    (broken_json, "config.json cannot be read"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_what_is_incomplete_is_refused(fault: Callable[[Path], None], says: str, folder: Path) -> None:
    fault(folder)
    with pytest.raises(Refused, match=re.escape(says)):
        find(str(folder), None)


def test_all_that_is_missing_is_said_at_once(folder: Path) -> None:
    for fault in (no_template, no_eos, only_bin):
        fault(folder)
    with pytest.raises(Refused, match=r"template.*; .*eos.*; .*safetensors"):
        find(str(folder), None)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "only-a-name", "a/b/c"])
def test_neither_a_folder_nor_a_name_of_the_hub(name: str) -> None:
    with pytest.raises(Refused, match="no such folder, and a model on the Hub is named owner/name"):
        find(name, None)


def test_a_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(Refused, match="leave it out"):
        find(str(folder), "main")


def test_decoding_defaults_are_the_published_ones(folder: Path) -> None:
    assert decoding(folder) == Decoding(12, 0.0, 1.0, 0)
    edit(folder / "generation_config.json", do_sample=True, temperature=0.7, top_p=0.9)
    assert decoding(folder) == Decoding(12, 0.7, 0.9, 50)
    edit(folder / "generation_config.json", temperature=None, top_k=0)
    assert decoding(folder) == Decoding(12, 1.0, 0.9, 0)


@pytest.fixture
def on_hub(hub: HubServer, folder: Path) -> str:
    """The commit of ada/tiny, a whole model."""
    api = HfApi()
    api.create_repo("ada/tiny")
    commit: str = api.upload_folder(repo_id="ada/tiny", folder_path=folder).oid
    return commit


def test_from_the_hub_at_its_commit(on_hub: str, folder: Path) -> None:
    found = find("ada/tiny", None)
    assert (found.name, found.revision) == ("ada/tiny", on_hub)
    assert (found.folder / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert find("ada/tiny", on_hub) == found


def test_a_pinned_commit_is_served_from_the_cache_when_the_hub_is_down(on_hub: str, hub: HubServer) -> None:
    first = find("ada/tiny", on_hub)
    hub.fail("GET", ".*", status=503, times=1000)
    hub.fail("HEAD", ".*", status=503, times=1000)
    assert find("ada/tiny", on_hub) == first


def test_a_revision_that_is_not_there(on_hub: str) -> None:
    with pytest.raises(Refused, match="ada/tiny@v9: no such revision"):
        find("ada/tiny", "v9")


def test_a_repository_that_is_not_there(hub: HubServer) -> None:
    with pytest.raises(Refused, match="ada/nothing: not on the Hub, or private"):
        find("ada/nothing", None)


def test_a_hub_that_does_not_answer(hub: HubServer) -> None:
    hub.fail("GET", ".*", hang=True, times=1000)
    with pytest.raises(Refused, match="the Hub cannot be reached and there is no local copy"):
        find("ada/tiny", None, timeout_seconds=0.3)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "cannot be written to"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "cannot be written to"),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/x"), "cannot be written to"),
        (OSError(errno.EROFS, "Read-only file system", "/cache/x"), "cannot be written to"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "cannot be written to"),
        (PermissionError(errno.EACCES, "Permission denied"), "the Hub cannot be reached"),  # of a connection
        (OSError(), "the Hub cannot be reached and there is no local copy (OSError)"),
        (RuntimeError("\n"), "the Hub cannot be reached and there is no local copy (RuntimeError)"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_not_the_hubs_fault(
    on_hub: str, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(Refused, match=re.escape(f"ada/tiny: {says}")) as refused:
        find("ada/tiny", None)
    assert ("; make room or set HF_HOME" in str(refused.value)) == (says == "cannot be written to")


def test_a_cache_that_cannot_be_written_is_named(on_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/sys takes no folder from anybody, root neither."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/sys/kernel/hub")
    with pytest.raises(Refused, match=r"cannot be written to /sys/kernel/hub \(.*\); make room or set HF_HOME"):
        find("ada/tiny", None)


def test_weights_are_not_fetched_for_a_model_that_is_refused(hub: HubServer, folder: Path) -> None:
    no_template(folder)
    HfApi().create_repo("ada/tiny")
    HfApi().upload_folder(repo_id="ada/tiny", folder_path=folder)
    hub.requests.clear()
    with pytest.raises(Refused, match="chat template"):
        find("ada/tiny", None)
    assert not [one for one in hub.requests if "safetensors" in str(one)]
