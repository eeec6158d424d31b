"""The test Hub before the real client libraries: what they send is answered as the Hub answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import HubServer
from hub_users import OWNER, READER, REPO, STRANGER, contents, count
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def run_client(server: HubServer, home: Path, code: str, token: str | None = None) -> dict[str, object]:
    """Run code that prints a JSON line in a process that finds the server the way a user's process would."""
    env = {"PATH": os.environ["PATH"], "HF_ENDPOINT": server.url, "HF_HOME": str(home)}
    env |= {"HF_HUB_DISABLE_XET": "1", **({"HF_TOKEN": token} if token else {})}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_whoami_tells_the_name_and_the_role(server: HubServer) -> None:
    answer = HfApi(endpoint=server.url, token=READER).whoami()
    assert answer["name"] == "ada"
    assert answer["auth"]["accessToken"]["role"] == "read"
    assert ("GET", "/api/whoami-v2", f"Bearer {READER}") in server.requests


def test_create_repo_once(server: HubServer, api: HfApi) -> None:
    assert api.create_repo(REPO, private=True).repo_id == REPO
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(REPO)
    assert error.value.response.status_code == 409
    assert api.repo_info(REPO).private is True
    assert len(server.commits("models", REPO)) == 1


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_folder_goes_up_in_one_commit_and_comes_down_by_sha(
    server: HubServer, api: HfApi, folder: Path, tmp_path: Path, kind: str
) -> None:
    created = api.create_repo(REPO, repo_type=kind)
    assert created.repo_type == kind
    before = server.files(f"{kind}s", REPO)
    commit = api.upload_folder(repo_id=REPO, repo_type=kind, folder_path=folder, commit_message="weights")
    newest, first = server.commits(f"{kind}s", REPO)
    assert (newest.sha, newest.parent, newest.summary) == (commit.oid, first.sha, "weights")
    assert server.files(f"{kind}s", REPO) == before | contents(folder)
    assert server.files(f"{kind}s", REPO, first.sha) == before
    assert count(server, "PUT", "/lfs/") == count(server, "POST", "objects/verify") == 1

    path = snapshot_download(
        REPO,
        repo_type=kind,
        revision=commit.oid,
        endpoint=server.url,
        token=OWNER,
        local_dir=tmp_path / "down",
    )
    down = {name: data for name, data in contents(Path(path)).items() if not name.startswith(".")}
    assert down == contents(folder)


def test_an_unchanged_folder_makes_no_commit(server: HubServer, api: HfApi, folder: Path) -> None:
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=folder)
    again = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert again.oid == first.oid
    assert len(server.commits("models", REPO)) == 2


def test_tags_and_branches(server: HubServer, api: HfApi) -> None:
    start = server.add_repo("models", REPO, {"a.txt": b"a"})
    api.create_tag(REPO, tag="v1", revision="main")
    api.create_branch(REPO, branch="runs/one", revision="v1")
    commit = api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt", revision="runs/one")
    refs = api.list_repo_refs(REPO)
    branches = {branch.name: branch.target_commit for branch in refs.branches}
    assert branches == {"main": start, "runs/one": commit.oid}
    api.create_branch(REPO, branch="gone")
    api.delete_branch(REPO, branch="gone")
    for branch, status in (("gone", 404), ("main", 403)):
        with pytest.raises(HfHubHTTPError) as refused:
            api.delete_branch(REPO, branch=branch)
        assert refused.value.response.status_code == status
    assert {branch.name for branch in api.list_repo_refs(REPO).branches} == {"main", "runs/one"}
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": start}
    for revision in ("v1", "main", start):
        assert api.repo_info(REPO, revision=revision).sha == start
    assert api.repo_info(REPO, revision="runs/one").sha == commit.oid
    assert api.list_repo_files(REPO, revision="runs/one") == ["a.txt", "b.txt"]
    assert server.files("models", REPO) == {"a.txt": b"a"}
    again: list[Callable[[], object]] = [
        lambda: api.create_tag(REPO, tag="v1"),
        lambda: api.create_branch(REPO, branch="runs/one"),
    ]
    for create in again:
        with pytest.raises(HfHubHTTPError) as error:
            create()
        assert error.value.response.status_code == 409


def test_trees_and_deletions(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {"a.txt": b"a", "d/b.txt": b"b", "d/e/c.txt": b"c", "dd.txt": b"d"})
    assert [entry.path for entry in api.list_repo_tree(REPO)] == ["a.txt", "d", "dd.txt"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "d/e")] == ["d/e/c.txt"]
    operations = [CommitOperationDelete("d/"), CommitOperationDelete("a.txt")]
    api.create_commit(REPO, operations, commit_message="less")
    assert server.files("models", REPO) == {"dd.txt": b"d"}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a.txt", REPO)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(REPO, "d"))


def test_ranges(server: HubServer) -> None:
    server.add_repo("models", REPO, {"a.txt": b"0123456789"})
    files = HfFileSystem(endpoint=server.url, token=OWNER)
    assert files.cat_file(f"{REPO}/a.txt", start=2, end=5) == b"234"
    assert files.cat_file(f"{REPO}/a.txt") == b"0123456789"
    url = f"{server.url}/{REPO}/resolve/main/a.txt"
    for wanted, got in (("2-4", b"234"), ("7-", b"789"), ("-2", b"89"), ("8-99", b"89")):
        answer = get_session().get(url, headers={"Range": f"bytes={wanted}"})
        assert (answer.status_code, answer.content) == (206, got)
    assert get_session().get(url, headers={"Range": "bytes=10-"}).status_code == 416


def test_load_dataset_by_revision_and_split(server: HubServer, api: HfApi, tmp_path: Path) -> None:
    rows = [{"text": f"row {i}", "label": i % 2} for i in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {"train.jsonl": lines, "test.jsonl": lines[: lines.index(b"\n")]}
    sha = server.add_repo("datasets", "ada/data", files)
    newer = CommitOperationAdd("train.jsonl", b'{"text": "newer", "label": 0}\n')
    api.create_commit("ada/data", [newer], commit_message="newer", repo_type="dataset")
    code = f"""
import json, datasets
train = datasets.load_dataset("ada/data", revision={sha!r}, split="train")
test = datasets.load_dataset("ada/data", revision={sha!r}, split="test")
print(json.dumps({{"train": train.to_list(), "test": test.to_list()}}))
"""
    assert run_client(server, tmp_path, code) == {"train": rows, "test": rows[:1]}


def test_transformers_load_a_private_model(server: HubServer, tmp_path: Path) -> None:
    make = """
import json, sys
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
bpe = Tokenizer(models.BPE(unk_token="<unk>"))
bpe.pre_tokenizer = pre_tokenizers.Whitespace()
bpe.train_from_iterator(["a small text"] * 3, trainers.BpeTrainer(special_tokens=["<unk>"], vocab_size=40))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>")
config = GPT2Config(n_layer=1, n_head=2, n_embd=32, n_positions=16, vocab_size=len(tokenizer))
GPT2LMHeadModel(config).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "gpt2")], check=True, capture_output=True)
    sha = server.add_repo("models", REPO, tmp_path / "gpt2", private=True)
    code = f"""
import json
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({REPO!r}, revision={sha!r})
model = AutoModelForCausalLM.from_pretrained({REPO!r}, revision={sha!r}, use_safetensors=True)
model.save_pretrained({str(tmp_path / "copy")!r})
print(json.dumps({{"ids": tokenizer("a small text")["input_ids"]}}))
"""
    ids = run_client(server, tmp_path / "home", code, READER)["ids"]
    assert isinstance(ids, list) and len(ids) == 3
    weights = "model.safetensors"
    assert (tmp_path / "copy" / weights).read_bytes() == (tmp_path / "gpt2" / weights).read_bytes()
    assert {auth for _, path, auth in server.requests if REPO in path} == {f"Bearer {READER}"}


def test_a_wrong_token(server: HubServer) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(endpoint=server.url, token="hf_wrong").whoami()
    assert error.value.response.status_code == 401


@pytest.mark.parametrize("token", [READER, STRANGER])
def test_a_token_without_the_right_to_write(server: HubServer, token: str) -> None:
    server.add_repo("models", REPO, {"a.txt": b"a"})
    api = HfApi(endpoint=server.url, token=token)
    attempts: list[Callable[[], object]] = [
        lambda: api.create_repo("ada/other"),
        lambda: api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt"),
        lambda: api.create_tag(REPO, tag="v1"),
        lambda: api.create_branch(REPO, branch="b"),
        lambda: api.auth_check(REPO, write=True),
    ]
    for attempt in attempts:
        with pytest.raises(HfHubHTTPError) as error:
            attempt()
        assert error.value.response.status_code == 403
    api.auth_check(REPO)
    HfApi(endpoint=server.url, token=OWNER).auth_check(REPO, write=True)
    assert len(server.commits("models", REPO)) == 1 and list(server.repos) == [("models", REPO)]


def test_what_is_not_there(server: HubServer, api: HfApi) -> None:
    server.add_repo("models", REPO, {"a.txt": b"a"}, private=True)
    with pytest.raises(RepositoryNotFoundError) as error:
        api.repo_info("ada/missing")
    assert error.value.response.status_code == 404
    for token, status in ((False, 401), (STRANGER, 404)):
        with pytest.raises(RepositoryNotFoundError) as error:
            HfApi(endpoint=server.url, token=token).repo_info(REPO)
        assert error.value.response.status_code == status
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(REPO, revision="missing")
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt", revision="missing")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "missing.txt", endpoint=server.url, token=OWNER)


def test_a_stale_parent(server: HubServer, api: HfApi) -> None:
    start = server.add_repo("models", REPO, {"a.txt": b"a"})
    head = api.upload_file(repo_id=REPO, path_or_fileobj=b"b", path_in_repo="b.txt", parent_commit=start)
    with pytest.raises(HfHubHTTPError) as error:
        api.upload_file(repo_id=REPO, path_or_fileobj=b"c", path_in_repo="c.txt", parent_commit=start)
    assert error.value.response.status_code == 412
    assert [commit.sha for commit in server.commits("models", REPO)] == [head.oid, start]


def test_a_commit_without_its_lfs_object_leaves_nothing(server: HubServer, api: HfApi, folder: Path) -> None:
    before = server.add_repo("models", REPO, {"a.txt": b"a"})
    weights = CommitOperationAdd("model.safetensors", str(folder / "model.safetensors"))
    api.preupload_lfs_files(REPO, [weights], free_memory=False)
    server.repos["models", REPO].objects.clear()
    with pytest.raises(BadRequestError):
        api.create_commit(REPO, [CommitOperationAdd("b.txt", b"b"), weights], commit_message="broken")
    assert [commit.sha for commit in server.commits("models", REPO)] == [before]


def test_an_lfs_object_must_have_its_digest(server: HubServer) -> None:
    server.add_repo("models", REPO, {})
    assert get_session().put(f"{server.url}/lfs/models/{REPO}/{'0' * 64}", content=b"x").status_code == 400
    assert server.repos["models", REPO].objects == {}
