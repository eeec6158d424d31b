"""Calls of the model in a thread that can still have kernels.

oneDNN remembers for each thread, and for as long as it lives, that it had no memory for a kernel. All that need a new
kernel fail in that thread from then on, whatever memory there is, and torch has no name for making it forget. So the
calls go on in a new thread, as soon as there is memory for one.

It knows threads and what oneDNN says. It does not know what is called.
"""

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

NO_KERNEL = "could not create a primitive"
NO_THREAD = "can't start new thread"
THREAD_BYTES = 2**27
"""Addresses that a thread needs for its stack and its heap. Where they are not to be had, the C library may end the
process instead of saying so."""
P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """In the thread that asks, until oneDNN has failed there."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._spoiled = False

    def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if self._spoiled and _can_start_thread():
            self._leave()
            self._thread, self._spoiled = ThreadPoolExecutor(1, "passes"), False
        try:
            if self._thread is None:
                return function(*arguments, **named)
            return self._thread.submit(torch.inference_mode()(function), *arguments, **named).result()
        except RuntimeError as error:
            if NO_THREAD in str(error):
                self._leave()  # what was given to it must never run
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
