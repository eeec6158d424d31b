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
import re
import socket
import threading
from typing import Any, Self

import uvicorn
from hub_api import HubApi, answer_error
from hub_faults import Fault, Protocol, cut_answer, read_some, swallow
from hub_repos import HubError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class HubServer(HubApi):
    def __init__(self, lfs_limit: int = 50_000) -> None:
        super().__init__(lfs_limit)
        self.delay = 0.0  # seconds before each answer
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
