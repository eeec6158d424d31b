"""Schedule: the learning rate as a function of the step, so that a checkpoint needs no state of it.

The schedules are those of transformers, with one difference: "constant" has a warm-up, too. It knows the config's keys
and step numbers. It does not know optimizers.
"""

import math

from job.config.schema import TrainSection


def rate(section: TrainSection, total_steps: int, step: int) -> float:
    """Compute the learning rate of a step, counted from 0."""
    if step < section.warmup_steps:
        return section.learning_rate * (step / section.warmup_steps)
    if section.lr_scheduler == "constant":
        return section.learning_rate
    after_warm_up = max(1, total_steps - section.warmup_steps)
    if section.lr_scheduler == "cosine":
        share = (step - section.warmup_steps) / after_warm_up
        return section.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * share)))
    return section.learning_rate * max(0.0, (total_steps - step) / after_warm_up)
