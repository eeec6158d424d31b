"""Activations whose result for an element does not depend on its position in the tensor.

torch computes SiLU and the tanh form of GELU with a vectorized kernel for most of a tensor and a scalar one for the
remainder of each thread's share; the two differ in the last bit. Which of a row's elements are in the remainder depends
on how many rows are computed beside it. exp, tanh, sums, products and quotients do not have this difference.

It knows transformers' activations. It does not know models.
"""

import math

import torch
from torch import nn
from transformers.activations import GELUTanh, SiLUActivation


class SteadySiLU(nn.Module):
    """SiLU (x / (1 + exp(-x)); Elfwing et al., 2018), the same at every position."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply SiLU to each element."""
        return input / torch.exp(-input).add_(1)


class SteadyGELUTanh(nn.Module):
    """The tanh form of GELU (Hendrycks and Gimpel, 2016), the same at every position."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply GELU to each element."""
        inner = (input * input * input).mul_(0.044715).add_(input).mul_(math.sqrt(2 / math.pi))
        return torch.tanh(inner).add_(1).mul_(input).mul_(0.5)


STEADY: dict[type[nn.Module], type[nn.Module]] = {
    nn.SiLU: SteadySiLU,
    SiLUActivation: SteadySiLU,
    GELUTanh: SteadyGELUTanh,
}


def replace_activations(model: nn.Module) -> None:
    """Replace the activations in `model` that depend on the position."""
    replacements = [
        (parent, name, STEADY[type(child)])
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in STEADY
    ]
    for parent, name, kind in replacements:
        setattr(parent, name, kind())
