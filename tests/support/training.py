"""Short trainings: their section, a signal at chosen steps, and what of two of them is compared."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from job.config.schema import TrainSection
from job.run.facts import TrainingFacts
from job.training.step import Learner, Outcome

SECTION = TrainSection(epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32", logging_steps=1, save_steps=3)


class Stopping:
    """The learner's step, which a signal follows at some steps."""

    def __init__(self, stops: list[int]) -> None:
        stops, unchanged = list(stops), Learner.step

        def step(learner: Learner, batch: list[int], stop: bool, save: bool) -> Outcome:
            outcome = unchanged(learner, batch, stop, save)
            if not (outcome.taken and learner.done in stops):
                return outcome
            stops.remove(learner.done)
            return outcome._replace(stop=True)

        self.step = step


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def curve(facts: TrainingFacts) -> list[tuple[float, float]]:
    return [(point["step"], point.get("train_loss", point.get("test_loss", 0.0))) for point in facts.history]
