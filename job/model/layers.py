"""Layers: faster layers in place of two that compute the same, while a model trains.

Nothing that is saved changes: neither layer has weights, and the model's config stays as it is.

It knows one layer of transformers and one of torch. It does not know what is trained.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

LEVELS = 2**16
"""Dropout draws 16 bits for each element: its rate is exact to 1/131,072."""


def exchange(model: PreTrainedModel, device: torch.device) -> None:
    """Exchange layers of `model` in place: GPT-2's GELU everywhere, dropout where `device` is a CPU."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is NewGELUActivation:
                # the same function, tanh approximation and all, as one kernel instead of eight
                setattr(parent, name, nn.GELU(approximate="tanh"))
            elif type(child) is nn.Dropout and device.type == "cpu":
                setattr(parent, name, Dropout(child.p).train(child.training))


class Dropout(nn.Module):
    """nn.Dropout that takes four elements from each random number of 64 bits.

    On a CPU torch draws one number for each element: 6 % of a step of distilgpt2.
    """

    def __init__(self, p: float) -> None:
        """Zero each element with probability `p`."""
        super().__init__()
        self.p = p

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Zero elements and scale the others by 1 / (1 - p), while training; give `input` back otherwise."""
        if not self.training or self.p == 0:
            return input
        count = input.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[:count].view(input.shape) >= round(self.p * LEVELS) - LEVELS // 2
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        """Show the probability, as nn.Dropout does."""
        return f"p={self.p}"
