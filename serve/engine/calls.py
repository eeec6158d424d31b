"""Calls the model in a thread in which oneDNN still works.

Once oneDNN has had no memory for a kernel, every call that needs a new kernel fails in that thread for as long as it
lives, however much memory there is, and torch has no function to reset this. So the calls move to a new thread as soon
as there is memory for one.

It knows threads and oneDNN's errors. It does not know what is called.
"""

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

NO_KERNEL = "could not create a primitive"
NO_THREAD = "can't start new thread"
THREAD_BYTES = 2**27
"""Bytes of address space for a thread's stack and heap. Without them the C library may abort the process."""
P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Calls functions in the caller's thread, or in one of its own once oneDNN has failed there."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._spoiled = False

    def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call `function` with these arguments and return its result."""
        if self._spoiled and _can_start_thread():
            self._leave()
            self._thread, self._spoiled = ThreadPoolExecutor(1, "passes"), False
        try:
            if self._thread is None:
                return function(*arguments, **named)
            return self._thread.submit(torch.inference_mode()(function), *arguments, **named).result()
        except RuntimeError as error:
            if NO_THREAD in str(error):
                self._leave()  # the submitted call must never run
            self._spoiled = self._spoiled or NO_KERNEL in str(error) or NO_THREAD in str(error)
            raise

    def _leave(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        self._thread = None


def _can_start_thread() -> bool:
    try:
        mmap.mmap(-1, THREAD_BYTES).close()
    except OSError:
        return False
    return True
