"""Cancels work whose client has disconnected.

It knows ASGI's messages. It does not know what the work is.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive

T = TypeVar("T")


class ClientDisconnected(HTTPException):
    """The client has disconnected; nobody reads the response."""

    def __init__(self) -> None:
        super().__init__(499, "the client has left")


async def cancel_on_disconnect(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of `work`; cancel it as soon as the client disconnects.

    Raises:
        ClientDisconnected: the client has disconnected.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        for one in (task, disconnect):
            one.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
