"""Layers: parts of a model exchanged for equal ones that take less time, for as long as it trains.

Nothing that is saved changes: neither layer has weights, and the model's config stays as it is.

It knows two layers of transformers' and torch's. It does not know what is trained.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

LEVELS = 2**16
"""Dropout draws 16 bits for an element: the rate is met to 1/131,072."""


def exchange(model: PreTrainedModel, device: torch.device) -> None:
    """Exchange, in place: GPT-2's GELU everywhere, dropout on a CPU."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is NewGELUActivation:
                # the same function, tanh approximation and all, as one kernel instead of eight
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(child) is nn.Dropout and device.type == "cpu":
                setattr(parent, name, Dropout(child.p).train(child.training))


class Dropout(nn.Module):
    """nn.Dropout with four elements to a random number.

    On a CPU torch draws a number for each element, one after the other: 6 % of a step of distilgpt2.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return input
        count = input.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[:count].view(input.shape) >= round(self.p * LEVELS) - LEVELS // 2
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
