"""Activations whose result for a number does not depend on where the number stands in a tensor.

torch computes SiLU and the tanh form of GELU with one routine for most of a tensor and with another for what is left
over at the end of each thread's share; the two differ in the last bit. Where a row's numbers fall depends on how many
rows are computed beside it. exp, tanh and what is made of sums, products and quotients do not have this.

It knows transformers' activations. It does not know models.
"""

import math

import torch
from torch import nn
from transformers.activations import GELUTanh, SiLUActivation


class SteadySiLU(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input / torch.exp(-input).add_(1)


class SteadyGELUTanh(nn.Module):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        inner = (input * input * input).mul_(0.044715).add_(input).mul_(math.sqrt(2 / math.pi))
        return torch.tanh(inner).add_(1).mul_(input).mul_(0.5)


STEADY: dict[type[nn.Module], type[nn.Module]] = {
    nn.SiLU: SteadySiLU,
    SiLUActivation: SteadySiLU,
    GELUTanh: SteadyGELUTanh,
}


def replace_activations(model: nn.Module) -> None:
    """Exchange the activations of `model` for steady ones."""
    found = [
        (parent, name, STEADY[type(child)])
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in STEADY
    ]
    for parent, name, kind in found:
        setattr(parent, name, kind())
