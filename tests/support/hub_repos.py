"""The repositories of the test Hub and who may read and write them."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.body = {"error": message}
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    summary: str
    files: Mapping[str, bytes]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    lfs_limit: int
    gated: bool = False  # everybody sees it, and nobody but its owner may read its files
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def find(self, revision: str) -> Commit:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.history:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.history[sha]

    def log(self, revision: str) -> list[Commit]:
        commits = [self.find(revision)]
        while commits[-1].parent:
            commits.append(self.history[commits[-1].parent])
        return commits

    def commit(self, branch: str, files: Mapping[str, bytes], summary: str) -> Commit:
        parent = self.branches.get(branch)
        content = [(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items())]
        # the count stands for git's time: equal commits made twice have two ids
        sha = hashlib.sha1(json.dumps([len(self.history), parent, summary, content]).encode()).hexdigest()
        self.history[sha] = Commit(sha, parent, summary, dict(files))
        self.branches[branch] = sha
        return self.history[sha]

    def is_lfs(self, path: str, size: int) -> bool:
        return size >= self.lfs_limit or (size > 0 and path.endswith(".safetensors"))

    def oid(self, path: str, data: bytes) -> str:
        if self.is_lfs(path, len(data)):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def describe(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": self.oid(path, data)}
        if self.is_lfs(path, len(data)):
            pointer_size = 130  # about what the git file that stands for the object takes
            entry["lfs"] = {"oid": entry["oid"], "size": len(data), "pointerSize": pointer_size}
        return entry


def apply_operation(repo: Repo, files: dict[str, bytes], key: str, value: Mapping[str, str]) -> None:
    """Carry out one line of a commit on the files of its parent."""
    path = value["path"]
    if key == "file":
        files[path] = b64decode(value["content"])
    elif key == "lfsFile":
        if value["oid"] not in repo.objects:
            raise HubError(400, f"The LFS object of {path} is not uploaded")
        files[path] = repo.objects[value["oid"]]
    elif key in ("deletedFile", "deletedFolder"):
        folder = path.rstrip("/") + "/"
        gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(folder))]
        if not gone:
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        for old in gone:
            del files[old]
    else:
        raise HubError(400, f"Unknown operation {key}")


class HubRepos:
    """Repositories, and the users by their tokens."""

    def __init__(self, lfs_limit: int) -> None:
        self.lfs_limit = lfs_limit
        self.users: dict[str, dict[str, str]] = {}
        self.repos: dict[tuple[str, str], Repo] = {}

    def add_repo(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes] | Path | None = None,
        *,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Make a repository of kind "models" or "datasets" with one commit; return that commit's sha."""
        if isinstance(files, Path):
            root = files
            files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        files = FIRST_FILES if files is None else files
        repo = Repo(kind, name, private, self.lfs_limit, gated)
        repo.objects.update({repo.oid(path, data): data for path, data in files.items()})
        self.repos[kind, name] = repo
        return repo.commit("main", files, "initial commit").sha

    def commits(self, kind: str, name: str, revision: str = "main") -> list[Commit]:
        """The commits of a revision, newest first."""
        return self.repos[kind, name].log(revision)

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        return dict(self.repos[kind, name].find(revision).files)

    def _user(self, request: Request) -> dict[str, str] | None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ")
        if token not in self.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def _check_writer(self, request: Request, owner: str) -> None:
        user = self._user(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        if user["role"] != "write" or user["name"] != owner:
            raise HubError(403, f"You don't have the rights to write under the namespace {owner}")

    def _readable(self, request: Request) -> Repo:
        user = self._user(request)
        kind, owner = request.path_params.get("kind", "models"), request.path_params["owner"]
        repo = self.repos.get((kind, f"{owner}/{request.path_params['name']}"))
        if repo is None or (repo.private and (user is None or user["name"] != owner)):
            # The Hub does not tell a missing repository from one that is not yours.
            raise HubError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repo

    def _writable(self, request: Request) -> Repo:
        repo = self._readable(request)
        self._check_writer(request, repo.name.split("/")[0])
        return repo
