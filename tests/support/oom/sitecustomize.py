"""Out of memory by signal: on SIGUSR1 the next call of a torch module fails as torch does where no memory is left.

Python runs this file at its start where its folder is on PYTHONPATH. Only the engine's process may get the signal.
"""

import signal
from types import FrameType
from typing import Any


def no_memory(_: int, __: FrameType | None) -> None:
    import torch

    whole = torch.nn.Module.__call__

    def fail(*_: Any, **__: Any) -> None:
        torch.nn.Module.__call__ = whole
        raise torch.OutOfMemoryError("CUDA out of memory. Injected by a test.")

    torch.nn.Module.__call__ = fail  # type: ignore[method-assign, assignment]


signal.signal(signal.SIGUSR1, no_memory)
