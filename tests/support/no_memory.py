"""A model that runs out of memory in the passes that a test names, and what the engine makes of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from serve.engine.engine import Engine
from serve.engine.request import Request

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)
ONEDNN = RuntimeError("could not create a memory object: out of memory")
PYTHON = MemoryError()


@contextmanager
def failing(model: PreTrainedModel, error: Exception, when: Callable[[torch.Tensor], bool]) -> Iterator[None]:
    """The model's last layer but one runs out of memory in each pass of which `when` says so of the hidden states: the
    cache of those before it is written by then."""

    def run_out(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if when(arguments[0]):
            raise error

    hook = model.transformer.h[-2].register_forward_pre_hook(run_out)
    try:
        yield
    finally:
        hook.remove()


def run(engine: Engine) -> dict[str, list[int]]:
    made: dict[str, list[int]] = {}
    while not engine.idle:
        for token in engine.step():
            made.setdefault(token.id, []).append(token.token)
    return made


def expected(model: PreTrainedModel, request: Request) -> list[int]:
    engine = Engine(model)
    engine.submit(request)
    return run(engine)[request.id]
