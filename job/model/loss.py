"""Loss: cross entropy over the answers and its gradients, with logits only where there is a label.

In GPT-2-class models the output layer is about half of all arithmetic, and the question's positions need none of it.
So the hidden states are computed for all positions and the output layer (head.py) for the labelled ones alone.

In one process on a CPU the input embeddings' gradient is added to the rows that were looked up. Autograd would fill a
matrix of the vocabulary's size with zeros for it and then add that to the output layer's, a tenth of a step of 8 rows.

Not every model is body + output layer (some scale or cap their logits, some give the body more than embeddings), so
`choose` compares loss and gradients of both ways on a few rows first. It knows models, not rows or optimizers.
"""

import logging
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from job.data.rows import IGNORE_INDEX
from job.model.head import BLOCK, Head

TOLERANCE = 1e-3
"""Of the comparison in fp32: sums in another order differ by 1e-6, another function by far more."""
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Ids, labels and attention mask, all [rows, length], padded on the right."""
log = logging.getLogger(__name__)


class Sums(NamedTuple):
    """Over the labelled positions of a batch, or of each of its rows, so that they add up to the same mean."""

    total: torch.Tensor
    """Cross entropy in nats."""
    correct: torch.Tensor
    """How many tokens were the likeliest."""
    tokens: torch.Tensor
    """How many there were."""


class Loss(nn.Module):
    """The summed cross entropy of a batch; the caller opens autocast around each call.

    A module over the model's own parameters, so that DDP and others can wrap it.
    """

    answer_only: bool

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute `scale` times the summed loss, to call `backward` on, and the summed loss without a gradient."""
        raise NotImplementedError

    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """Measure each row without gradients: three tensors [rows]."""
        raise NotImplementedError

    def measure(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """Measure the batch without gradients: three scalars."""
        return Sums(*(values.sum() for values in self.measure_rows(ids, labels, mask)))

    def backward(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Add the gradients of `scale` times the summed loss to the weights; return that sum without the scale."""
        loss, total = self(ids, labels, mask, scale)
        backward(loss)
        summed: torch.Tensor = total
        return summed


class PlainLoss(Loss):
    """Logits at every position, as the model itself gives them."""

    answer_only = False

    def __init__(self, model: PreTrainedModel) -> None:
        """Compute with `model` as it is."""
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in `Loss`."""
        total = _cross_entropy(*self._logits(ids, labels, mask))
        return total * scale, total.detach()

    @torch.no_grad()
    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """As in `Loss`."""
        return _by_row(labels, *_losses(*self._logits(ids, labels, mask)))

    def _logits(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return _labelled(logits, labels)


class AnswerLoss(Loss):
    """Logits at the labelled positions only. No mask: causal attention never looks at padding on the right."""

    answer_only = True

    def __init__(self, model: PreTrainedModel, in_place: bool = False) -> None:
        """Take the model apart into embeddings, body and output layer.

        Args:
            model: any causal language model.
            in_place: add gradients of the vocabulary's size where they are already. For one process on a CPU: no
                wrapper of this module sees the embeddings' gradient then.

        Raises:
            ValueError: the model's first and last layer are not a plain table and a plain linear layer.
        """
        super().__init__()
        table, layer = model.get_input_embeddings(), model.get_output_embeddings()
        if type(table) is not nn.Embedding or type(layer) is not nn.Linear or model.base_model is model:
            raise ValueError(f"found {type(table).__name__} and {type(layer).__name__}, expected Embedding and Linear")
        self.model, self.body, self.table, self.layer = model, model.base_model, table, layer
        self.head, self.in_place = Head(layer, in_place), in_place

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in `Loss`."""
        return self._loss(self.table(ids), labels, scale)

    def backward(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """As in `Loss`."""
        if not self.in_place:
            return super().backward(ids, labels, mask, scale)
        embedded = self.table(ids).detach().requires_grad_()
        loss, total = self._loss(embedded, labels, scale)
        backward(loss)
        if embedded.grad is not None:
            _add_rows(self.table, ids, embedded.grad)
        return total

    @torch.no_grad()
    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """As in `Loss`."""
        hidden, wanted = _labelled(self._states(self.table(ids)), labels)
        blocks = zip(torch.split(hidden, BLOCK), torch.split(wanted, BLOCK), strict=True)
        parts = [_losses(self.layer(states), targets) for states, targets in blocks]
        return _by_row(labels, *(torch.cat(values) for values in zip(*parts, strict=True)))

    def _loss(self, embedded: torch.Tensor, labels: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, wanted = _labelled(self._states(embedded), labels)
        return self.head(hidden, wanted, scale, self._dtype())

    def _states(self, embedded: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.body(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return states

    def _dtype(self) -> torch.dtype:
        device = self.layer.weight.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.layer.weight.dtype


def choose(
    model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, in_place: bool = False
) -> Loss:
    """Choose the answer-only loss if it gives this model's loss and gradients on these rows, else the plain one.

    A log line says if it is the plain one. Under `torch.no_grad` only the losses are compared.

    Args:
        model: in any mode, which it keeps.
        ids: token ids of the rows to compare on, [rows, length].
        labels: the same ids, or IGNORE_INDEX where there is no loss.
        mask: 1 for a token, 0 for padding.
        in_place: as in `AnswerLoss`.
    """
    plain = PlainLoss(model)
    training = model.training
    model.eval()  # dropout would differ between the two
    try:
        fast, batch = AnswerLoss(model, in_place), (ids, labels, mask)
        if _agree(_numbers(model, fast, batch), _numbers(model, plain, batch)):
            return fast
        reason = "its loss or gradients would differ"
    except (AttributeError, TypeError, ValueError) as error:  # a body without last_hidden_state, with other arguments
        reason = str(error)
    finally:
        model.train(training)
        model.zero_grad()
    log.info(
        f"loss: logits at the answers alone are not possible for this model ({reason}); computing all of "
        "them, which is slower"
    )
    return plain


def _numbers(model: PreTrainedModel, loss: Loss, batch: Batch) -> list[float]:
    """The loss, and the norm of each weight's gradient: enough to tell two functions apart, and small."""
    if not torch.is_grad_enabled():
        return [float(loss.measure(*batch).total)]
    model.zero_grad()
    total = loss.backward(*batch, 1.0)
    norms = [0.0 if weight.grad is None else float(weight.grad.norm()) for weight in model.parameters()]
    return [float(total), *norms]


def _agree(fast: list[float], plain: list[float]) -> bool:
    floor = TOLERANCE**2 * max(plain)  # a gradient that is zero but for rounding
    return all(math.isclose(*pair, rel_tol=TOLERANCE, abs_tol=floor) for pair in zip(fast, plain, strict=True))


def _labelled(states: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Select from [rows, length, size] the positions that predict a label: [positions, size]; and these labels."""
    targets = labels[:, 1:]
    kept = targets != IGNORE_INDEX
    return states[:, :-1][kept], targets[kept]


def backward(loss: torch.Tensor) -> None:
    """Run the backward pass outside autocast, as it wants: the gradients keep to the types of the forward pass."""
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _add_rows(table: nn.Embedding, ids: torch.Tensor, gradient: torch.Tensor) -> None:
    """Add the gradients [rows, length, size] of looked-up embeddings to the gradient of their table."""
    if table.padding_idx is not None:  # which autograd leaves without a gradient
        gradient = gradient.masked_fill((ids == table.padding_idx)[..., None], 0)
    weight = table.weight
    if weight.grad is None:  # not tied to the output layer
        weight.grad = torch.zeros_like(weight)
    weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, 1))


def _cross_entropy(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float(), wanted, reduction="sum")


def _losses(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each position's loss, and 1 where the wanted token was the likeliest; both [positions]."""
    correct = (logits.argmax(-1) == wanted).long()
    return F.cross_entropy(logits.float(), wanted, reduction="none"), correct


def _by_row(labels: torch.Tensor, losses: torch.Tensor, correct: torch.Tensor) -> Sums:
    """Add up for each row what was found at its labelled positions, which are in the order of `_labelled`."""
    kept = labels[:, 1:] != IGNORE_INDEX
    row = kept.nonzero()[:, 0]
    total, hits = (values.new_zeros(len(labels)).index_add_(0, row, values) for values in (losses, correct))
    return Sums(total, hits, kept.sum(1))
