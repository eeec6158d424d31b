"""Drawing tokens from logits. It does not know models or requests in flight."""

import torch

from serve.engine.request import Request

CANDIDATES = 1024
"""Sorted tokens that top-p looks at first; the whole vocabulary is sorted only if they hold less than top_p."""


def generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def sample(logits: torch.Tensor, request: Request, generator: torch.Generator) -> int:
    """A token drawn from one line of logits (vocabulary,) after temperature, top-k and top-p, in transformers' order.

    The draw inverts the cumulative distribution at one uniform number, so that NaN logits cannot make it fail.
    """
    logits = logits.float() / max(request.temperature, 1e-4)
    k = min(request.top_k or logits.numel(), logits.numel())
    draw = torch.rand((), generator=generator).item()
    if k == logits.numel() and request.top_p >= 1:
        return _invert(logits.softmax(-1), draw)
    values, ids = logits.topk(k if k < logits.numel() else min(k, CANDIDATES))
    total = values.logsumexp(-1) if k < logits.numel() else logits.logsumexp(-1)
    probabilities = (values - total).exp()
    if len(values) < k and probabilities.sum() < request.top_p:
        values, ids = logits.sort(descending=True)
        probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    kept = probabilities * (before < request.top_p)
    kept[0] = probabilities[0]
    return int(ids[_invert(kept, draw)])


def _invert(weights: torch.Tensor, draw: float) -> int:
    cumulative = weights.double().cumsum(-1)
    return min(int((cumulative <= draw * cumulative[-1]).sum()), len(weights) - 1)
