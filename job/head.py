"""Head: the output layer and its cross entropy, with their gradients in one go.

Autograd would keep logits, log-probabilities and their gradient, each [positions, vocabulary] in fp32, which is most
of the memory of a small model's training. Here the softmax overwrites the logits and becomes their gradient, a block
of positions at a time (the order of work of Liger's fused linear cross entropy, Hsu et al. 2024, arXiv:2410.10989, in
plain torch).

The large tensors are kept from step to step: pages that are new to a process have to be zeroed, and a matrix of
GPT-2's vocabulary took longer for that than for its arithmetic.

It knows one linear layer. It does not know rows, models or optimizers.
"""

import torch
import torch.nn.functional as F
from torch import nn

BLOCK = 1024
"""Positions whose logits are held at once: 100 MB in bf16 for GPT-2's vocabulary."""
SOFTMAX_ROWS = 128
"""Of them, positions in fp32 at once on a CPU: 26 MB, which a processor's last cache may hold."""


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
            if self.layer.bias is not None:
                logits += self.layer.bias
            total += _softmax_minus_one_hot(logits, wanted, scale)
            torch.mm(logits, weight, out=gradient[start : start + BLOCK])
            self._add(logits.T, block)
        return total, gradient.to(hidden.dtype)

    def _in(self, dtype: torch.dtype) -> torch.Tensor:
        weight = self.layer.weight.detach()
        if dtype == weight.dtype:
            return weight
        return self._room("weight", tuple(weight.shape), dtype, weight.device).copy_(weight)

    def _add(self, off: torch.Tensor, block: torch.Tensor) -> None:
        """Gradients of a block: `off` is the logits' gradient, transposed [vocabulary, positions]."""
        weight, bias = self.layer.weight, self.layer.bias
        product = self._room("product", tuple(weight.shape), off.dtype, weight.device)
        torch.mm(off, block, out=product)
        if weight.grad is None:
            weight.grad = self._room("gradient", tuple(weight.shape), weight.dtype, weight.device).copy_(product)
        else:
            weight.grad += product
        if bias is not None:
            summed = off.sum(1, dtype=bias.dtype)
            bias.grad = summed if bias.grad is None else bias.grad + summed

    def _room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A kept tensor of at least this many rows, cut to them; what is in it is left over."""
        kept = self._kept.get(name)
        if kept is None or len(kept) < shape[0] or kept.dtype != dtype or kept.device != device:
            kept = self._kept[name] = torch.empty(shape, dtype=dtype, device=device)
        return kept[: shape[0]]


def _softmax_minus_one_hot(logits: torch.Tensor, wanted: torch.Tensor, scale: float) -> torch.Tensor:
    """The summed cross entropy of logits [positions, vocabulary], which `scale` times its gradient replaces."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    rows = SOFTMAX_ROWS if logits.device.type == "cpu" else len(logits)
    for part, labels in zip(torch.split(logits, rows), torch.split(wanted, rows), strict=True):
        likely = F.log_softmax(part, -1, dtype=torch.float32)
        total -= likely.gather(1, labels).sum()
        off = likely.exp_().scatter_add_(1, labels, likely.new_full(labels.shape, -1.0))
        part.copy_(off.mul_(scale))
    return total
