"""fp16: a step that overflows is repeated, counted and said, and twenty in a row end the run.

On a CPU torch computes in fp16 and scales losses as on a GPU, only slower; users are not offered it there.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from machines import CPU
from training import SECTION, Stopping, curve, same, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.config.schema import TrainSection
from job.errors import Diverged, Exit, Interrupted
from job.run.machine import Machine
from job.training import divergence
from job.training.loop import Training
from job.training.step import Learner
from job.training.train import train

FP16 = Machine(torch.device("cpu"), "fp16")
GENTLE = SECTION.model_copy(update={"learning_rate": 1e-4})


@pytest.fixture(scope="module")
def steep(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose gradients overflow fp16 at the scale that torch begins with, and not at smaller ones."""
    return scaled(fetched, tmp_path_factory.mktemp("steep"), 100.0)


@pytest.fixture(scope="module")
def huge(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose activations overflow fp16, so that no scale helps."""
    return scaled(fetched, tmp_path_factory.mktemp("huge"), 1e6)


def scaled(base: Path, folder: Path, factor: float) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(factor)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def learner(rows: DatasetDict, base: Path, section: TrainSection = GENTLE) -> Learner:
    return Learner(section, 1, rows["train"], base, Path(), FP16, 10)


def test_a_step_that_overflows_changes_nothing_but_the_scale(
    rows: DatasetDict, steep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = GENTLE.model_copy(update={"warmup_steps": 5})
    training = learner(rows, steep, section)
    before = {name: weight.detach().clone() for name, weight in training.model.named_parameters()}
    outcome = training.step([0, 1, 2, 3])
    assert not outcome.taken
    assert (training.done, training.skipped, training.skipped_in_a_row) == (0, 1, 1)
    assert all(torch.equal(weight, before[name]) for name, weight in training.model.named_parameters())
    assert training.optimizer.state == {}
    assert training.scaler.get_scale() == 2**15
    assert "gradients of step 1 overflow; the step is skipped and tried again, its loss scaled by 32768" in caplog.text
    while not training.step([0, 1, 2, 3]).taken:
        assert training.done == 0
    assert training.done == 1
    assert training.skipped > 1 and training.skipped_in_a_row == 0
    assert (
        training.optimizer.param_groups[0]["lr"] == 0.0
    )  # of the first step of the warm-up, however often it is tried
    while not training.step([4, 5, 6, 7]).taken:
        pass
    assert training.optimizer.param_groups[0]["lr"] == section.learning_rate / 5


def test_a_run_with_overflows_trains_every_row_and_says_how_many_there_were(
    rows: DatasetDict, steep: Path, tmp_path: Path
) -> None:
    facts = train(GENTLE, 1, rows, steep, tmp_path, FP16)
    assert facts.skipped_steps > 0
    assert facts.steps == 16
    labels = sum(label != -100 for row in rows["train"]["labels"] for label in row)
    assert facts.trained_tokens == 2 * labels
    assert json.loads((tmp_path / "training.json").read_text())["skipped_steps"] == facts.skipped_steps
    assert all(math.isfinite(value) for point in facts.history for value in point.values())
    assert all(torch.isfinite(weight).all() for weight in weights(tmp_path).values())


def test_twenty_overflows_in_a_row_end_the_run_with_advice(rows: DatasetDict, huge: Path, tmp_path: Path) -> None:
    advice = (
        r"fp16 overflows: 20 times in a row .* of step 1 .*set train.precision to fp32 \(or bf16 .*lower train.learn"
    )
    with pytest.raises(Diverged, match=advice) as caught:
        train(GENTLE, 1, rows, huge, tmp_path, FP16)
    assert caught.value.exit_code == Exit.CONFIG
    assert not (tmp_path / "model").exists()


def test_overflows_are_counted_across_interruptions(
    rows: DatasetDict, huge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped again and again before its twentieth overflow would never end otherwise."""
    step = Learner.step
    monkeypatch.setattr(Learner, "step", lambda self, rows, stop, save: step(self, rows, True, save))
    for _ in range(divergence.MOST_OVERFLOWS - 1):
        with pytest.raises(Interrupted, match="stopped at step 0 of 16"):
            train(GENTLE, 1, rows, huge, tmp_path, FP16)
    with pytest.raises(Diverged, match="20 times in a row"):
        train(GENTLE, 1, rows, huge, tmp_path, FP16)


@pytest.mark.parametrize("stops", [[1], [5], [8]])
def test_resumed_equals_unbroken(
    stops: list[int], rows: DatasetDict, steep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(GENTLE, 1, rows, steep, tmp_path / "whole", FP16)
    monkeypatch.setattr(Learner, "step", Stopping(stops).step)
    with pytest.raises(Interrupted):
        train(GENTLE, 1, rows, steep, tmp_path / "broken", FP16)
    broken = train(GENTLE, 1, rows, steep, tmp_path / "broken", FP16)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert curve(broken) == curve(whole)
    assert broken.skipped_steps == whole.skipped_steps


def test_test_rows_that_overflow_end_the_run_at_the_first_epoch(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights too large for fp16 while the test rows are measured, as one test row alone may have them."""
    unchanged = Training.test_loss

    def overflowing(self: Training, stop_requested: Any) -> float | None:
        with torch.no_grad():
            self.learner.model.transformer.ln_f.weight.mul_(1e6)
        return unchanged(self, stop_requested)

    monkeypatch.setattr(Training, "test_loss", overflowing)
    with pytest.raises(
        Diverged, match="test loss after step 8 is (nan|inf): fp16 overflows on the test rows; set train"
    ):
        train(GENTLE, 1, rows, fetched, tmp_path, FP16)


def test_it_learns_what_fp32_learns(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    losses: list[list[Any]] = []
    for machine in (FP16, CPU):
        facts = train(SECTION, 1, rows, fetched, tmp_path / machine.precision, machine)
        losses.append([loss for _, loss in curve(facts)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
