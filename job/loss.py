"""Loss: cross entropy over the answers, with logits only where there is a label.

In GPT-2-class models the output layer is about half of all arithmetic, and a question's positions need none of it.
So the hidden states are computed for all positions and the output layer for the labelled ones alone. Not every
model is body + output layer (some scale or cap their logits), so `choose` compares both ways on a few rows first.
"""

import logging
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

IGNORED = -100
"""Label of a position that is not trained (torch's convention)."""
TOLERANCE = 1e-4
log = logging.getLogger(__name__)


class Loss(NamedTuple):
    """Sums over the labelled positions of a batch, so that batches of any shape add up to the same mean."""

    total: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


class AnswerLoss:
    """`loss = AnswerLoss(model); loss(ids, labels, mask)`, all [rows, length], padded on the right."""

    def __init__(self, model: PreTrainedModel, answer_only: bool = True) -> None:
        self.model, self.answer_only = model, answer_only

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Loss:
        targets = labels[:, 1:]
        labelled = targets != IGNORED
        if self.answer_only:
            # no mask: padding stands on the right, where causal attention never looks
            hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            head = self.model.get_output_embeddings()
            logits = head(hidden[:, :-1][labelled])
        else:
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][labelled]
        wanted = targets[labelled]
        total = F.cross_entropy(logits.float(), wanted, reduction="sum")
        return Loss(total, (logits.argmax(-1) == wanted).sum(), labelled.sum())


def choose(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> AnswerLoss:
    """The answer-only loss if the model allows it, else the plain one, with a line that says so."""
    fast = AnswerLoss(model)
    training = model.training
    model.eval()
    try:
        if not _agrees(fast, AnswerLoss(model, answer_only=False), ids, labels, mask):
            log.info("logits only at the answers: not possible for this model, training the plain way (slower)")
            fast.answer_only = False
    finally:
        model.train(training)
    return fast


@torch.no_grad()
def _agrees(fast: AnswerLoss, plain: AnswerLoss, *batch: Any) -> bool:
    if not isinstance(fast.model.get_output_embeddings(), nn.Linear) or fast.model.base_model is fast.model:
        return False
    try:
        return torch.allclose(fast(*batch).total, plain(*batch).total, rtol=TOLERANCE)
    except (AttributeError, TypeError):  # a body without last_hidden_state, or with other arguments
        return False
