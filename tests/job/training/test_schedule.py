"""The learning rate: transformers' course by its name, with a warm-up under every name."""

from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from machines import CPU
from training import SECTION
from transformers import get_scheduler

from job.training.schedule import rate
from job.training.step import Learner

THEIRS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("warm_up", [0, 1, 7, 29])
@pytest.mark.parametrize("name", THEIRS)
def test_the_schedule_equals_that_of_transformers(name: str, warm_up: int) -> None:
    section = SECTION.model_copy(update={"lr_scheduler": name, "warmup_steps": warm_up, "learning_rate": 3e-5})
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    scheduler = get_scheduler(THEIRS[name], optimizer, warm_up, 30)
    for step in range(30):
        assert rate(section, 30, step) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", THEIRS)
def test_every_schedule_warms_up_in_training(name: str, rows: DatasetDict, fetched: Path) -> None:
    section = SECTION.model_copy(update={"lr_scheduler": name, "warmup_steps": 4})
    learner = Learner(section, 1, rows["train"], fetched, Path(), CPU, 10)
    used = []
    for _ in range(6):
        learner.step([0, 1, 2, 3])
        assert len({group["lr"] for group in learner.optimizer.param_groups}) == 1
        used.append(learner.optimizer.param_groups[0]["lr"] / section.learning_rate)
    assert used[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert used[5] == 1 if name == "constant" else used[5] < 1
