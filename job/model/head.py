"""Head: the output layer and its cross entropy, with their gradients in one go.

Autograd would keep logits, log-probabilities and their gradient, each [positions, vocabulary] in fp32, which is most
of the memory of a small model's training. Here the softmax overwrites the logits and becomes their gradient, a block
of positions at a time (the order of work of Liger's fused linear cross entropy, Hsu et al. 2024, arXiv:2410.10989, in
plain torch).

The large tensors are kept from step to step: pages that are new to a process have to be zeroed, and a matrix of
GPT-2's vocabulary took longer for that than for its arithmetic.

It knows one linear layer. It does not know rows, models or optimizers.
"""

from collections.abc import Sequence

import torch
from torch import nn

BLOCK = 1024
"""Positions whose logits are held at once: 103 MB in bf16 for GPT-2's vocabulary."""
SOFTMAX_ROWS = 64
"""Of them, positions in fp32 at once on a CPU: twice 13 MB, which a processor's last cache may hold."""
CHUNK = 8192
"""Entries of the vocabulary whose weights' gradients are computed at once: 13 MB in bf16."""
MULTIPLE = 64
"""The vocabulary is filled up to a multiple of this: products with rows of 50,257 numbers take up to a quarter more."""


class Head:
    """`Head(layer).backward(hidden, targets, scale)`."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self._kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def backward(
        self, hidden: torch.Tensor, targets: torch.Tensor, scale: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy of `targets` [positions], summed, given hidden states [positions, size].

        Products are computed in `dtype`, the softmax in fp32. The gradients of `scale` times the loss are added to
        the layer's weights.

        Returns:
            The loss without the scale, and the gradient of `scale` times it by the hidden states.
        """
        weight = self._in(dtype)
        states = hidden.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(states)
        for start in range(0, len(states), BLOCK):
            block, wanted = states[start : start + BLOCK], targets[start : start + BLOCK, None]
            logits = self._room("logits", (min(BLOCK, len(states)), len(weight)), dtype, hidden.device)[: len(block)]
            torch.mm(block, weight.T, out=logits)
            real = logits[:, : len(self.layer.weight)]
            total += self._softmax_minus_one_hot(real, wanted, scale)
            torch.mm(logits, weight, out=gradient[start : start + BLOCK])
            self._add(real, block)
        return total, gradient.to(hidden.dtype)

    def _in(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights in `dtype`, and with rows of zeros, whose logits are zero and stay so: they get no gradient."""
        weight = self.layer.weight.detach()
        if dtype == weight.dtype:
            return weight
        count = len(weight)
        filled = self._room("weight", (-(-count // MULTIPLE) * MULTIPLE, weight.shape[1]), dtype, weight.device)
        filled[:count].copy_(weight)
        filled[count:].zero_()
        return filled

    def _softmax_minus_one_hot(self, logits: torch.Tensor, wanted: torch.Tensor, scale: float) -> torch.Tensor:
        """The summed cross entropy of logits [positions, vocabulary], which `scale` times its gradient replaces."""
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        if self.layer.bias is not None:
            logits += self.layer.bias
        rows = min(SOFTMAX_ROWS, len(logits)) if logits.device.type == "cpu" else len(logits)
        for part, labels in zip(torch.split(logits, rows), torch.split(wanted, rows), strict=True):
            exact, off = (self._room(name, part.shape, torch.float32, part.device) for name in ("exact", "off"))
            torch.softmax(exact.copy_(part), -1, out=off)
            # the logarithm is that of the likeliest token's share, which cannot round to zero
            spread = exact.amax(-1, keepdim=True) - off.amax(-1, keepdim=True).log()
            total += (spread - exact.gather(1, labels)).sum()
            off.scatter_add_(1, labels, off.new_full(labels.shape, -1.0))
            part.copy_(off.mul_(scale))
        return total

    def _add(self, off: torch.Tensor, block: torch.Tensor) -> None:
        """Gradients of a block: `off` is that of its logits."""
        weight, bias = self.layer.weight, self.layer.bias
        fresh = weight.grad is None
        if weight.grad is None:
            weight.grad = self._room("gradient", weight.shape, weight.dtype, weight.device)
        for gradient, part in zip(torch.split(weight.grad, CHUNK), torch.split(off, CHUNK, dim=1), strict=True):
            room = self._room("product", (min(CHUNK, len(weight)), weight.shape[1]), off.dtype, off.device)
            product = torch.mm(part.T, block, out=room[: len(gradient)])
            if fresh:
                gradient.copy_(product)
            else:  # in one type: torch adds bf16 to fp32 at a fifth of the speed
                gradient += product.to(gradient.dtype)
        if bias is not None:
            summed = off.sum(0, dtype=bias.dtype)
            bias.grad = summed if bias.grad is None else bias.grad + summed

    def _room(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A kept tensor of at least this many rows, cut to them; what is in it is left over."""
        kept = self._kept.get(name)
        if kept is None or len(kept) < shape[0] or kept.dtype != dtype or kept.device != device:
            kept = self._kept[name] = torch.empty(tuple(shape), dtype=dtype, device=device)
        return kept[: shape[0]]
