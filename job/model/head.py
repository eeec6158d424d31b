"""Head: the output layer and its cross entropy as one autograd function.

Autograd alone would keep logits, log-probabilities and their gradient, each [positions, vocabulary] in fp32, which is
most of the memory of a small model's training. Here the softmax overwrites the logits and becomes their gradient, one
block of positions at a time, and the gradients of hidden states, weight and bias are ready when the forward pass ends
(the order of work of Liger's fused linear cross entropy, Hsu et al. 2024, arXiv:2410.10989, in plain torch). The
backward pass hands them to autograd, so whatever hooks into it (DDP, FSDP, peft) sees them.

The large tensors are kept from step to step: pages that are new to a process have to be zeroed, and for a matrix of
GPT-2's vocabulary that took longer than its arithmetic.

It knows one linear layer. It does not know rows, models or optimizers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK = 1024
"""Positions whose logits are held at once: 103 MB in bf16 for GPT-2's vocabulary."""
SOFTMAX_ROWS = 64
"""Of them, positions in fp32 at once on a CPU: twice 13 MB, which a processor's last-level cache may hold."""
CHUNK = 8192
"""Vocabulary entries whose weight gradients are computed at once: 13 MB in bf16."""
MULTIPLE = 64
"""The vocabulary is padded to a multiple of this: products with rows of 50,257 numbers take up to a quarter longer."""


class Gradients(NamedTuple):
    """Of the scaled loss; None for an input that needs no gradient."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None


class Head:
    """The cross entropy of a linear output layer: `Head(layer)(hidden, targets, scale, dtype)`."""

    def __init__(self, layer: nn.Linear, in_place: bool = False) -> None:
        """Compute with `layer`; the large tensors come with the first call.

        Args:
            layer: the output layer, [size] to [vocabulary].
            in_place: add to the gradient that the weight has already, instead of handing autograd another matrix of
                the vocabulary's size to add. For one process on a CPU: no hook sees the parts of the sum.
        """
        self.layer, self.in_place = layer, in_place
        self._buffers: dict[str, torch.Tensor] = {}

    def __call__(
        self, hidden: torch.Tensor, targets: torch.Tensor, scale: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum the cross entropy over positions.

        Args:
            hidden: hidden states, [positions, size].
            targets: token ids, [positions].
            scale: the factor of the loss. It is given here, and not multiplied on afterwards, since it has to be in
                the gradients before they are rounded to fp16.
            dtype: type of the matrix products; the softmax is computed in fp32.

        Returns:
            `scale` times the loss, which has a gradient, and the loss itself, which has none; both scalars in fp32.
        """
        weight, into = self.layer.weight, None
        if self.in_place:
            into, weight.grad = weight.grad, None  # the backward pass gives it back, with the new one added
        loss, total = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, self.layer.bias, targets, self, scale, dtype, into
        )
        return loss, total

    def compute(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
        into: torch.Tensor | None,
        needed: Sequence[bool],
    ) -> tuple[torch.Tensor, Gradients]:
        """Compute the summed loss without the scale, and the gradients of `scale` times it.

        Args:
            hidden: hidden states, [positions, size].
            targets: token ids, [positions].
            scale: the factor of the loss.
            dtype: type of the matrix products.
            into: the weight's gradient so far, to which the new one is added; None if there is none.
            needed: whether hidden states, weight and bias need a gradient.

        Returns:
            The loss, a scalar in fp32, and the gradients.
        """
        weight = self._weight_in(dtype)
        states = hidden.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        of_hidden = torch.empty_like(states) if needed[0] else None
        of_weight = None if not needed[1] else self._new_gradient() if into is None else into
        of_bias = torch.zeros_like(self.layer.bias) if needed[2] else None
        for start in range(0, len(states), BLOCK):
            block, wanted = states[start : start + BLOCK], targets[start : start + BLOCK, None]
            logits = self._buffer("logits", (min(BLOCK, len(states)), len(weight)), dtype, hidden.device)[: len(block)]
            torch.mm(block, weight.T, out=logits)
            real = logits[:, : len(self.layer.weight)]
            total += self._softmax_minus_one_hot(real, wanted, scale)
            if of_hidden is not None:
                torch.mm(logits, weight, out=of_hidden[start : start + BLOCK])
            if of_weight is not None:
                self._add_weight_gradient(of_weight, real, block, into is None and start == 0)
            if of_bias is not None:
                of_bias += real.sum(0, dtype=of_bias.dtype)
        if of_hidden is not None:
            of_hidden = of_hidden.to(hidden.dtype)
        return total, Gradients(of_hidden, of_weight, of_bias)

    def _weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """Cast the weight, padded with rows of zeros: their logits are zero, count in no softmax and stay zero."""
        weight = self.layer.weight.detach()
        if dtype == weight.dtype:
            return weight
        count = len(weight)
        padded = self._buffer("weight", (-(-count // MULTIPLE) * MULTIPLE, weight.shape[1]), dtype, weight.device)
        padded[:count].copy_(weight)
        padded[count:].zero_()
        return padded

    def _softmax_minus_one_hot(self, logits: torch.Tensor, wanted: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the summed cross entropy of logits [positions, vocabulary]; overwrite them with `scale` x gradient."""
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        if self.layer.bias is not None:
            logits += self.layer.bias
        rows = min(SOFTMAX_ROWS, len(logits)) if logits.device.type == "cpu" else len(logits)
        for part, labels in zip(torch.split(logits, rows), torch.split(wanted, rows), strict=True):
            exact, off = (self._buffer(name, part.shape, torch.float32, part.device) for name in ("exact", "off"))
            torch.softmax(exact.copy_(part), -1, out=off)
            # the logarithm is that of the likeliest token's probability, which cannot round to zero
            spread = exact.amax(-1, keepdim=True) - off.amax(-1, keepdim=True).log()
            total += (spread - exact.gather(1, labels)).sum()
            off.scatter_add_(1, labels, off.new_full(labels.shape, -1.0))
            part.copy_(off.mul_(scale))
        return total

    def _new_gradient(self) -> torch.Tensor:
        """Give a tensor for the weight's gradient; what is in it is left over."""
        weight = self.layer.weight
        if self.in_place:
            return self._buffer("gradient", weight.shape, weight.dtype, weight.device)
        return torch.empty_like(weight)  # `weight.grad` may still be the last one

    def _add_weight_gradient(
        self, gradient: torch.Tensor, of_logits: torch.Tensor, block: torch.Tensor, first: bool
    ) -> None:
        """Add a block's part; the first block overwrites what is left over."""
        for rows, part in zip(torch.split(gradient, CHUNK), torch.split(of_logits, CHUNK, dim=1), strict=True):
            buffer = self._buffer("product", (min(CHUNK, len(gradient)), gradient.shape[1]), block.dtype, block.device)
            product = torch.mm(part.T, block, out=buffer[: len(rows)])
            if first:
                rows.copy_(product)
            else:  # in one type: torch adds bf16 to fp32 at a fifth of the speed
                rows += product.to(rows.dtype)

    def _buffer(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Give a kept tensor of at least this many rows, cut to them; what is in it is left over."""
        kept = self._buffers.get(name)
        if kept is None or len(kept) < shape[0] or kept.dtype != dtype or kept.device != device:
            kept = self._buffers[name] = torch.empty(tuple(shape), dtype=dtype, device=device)
        return kept[: shape[0]]


class _LinearCrossEntropy(torch.autograd.Function):
    """Gives autograd the gradients that `Head.compute` has found in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
        scale: float,
        dtype: torch.dtype,
        into: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total, ctx.gradients = head.compute(hidden, targets, scale, dtype, into, ctx.needs_input_grad)
        ctx.added = into is not None
        ctx.mark_non_differentiable(total)
        return total * scale, total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, factor: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        gradients: Gradients = ctx.gradients  # type: ignore[attr-defined]
        del ctx.gradients  # type: ignore[attr-defined]
        if factor.device.type != "cpu" or factor.item() != 1:  # reading it would wait for a GPU
            if ctx.added:  # type: ignore[attr-defined]
                raise RuntimeError("head: backward has to start at the loss when gradients are added in place")
            gradients = Gradients(*(None if each is None else each.mul_(factor) for each in gradients))
        # new tensor objects over the same memory: autograd takes those as `.grad`, and would copy the kept ones
        return *(None if each is None else each.detach() for each in gradients), *(None,) * 5
