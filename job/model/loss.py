"""Loss: cross entropy over the answers and its gradients, with logits only where there is a label.

In GPT-2-class models the output layer is about half of all arithmetic, and a question's positions need none of it.
So the hidden states are computed for all positions and the output layer (head.py) for the labelled ones alone.

The input embeddings' gradient is added where rows were looked up. Autograd would fill a matrix of the vocabulary's
size with zeros for it and then add that to the output layer's, a tenth of a step of 8 rows.

Not every model is body + output layer (some scale or cap their logits, some give the body more than embeddings), so
`choose` compares loss and gradients of both ways on a few rows first. It knows models, not rows or optimizers.
"""

import logging
import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from job.data.rows import IGNORED
from job.model.head import BLOCK, Head

TOLERANCE = 1e-3
"""Of the comparison in fp32: sums in another order differ by 1e-6, another function by far more."""
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
log = logging.getLogger(__name__)


class Sums(NamedTuple):
    """Over the labelled positions of a batch, or of each of its rows, so that they add up to the same mean."""

    total: torch.Tensor
    correct: torch.Tensor
    tokens: torch.Tensor


class Loss(Protocol):
    """Of batches (ids, labels, mask), all [rows, length], padded on the right; the caller opens autocast around it."""

    answer_only: bool

    def backward(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        """Add the gradients of `scale` times the batch's summed loss to the weights; that sum, without the scale."""

    def measure(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """The summed loss and how many tokens were the likeliest, without gradients."""

    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        """The same for each row: three tensors [rows]."""


class PlainLoss:
    """Logits at every position, as the model itself gives them."""

    answer_only = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def backward(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        total = _cross_entropy(*self._logits(ids, labels, mask))
        _backward(total * scale)
        return total.detach()

    def measure(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        return _together(self.measure_rows(ids, labels, mask))

    @torch.no_grad()
    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        return _by_row(labels, *_found(*self._logits(ids, labels, mask)))

    def _logits(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return _labelled(logits, labels)


class AnswerLoss:
    """Logits at the labelled positions only. No mask: causal attention never looks at padding on the right."""

    answer_only = True

    def __init__(self, model: PreTrainedModel) -> None:
        """Raises ValueError if the model's first and last layer are not plain tables."""
        table, layer = model.get_input_embeddings(), model.get_output_embeddings()
        if type(table) is not nn.Embedding or type(layer) is not nn.Linear or model.base_model is model:
            raise ValueError(f"found {type(table).__name__} and {type(layer).__name__}, expected Embedding and Linear")
        self.body, self.table, self.layer, self.head = model.base_model, table, layer, Head(layer)

    def backward(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        embedded = self.table(ids).detach().requires_grad_()
        hidden, wanted = _labelled(self._states(embedded), labels)
        total, gradient = self.head.backward(hidden.detach(), wanted, scale, self._dtype())
        _backward(hidden, gradient)
        if embedded.grad is not None:
            _add_rows(self.table, ids, embedded.grad)
        return total

    def measure(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        return _together(self.measure_rows(ids, labels, mask))

    @torch.no_grad()
    def measure_rows(self, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Sums:
        hidden, wanted = _labelled(self._states(self.table(ids)), labels)
        blocks = zip(torch.split(hidden, BLOCK), torch.split(wanted, BLOCK), strict=True)
        parts = [_found(self.layer(states), targets) for states, targets in blocks]
        return _by_row(labels, *(torch.cat(values) for values in zip(*parts, strict=True)))

    def _states(self, embedded: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.body(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return states

    def _dtype(self) -> torch.dtype:
        device = self.layer.weight.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.layer.weight.dtype


def choose(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Loss:
    """The answer-only loss if it gives this model's loss and gradients on these rows, else the plain one.

    That the plain one is taken is said in a line. Under `torch.no_grad` only the losses are compared.
    """
    plain = PlainLoss(model)
    training = model.training
    model.eval()  # dropout would differ between the two
    try:
        fast, batch = AnswerLoss(model), (ids, labels, mask)
        if _agree(_numbers(model, fast, batch), _numbers(model, plain, batch)):
            return fast
        reason = "its loss or gradients would differ"
    except (AttributeError, TypeError, ValueError) as error:  # a body without last_hidden_state, with other arguments
        reason = str(error)
    finally:
        model.train(training)
        model.zero_grad()
    log.info(f"logits only at the answers: not possible for this model ({reason}); training the plain way, slower")
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
    """Of [rows, length, size] those that predict a labelled token, [positions, size], and these tokens [positions]."""
    targets = labels[:, 1:]
    kept = targets != IGNORED
    return states[:, :-1][kept], targets[kept]


def _backward(output: torch.Tensor, gradient: torch.Tensor | None = None) -> None:
    """Outside autocast, as it wants: the gradients keep to the types of the forward pass."""
    with torch.autocast(output.device.type, enabled=False):
        output.backward(gradient)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _add_rows(table: nn.Embedding, ids: torch.Tensor, gradient: torch.Tensor) -> None:
    """Add the gradients [rows, length, size] of looked-up embeddings to the gradient of their table."""
    if table.padding_idx is not None:  # which autograd leaves without a gradient
        gradient = gradient.masked_fill((ids == table.padding_idx)[..., None], 0)
    weight = table.weight
    if weight.grad is None:  # not tied to the output layer
        weight.grad = torch.zeros_like(weight)
    if weight.device.type == "cpu":
        weight.grad.index_add_(0, ids.flatten(), gradient.flatten(0, 1))
    else:
        weight.grad.index_put_((ids,), gradient, accumulate=True)  # sorted there: the same sum each time


def _cross_entropy(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float(), wanted, reduction="sum")


def _found(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each position, and 1 where the wanted token was the likeliest; both [positions]."""
    correct = (logits.argmax(-1) == wanted).long()
    return F.cross_entropy(logits.float(), wanted, reduction="none"), correct


def _by_row(labels: torch.Tensor, losses: torch.Tensor, correct: torch.Tensor) -> Sums:
    """What was found at the labelled positions, in the order of `_labelled`, added up for each row."""
    kept = labels[:, 1:] != IGNORED
    row = kept.nonzero()[:, 0]
    total, hits = (values.new_zeros(len(labels)).index_add_(0, row, values) for values in (losses, correct))
    return Sums(total, hits, kept.sum(1))


def _together(rows: Sums) -> Sums:
    return Sums(*(values.sum() for values in rows))
