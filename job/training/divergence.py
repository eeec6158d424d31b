"""Divergence: when to end a training that destroys the model, and what to tell the user.

It knows which losses are plausible. It does not know models or checkpoints.
"""

import math
from collections.abc import Sequence

from job.errors import Diverged

SHOWN = 20
"""Rows named in a message; a batch may have hundreds."""
MOST_OVERFLOWS = 20
"""Overflows in a row that end a training. Each halves the scale: where fp16 works at all, far fewer are enough."""


def symptom(loss: float, norm: float, first: float, vocabulary: int) -> str | None:
    """Say what is wrong with a step; None if nothing is.

    A model that gives each token the same probability has a loss of ln(vocabulary). Twice that is confident nonsense,
    unless the training began there.

    Args:
        loss: mean over the trained tokens of the step, in nats.
        norm: of the gradients before clipping.
        first: the loss of the first step.
        vocabulary: number of tokens.
    """
    bound = 2 * max(math.log(vocabulary), first)
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient is {norm} (and the loss {loss:.3g})"
    return f"the loss is {loss:.3g}, expected at most {bound:.3g}" if loss > bound else None


def diverged(problem: str, step: int, rows: Sequence[str], kept: str) -> Diverged:
    """Make the error of a step in which `symptom` found a problem.

    Args:
        problem: as `symptom` describes it.
        step: counted from 1.
        rows: where each row of the step stood in its source.
        kept: which checkpoint is kept, as a clause.
    """
    return Diverged(
        f"training diverged at step {step}: {problem}; the step's rows: {_named(rows)}. Look at them, "
        "lower train.learning_rate, raise train.warmup_steps or set train.precision to fp32, and choose another "
        f"output. Nothing was published; {kept}"
    )


def overflowed(step: int, scale: float, rows: Sequence[str], kept: str) -> Diverged:
    """Make the error of a step whose gradients overflow fp16 at every loss scale; arguments as in `diverged`."""
    return Diverged(
        f"fp16 overflows: {MOST_OVERFLOWS} times in a row the gradients of step {step} were NaN or infinite, down to a "
        f"loss scale of {scale:g}; set train.precision to fp32 (or bf16 where the hardware computes in it), or lower "
        f"train.learning_rate, and choose another output. The rows: {_named(rows)}. Nothing was published; {kept}"
    )


def unmeasurable(step: int, loss: float, precision: str, kept: str) -> Diverged:
    """Make the error of a test loss that is no number, although the weights are: the gate would refuse the model."""
    return Diverged(
        f"the test loss after step {step} is {loss}: {precision} overflows on the test rows; set train.precision to "
        f"fp32 (or bf16 where the hardware computes in it), and choose another output. Nothing was published; {kept}"
    )


def _named(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(rows[:SHOWN]) + more
