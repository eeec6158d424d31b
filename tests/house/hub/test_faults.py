"""The test Hub before the real client libraries: each fault looks real."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from hub_server import HubServer
from hub_users import COMMIT, OWNER, PUT, REPO, contents, count, set_timeout
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError


def test_503_twice_on_an_upload_is_overcome(server: HubServer, api: HfApi, folder: Path) -> None:
    server.add_repo("models", REPO, {})
    server.fail("PUT", PUT, times=2)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert server.files("models", REPO) == contents(folder)
    assert count(server, "PUT", "/lfs/") == 3


def test_429_is_waited_for(server: HubServer, api: HfApi, folder: Path) -> None:
    server.add_repo("models", REPO, {})
    server.fail("PUT", PUT, status=429, headers={"Retry-After": "2"})
    start = time.monotonic()
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert time.monotonic() - start > 2.9  # a first retry without Retry-After comes after 1 s
    assert count(server, "PUT", "/lfs/") == 2


def test_skip_and_clear(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {})
    server.fail("GET", r"/refs$", skip=1, times=2, status=500)
    api.list_repo_refs(REPO)
    with pytest.raises(HfHubHTTPError) as error:
        api.list_repo_refs(REPO)
    assert error.value.response.status_code == 500
    server.clear_faults()
    api.list_repo_refs(REPO)


def test_a_commit_that_is_never_answered(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {})
    server.fail("POST", COMMIT, hang=True)
    set_timeout(1)
    with pytest.raises(httpx2.ReadTimeout):
        api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt")
    assert len(server.commits("models", REPO)) == 1
    api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt")
    assert server.files("models", REPO) == {"b.txt": b"b"}


def test_a_look_up_that_is_never_answered(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {"a.txt": b"a"})
    server.fail("GET", f"^/api/models/{REPO}", hang=True, times=2)
    set_timeout(0.5)
    with pytest.raises(httpx2.ReadTimeout):
        api.repo_info(REPO)
    with pytest.raises(LocalEntryNotFoundError) as error:
        snapshot_download(REPO, endpoint=server.url, token=OWNER)
    assert isinstance(error.value.__cause__, httpx2.ReadTimeout)


def test_a_hanging_request_does_not_hold_up_the_others_or_the_end(server: HubServer, api: HfApi) -> None:
    server.fail("GET", "whoami", hang=True)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(api.whoami)
        while count(server, "GET", "whoami") == 0:
            time.sleep(0.01)
        assert api.whoami()["name"] == "ada"
        assert not waiting.done()
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 1
        with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
            waiting.result()


def test_an_upload_cut_half_way_is_overcome(server: HubServer, api: HfApi, folder: Path) -> None:
    server.add_repo("models", REPO, {})
    server.fail("PUT", PUT, cut_after=1_000_000)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert server.files("models", REPO) == contents(folder)
    assert count(server, "PUT", "/lfs/") == 2


def test_a_commit_cut_half_way_is_not_there(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {})
    server.fail("POST", COMMIT, cut_after=10)
    with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
        api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt")
    assert server.files("models", REPO) == {}


def test_a_download_cut_half_way_is_overcome(server: HubServer, api: HfApi, folder: Path) -> None:
    server.add_repo("models", REPO, folder)
    server.fail("GET", "/resolve/", cut_after=1_000_000)
    path = hf_hub_download(REPO, "model.safetensors", endpoint=server.url, token=OWNER)
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()
    assert count(server, "GET", "/resolve/") == 2


def test_a_commit_whose_answer_is_lost_is_there_once(server: HubServer, api: HfApi, folder: Path) -> None:
    before = server.add_repo("models", REPO, {})
    server.fail("POST", COMMIT, lose_answer=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert [commit.parent for commit in server.commits("models", REPO)] == [before, None]
    assert server.files("models", REPO) == contents(folder)
    again = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert [commit.sha for commit in server.commits("models", REPO)] == [again.oid, before]
