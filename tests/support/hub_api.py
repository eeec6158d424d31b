"""The addresses of the test Hub, and what is answered there."""

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote

from hub_repos import HubError, HubRepos, Repo, apply_operation
from huggingface_hub import ModelCard
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other", "unknown")


def ref(name: str, path: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": path, "targetCommit": sha}


def param(request: Request, key: str) -> str:
    return unquote(request.path_params.get(key, ""))


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


class HubApi(HubRepos):
    """An endpoint for each request that the client libraries send."""

    url: str
    """The server's address, which answers name."""

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
