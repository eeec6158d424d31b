"""Gradients: a step's gradients, summed over its forward passes and over all processes.

Several processes share their gradients with DDP: a bucket of them goes over the wire as soon as it is complete, while
the backward pass goes on to the next. Three things differ from a plain DDP:

- The gradients are summed and not averaged, since each process divides by the tokens of all.
- A process without a row takes part with a loss that is zero. Which weights have a gradient may differ from one
  process to the next (an expert that no token is sent to, too), so DDP looks for those that have none. That also keeps
  the buckets as they were made, so that a resumed training adds in the same order as an unbroken one. DDP's static
  graph allows neither.
- Memory may run out amid a backward pass, while the other processes wait for the rest of the buckets. This process
  then sends zeros for the rest, and all of them repeat the step.

It knows a loss and its batches. It does not know rows, optimizers or when memory runs out.
"""

import gc
from contextlib import nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from job.model.loss import Batch, Loss, backward


class Gradients(Protocol):
    """What a step asks for."""

    def add(self, batch: Batch, scale: float, last: bool) -> torch.Tensor:
        """Add the gradients of `scale` times a batch's loss to the weights.

        Args:
            batch: as the loss takes it.
            scale: the factor of the summed loss, the same in all processes.
            last: whether it is this process's last batch of the step; then the gradients are those of all processes.

        Returns:
            The batch's summed loss, without the scale.
        """

    def add_nothing(self) -> None:
        """Take part in a step that has no batch for this process."""

    def abandon(self) -> None:
        """End a step that failed in this process; the caller has dropped its gradients. All have to repeat it."""

    def close(self) -> None:
        """Free what only training needs."""


class OneProcess:
    """Gradients of a process that is alone."""

    def __init__(self, loss: Loss) -> None:
        """Train with `loss`."""
        self._loss = loss

    def add(self, batch: Batch, scale: float, last: bool) -> torch.Tensor:
        """As in `Gradients`."""
        return self._loss.backward(*batch, scale)

    def add_nothing(self) -> None:
        """As in `Gradients`."""

    def abandon(self) -> None:
        """As in `Gradients`."""

    def close(self) -> None:
        """As in `Gradients`."""


class AllProcesses:
    """Gradients of all processes, shared with DDP."""

    def __init__(self, loss: Loss) -> None:
        """Train with `loss`, whose weights are the same in all processes already."""
        self._module = _LossOrZero(loss)
        self._ddp: DistributedDataParallel | None = None
        self._sent = 0  # buckets, when a pass failed

    def add(self, batch: Batch | None, scale: float, last: bool) -> torch.Tensor:
        """As in `Gradients`; None is a batch without rows."""
        if self._ddp is None:
            self._ddp = self._wrap()
        before = _collectives()
        try:
            with nullcontext() if last else self._ddp.no_sync():
                loss, total = self._ddp(batch, scale * dist.get_world_size())  # DDP divides by it
                backward(loss)
        except Exception:
            self._sent = _collectives() - before
            raise
        summed: torch.Tensor = total
        return summed

    def add_nothing(self) -> None:
        """As in `Gradients`."""
        self.add(None, 1.0, last=True)

    def abandon(self) -> None:
        """As in `Gradients`."""
        sent, self._sent = self._sent, 0
        self.close()  # after a failed backward pass a DDP cannot go on
        self._ddp = self._wrap()
        self._ddp.register_comm_hook(sent, _send_the_rest)
        self.add_nothing()
        self.close()

    def close(self) -> None:
        """As in `Gradients`."""
        if self._ddp is not None:
            self._ddp._remove_autograd_hooks()  # type: ignore[no-untyped-call]
            self._ddp = None
            gc.collect()  # the buckets are part of reference cycles

    def _wrap(self) -> DistributedDataParallel:
        return DistributedDataParallel(
            self._module,
            init_sync=False,
            forward_sync_buffers=False,  # nothing changes them
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )


class _LossOrZero(nn.Module):
    """What DDP wraps: the loss of a batch, or a zero where there is none."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        # unused by each real batch; without one, DDP prints a warning that no weight is unused
        self.zero = nn.Parameter(torch.zeros((), device=next(loss.parameters()).device))
        self.loss = loss

    def forward(self, batch: Batch | None, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scaled loss, which has a gradient, and the loss, which has none."""
        if batch is None:
            return self.zero * 0, self.zero.detach()
        scaled, total = self.loss(*batch, scale)
        return scaled, total


def _collectives() -> int:
    """Count the collectives that this process has begun."""
    group = dist.group.WORLD
    return 0 if group is None else int(group._get_sequence_number_for_group())  # type: ignore[attr-defined]


def _send_the_rest(
    sent: int,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Sum a bucket unless it is among those that this process has sent already; for DDP, in place of its own way."""
    buffer = bucket.buffer()
    if bucket.index() >= sent:
        dist.all_reduce(buffer)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)
    done.set_result(buffer)
    return done
