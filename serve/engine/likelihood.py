"""Computes the log-probability that the model itself gives a chosen token, for the rows that ask for it.

It is taken from the plain logits, before penalties, temperature and the like. The sum over the vocabulary is over one
row in blocks, as in sampling.py, so that it does not depend on the rows beside it. It does not know models.
"""

from collections.abc import Sequence

import torch

from serve.engine.sampling import BLOCK, Row, select, tensor_on


@torch.inference_mode()
def log_probabilities(logits: torch.Tensor, rows: Sequence[Row], tokens: Sequence[int]) -> list[float | None]:
    """Compute the log-probability of each row's token; None where the request does not ask for it.

    Args:
        logits: (rows, vocabulary); they stay as they are.
        rows: the running requests, in the order of the logits.
        tokens: the chosen token of each row.
    """
    asked = [index for index, row in enumerate(rows) if row.request.logprobs]
    found: list[float | None] = [None] * len(rows)
    if not asked:
        return found
    lines = select(logits, asked).float()
    lines = lines - lines.amax(-1, keepdim=True)
    own = lines.gather(1, tensor_on(lines.device, [[tokens[index]] for index in asked]))[:, 0].double()
    weights = lines.exp_()
    whole = weights.shape[-1] - weights.shape[-1] % BLOCK
    blocks = weights[:, :whole].view(len(asked), whole // BLOCK, BLOCK).sum(-1).double()
    total = torch.cat([blocks, weights[:, whole:].sum(-1, keepdim=True).double()], -1).cumsum(-1)[:, -1]
    for index, value in zip(asked, (own - total.log()).tolist(), strict=True):
        found[index] = value
    return found
