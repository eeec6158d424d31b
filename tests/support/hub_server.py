"""A Hugging Face Hub in memory, for tests of code that uses the real client libraries over HTTP.

It speaks what huggingface_hub 2.4 sends for models and datasets: whoami, auth-check, create_repo, repository
info, file trees, refs, branches (made and deleted), tags, preupload, the LFS round (batch, PUT, verify), commits
and downloads (HEAD and GET, with ranges). Answers carry the headers and X-Error-Code values that choose the client's
exceptions. Each file from `lfs_limit` bytes on and each *.safetensors file is an LFS file.

It does not speak xet (the client needs HF_HUB_DISABLE_XET=1), multipart LFS, pagination, pull requests,
spaces, organizations, requests for access to gated repositories, or deletion of repositories and tags, and it serves
LFS files without the Hub's redirect to another host. `HubServer.fail` makes chosen requests go wrong as networks do.
"""

import asyncio
import hashlib
import json
import re
import socket
import threading
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import uvicorn
from huggingface_hub import ModelCard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other", "unknown")
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


@dataclass
class Fault:
    """Spoils the next `times` requests of this method ("*": any) and path, after letting `skip` of them pass.

    Without further options the answer is `status` with `headers`. `hang`: no answer until the server stops.
    `cut_after`: the connection drops after that many bytes of the body, of the request for PUT and POST, of
    the answer otherwise. `reset`: the connection drops at once. `lose_answer`: the request takes effect, and then
    the connection drops.
    """

    method: str
    path: str  # a regular expression
    times: int = 1
    skip: int = 0
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    cut_after: int | None = None
    reset: bool = False
    lose_answer: bool = False


class Protocol(H11Protocol):
    """Hands each request the connection it came on, so that a fault can drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class HubServer:
    def __init__(self, lfs_limit: int = 50_000) -> None:
        self.lfs_limit = lfs_limit
        self.users: dict[str, dict[str, str]] = {}
        self.delay = 0.0  # seconds before each answer
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self._faults: list[Fault] = []
        self._hanging: list[tuple[asyncio.AbstractEventLoop, asyncio.Transport]] = []
        self._app = Starlette(routes=self._routes(), exception_handlers={HubError: answer_error})
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._entry,
            interface="asgi3",
            http=Protocol,
            lifespan="off",
            log_level="error",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()  # the socket listens already: a request sent too early waits for its answer
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        while self._hanging:
            loop, transport = self._hanging.pop()
            loop.call_soon_threadsafe(transport.abort)
        self._server.should_exit = True
        self._thread.join()

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

    def fail(self, method: str, path: str, **options: Any) -> None:
        """Let requests go wrong; the options are those of Fault."""
        self._faults.append(Fault(method, path, **options))

    def clear_faults(self) -> None:
        self._faults.clear()

    async def _entry(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The undecoded path: a revision or folder may hold an encoded slash, which must not split a segment.
        scope["path"] = scope["raw_path"].decode()
        authorization = Request(scope).headers.get("authorization")
        self.requests.append((scope["method"], scope["path"], authorization))
        await asyncio.sleep(self.delay)
        fault = self._next_fault(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await self._spoil(fault, scope, receive, send)

    def _next_fault(self, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.times == 0 or fault.method not in (method, "*") or not re.search(fault.path, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            return fault
        return None

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["transport"]
        if fault.hang:
            self._hanging.append((asyncio.get_running_loop(), transport))
        elif fault.reset:
            transport.abort()
        elif fault.cut_after is not None and scope["method"] in ("PUT", "POST"):
            await read_some(receive, fault.cut_after)
            transport.abort()
        elif fault.cut_after is not None:
            await cut_answer(self._app, scope, receive, send, fault.cut_after)
            transport.close()
        elif fault.lose_answer:
            await self._app(scope, receive, swallow)
            transport.close()
        else:
            await Request(scope, receive).body()  # an answer before the end of the body would look like a cut
            await Response(status_code=fault.status, headers=fault.headers)(scope, receive, send)
            return
        while (await receive())["type"] != "http.disconnect":
            pass

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

    def _routes(self) -> list[Route]:
        repo, api, post = "/{owner}/{name}", "/api/{kind}/{owner}/{name}", ["POST"]
        routes = [
            Route("/api/whoami-v2", self._whoami),
            Route("/api/repos/create", self._create_repo, methods=post),
            Route("/api/validate-yaml", self._validate_yaml, methods=post),
            Route("/lfs/{kind}/{owner}/{name}/{oid}", self._put_object, methods=["PUT"]),
            Route(api, self._info),
            Route(api + "/revision/{rev}", self._info),
            Route(api + "/refs", self._refs),
            Route(api + "/tree/{rev}", self._tree),
            Route(api + "/tree/{rev}/{path}", self._tree),
            Route(api + "/auth-check", self._auth_check),
            Route(api + "/auth-check/write", self._auth_check),
            Route(api + "/tag/{rev}", self._create_tag, methods=post),
            Route(api + "/branch/{rev}", self._create_branch, methods=post),
            Route(api + "/branch/{rev}", self._delete_branch, methods=["DELETE"]),
            Route(api + "/preupload/{rev}", self._preupload, methods=post),
            Route(api + "/commit/{rev}", self._commit, methods=post),
        ]
        for prefix in ("", "/{kind}"):  # models have none
            git = prefix + repo + ".git/info/lfs/objects"
            routes.append(Route(prefix + repo + "/resolve/{rev}/{path:path}", self._resolve))
            routes.append(Route(git + "/batch", self._lfs_batch, methods=post))
            routes.append(Route(git + "/verify", self._lfs_verify, methods=post))
        return routes

    def _page(self, repo: Repo) -> str:
        return f"{self.url}/{repo.name}" if repo.kind == "models" else f"{self.url}/{repo.kind}/{repo.name}"

    async def _whoami(self, request: Request) -> Response:
        user = self._user(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        access = {"displayName": "token", "role": user["role"]}
        auth = {"type": "access_token", "accessToken": access}
        return JSONResponse({"name": user["name"], "type": "user", "orgs": [], "auth": auth})

    async def _create_repo(self, request: Request) -> Response:
        wanted = await request.json()
        owner = wanted.get("organization") or (self._user(request) or {}).get("name", "")
        self._check_writer(request, owner)
        kind, name = wanted.get("type", "model") + "s", f"{owner}/{wanted['name']}"
        exists = (kind, name) in self.repos
        if not exists:
            self.add_repo(kind, name, private=wanted.get("visibility") == "private")
        answer = {"url": self._page(self.repos[kind, name])}
        if exists:
            answer["error"] = "You already created this repo"
        return JSONResponse(answer, 409 if exists else 200)

    async def _validate_yaml(self, request: Request) -> Response:
        data = ModelCard((await request.json())["content"]).data
        wrong = []
        if data.license not in (None, *LICENSES):
            wrong.append(f'"license" must be one of [{", ".join(LICENSES)}]')
        if data.language is not None and not re.fullmatch(r"[a-z]{2,3}|code|multilingual", data.language):
            wrong.append('"language" must only contain ISO 639 codes, "code" or "multilingual"')
        return JSONResponse(
            {"errors": [{"message": message} for message in wrong], "warnings": []}, 400 if wrong else 200
        )

    async def _info(self, request: Request) -> Response:
        repo = self._readable(request)
        commit = repo.find(param(request, "rev") or "main")
        siblings = [{"rfilename": path, "size": len(data)} for path, data in sorted(commit.files.items())]
        info = {"id": repo.name, "sha": commit.sha, "private": repo.private, "siblings": siblings}
        return JSONResponse({**info, "gated": "manual" if repo.gated else False, "disabled": False, "tags": []})

    async def _refs(self, request: Request) -> Response:
        repo = self._readable(request)
        branches = [ref(name, f"refs/heads/{name}", sha) for name, sha in repo.branches.items()]
        tags = [ref(name, f"refs/tags/{name}", sha) for name, sha in repo.tags.items()]
        return JSONResponse({"branches": branches, "tags": tags, "converts": []})

    async def _tree(self, request: Request) -> Response:
        repo = self._readable(request)
        folder = param(request, "path")
        prefix = f"{folder}/" if folder else ""
        commit = repo.find(param(request, "rev"))
        files = {path: data for path, data in commit.files.items() if path.startswith(prefix)}
        if folder and not files:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        entries = [repo.describe(path, data) for path, data in files.items()]
        for inner in {str(parent) for path in files for parent in Path(path[len(prefix) :]).parents} - {"."}:
            oid = hashlib.sha1(inner.encode()).hexdigest()
            entries.append({"type": "directory", "path": prefix + inner, "size": 0, "oid": oid})
        if request.query_params.get("recursive", "").lower() != "true":
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        return JSONResponse(sorted(entries, key=lambda entry: str(entry["path"])))

    async def _auth_check(self, request: Request) -> Response:
        if request.url.path.endswith("/write"):
            self._writable(request)
        self._readable(request)
        return Response()

    async def _create_tag(self, request: Request) -> Response:
        repo = self._writable(request)
        tag = (await request.json())["tag"]
        if tag in repo.tags:
            raise HubError(409, f"Tag {tag} already exists")
        repo.tags[tag] = repo.find(param(request, "rev")).sha
        return Response()

    async def _create_branch(self, request: Request) -> Response:
        repo = self._writable(request)
        branch = param(request, "rev")
        start = (await request.json()).get("startingPoint", "main")
        if branch in repo.branches:
            raise HubError(409, f"Branch {branch} already exists")
        repo.branches[branch] = repo.find(start).sha
        return Response()

    async def _delete_branch(self, request: Request) -> Response:
        repo = self._writable(request)
        branch = param(request, "rev")
        if branch == "main":
            raise HubError(403, "The main branch cannot be deleted")
        if repo.branches.pop(branch, None) is None:
            raise HubError(404, f"Branch {branch} does not exist", "RevisionNotFound")
        return Response()

    async def _preupload(self, request: Request) -> Response:
        repo = self._writable(request)
        present = repo.find(param(request, "rev")).files
        answers = []
        for item in (await request.json())["files"]:
            path = item["path"]
            mode = "lfs" if repo.is_lfs(path, item["size"]) else "regular"
            oid = repo.oid(path, present[path]) if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    async def _lfs_batch(self, request: Request) -> Response:
        repo = self._writable(request)
        answers = []
        for item in (await request.json())["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in repo.objects:
                upload = {"href": f"{self.url}/lfs/{repo.kind}/{repo.name}/{item['oid']}"}
                verify = {"href": f"{self._page(repo)}.git/info/lfs/objects/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        return JSONResponse({"transfer": "basic", "objects": answers})

    async def _put_object(self, request: Request) -> Response:
        # No check of the token: on the Hub this address is a signed one of the storage behind it.
        kind, owner, name, oid = (param(request, key) for key in ("kind", "owner", "name", "oid"))
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubError(400, "The content does not have this digest")
        self.repos[kind, f"{owner}/{name}"].objects[oid] = data
        return Response()

    async def _lfs_verify(self, request: Request) -> Response:
        repo = self._writable(request)
        item = await request.json()
        if len(repo.objects.get(item["oid"], b"")) != item["size"]:
            raise HubError(404, "LFS object not found")
        return Response()

    async def _commit(self, request: Request) -> Response:
        repo = self._writable(request)
        branch = param(request, "rev")
        header, *items = [json.loads(line) for line in (await request.body()).splitlines()]
        head = repo.find(branch)
        if branch not in repo.branches:
            raise HubError(400, f"{branch} is not a branch")
        if header["value"].get("parentCommit", head.sha) != head.sha:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for item in items:
            apply_operation(repo, files, item["key"], item["value"])
        commit = repo.commit(branch, files, header["value"]["summary"])
        return JSONResponse({"commitOid": commit.sha, "commitUrl": f"{self._page(repo)}/commit/{commit.sha}"})

    async def _resolve(self, request: Request) -> Response:
        repo, path = self._readable(request), param(request, "path")
        user = self._user(request)
        if repo.gated and (user is None or user["name"] != repo.name.split("/")[0]):
            message = f"Access to {repo.kind.removesuffix('s')} {repo.name} is restricted. You must have access to it."
            raise HubError(401 if user is None else 403, message, "GatedRepo")
        commit = repo.find(param(request, "rev"))
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", **headers)
        data = commit.files[path]
        headers["ETag"] = f'"{repo.oid(path, data)}"'
        if repo.is_lfs(path, len(data)):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data))}
        if "range" not in request.headers:
            return Response(data, headers=headers)
        start, stop = byte_range(request.headers["range"], len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return Response(data[start:stop], 206, headers)


def ref(name: str, path: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": path, "targetCommit": sha}


def param(request: Request, key: str) -> str:
    return unquote(request.path_params.get(key, ""))


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


def byte_range(header: str, size: int) -> tuple[int, int]:
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    first, last = match.groups() if match else ("", "")
    start = int(first) if first else size - int(last or 0)
    stop = min(int(last) + 1, size) if first and last else size
    if not 0 <= start < stop:
        raise HubError(416, "Range not satisfiable", **{"Content-Range": f"bytes */{size}"})
    return start, stop


async def answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    return JSONResponse(error.body, error.status, error.headers)


async def read_some(receive: Receive, size: int) -> None:
    while size > 0:
        message = await receive()
        size -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def cut_answer(app: ASGIApp, scope: Scope, receive: Receive, send: Send, size: int) -> None:
    left = size

    async def send_some(message: Message) -> None:
        nonlocal left
        if message["type"] == "http.response.body":
            body = message["body"][:left]
            left -= len(body)
            message = {**message, "body": body, "more_body": True}
        await send(message)

    await app(scope, receive, send_some)


async def swallow(message: Message) -> None:
    """Stands in for `send` where nothing may reach the client."""
