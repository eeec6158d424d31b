"""Divergence: a training that has stopped learning and destroys the model.

It knows what a loss can sensibly be and what to tell the user. It does not know models or checkpoints.
"""

import math
from collections.abc import Sequence

from job.errors import Diverged

SHOWN = 20
"""Rows named in the message; a batch may have hundreds."""


def symptom(loss: float, norm: float, first: float, vocabulary: int) -> str | None:
    """What is wrong with a step; None if nothing is.

    A model that knows nothing and says so has a loss of ln(vocabulary). Twice that is confident nonsense, unless the
    training began there.

    Args:
        loss: mean over the trained tokens of the step, in nats.
        norm: of the gradients before clipping.
        first: the loss of the first step.
    """
    bound = 2 * max(math.log(vocabulary), first)
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient is {norm} (and the loss {loss:.3g})"
    return f"the loss is {loss:.3g}, expected at most {bound:.3g}" if loss > bound else None


def diverged(found: str, step: int, rows: Sequence[str], kept: str) -> Diverged:
    """The error of a step.

    Args:
        rows: where each row of the step stood in its source.
        kept: which checkpoint there is.
    """
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return Diverged(
        f"training diverged at step {step}: {found}; the step's rows: {', '.join(rows[:SHOWN])}{more}. Look at them, "
        "lower train.learning_rate, raise train.warmup_steps or set train.precision to fp32, and choose another "
        f"output. Nothing was published; {kept}"
    )
