"""The weights that become the model: those of the lowest test loss or of the last step, whatever broke the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from machines import CPU
from resumed import Place, labels
from torch import nn
from training import SECTION, Stopping, curve, same, weights

from job.errors import Exit, Interrupted, KickoffError
from job.run.facts import TrainingFacts
from job.training.best import Best
from job.training.loop import Training
from job.training.step import Learner
from job.training.train import train

SHARP = {"epochs": 12, "batch_size": 8, "learning_rate": 1e-2, "lr_scheduler": "constant", "save_steps": 5}
OVERFITTING = SECTION.model_copy(update=SHARP)
"""30 rows: 4 steps an epoch, 48 in all. The test loss turns upwards before the end."""
Seen = dict[int, dict[str, torch.Tensor]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The weights at each measurement of the training that ran last, by step."""
    unchanged, found = Best.consider, Seen()

    def noting(best: Best, model: nn.Module, step: int, *rest: Any, **more: Any) -> None:
        found[step] = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        unchanged(best, model, step, *rest, **more)

    monkeypatch.setattr(Best, "consider", noting)
    return found


def measured(facts: TrainingFacts) -> dict[int, float]:
    return {int(point["step"] or 0): float(point["test_loss"] or 0) for point in facts.history if "test_loss" in point}


def lowest(facts: TrainingFacts) -> int:
    losses = measured(facts)
    return min(losses, key=losses.__getitem__)


def holds(run: Path, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, expected[name]) for name, weight in weights(run).items())


def losses(monkeypatch: pytest.MonkeyPatch, by_step: Callable[[int], float]) -> None:
    monkeypatch.setattr(Training, "test_loss", lambda training, stop_requested: by_step(training.learner.done))


def killed(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """After that step the training ends without another checkpoint, as after kill -9."""
    unchanged = Learner.step

    def dying(learner: Learner, *arguments: Any) -> Any:
        if learner.done == step:
            raise ZeroDivisionError
        return unchanged(learner, *arguments)

    monkeypatch.setattr(Learner, "step", dying)


def test_the_weights_of_the_lowest_test_loss_become_the_model(
    rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen
) -> None:
    facts = train(OVERFITTING, 1, rows, fetched, tmp_path, CPU)
    assert facts.kept_step == lowest(facts) < facts.steps == 48, "it overfits"
    assert facts.kept_epoch == facts.kept_step / 4
    assert facts.kept_loss == min(measured(facts).values())
    assert holds(tmp_path, seen[facts.kept_step])
    assert not holds(tmp_path, seen[48])
    assert not facts.stopped_early


def test_the_last_weights_become_the_model_if_they_are_asked_for(
    rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen
) -> None:
    facts = train(OVERFITTING.model_copy(update={"keep": "last"}), 1, rows, fetched, tmp_path, CPU)
    assert (facts.kept_step, facts.kept_epoch, facts.kept_loss) == (48, 12, measured(facts)[48])
    assert holds(tmp_path, seen[48])
    assert not list((tmp_path / "checkpoints").glob("best-*"))


def test_weights_that_are_best_at_the_last_step_are_not_written(
    rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses(monkeypatch, lambda step: 1 / step)
    facts = train(SECTION, 1, rows, fetched, tmp_path, CPU)
    assert facts.kept_step == 16
    assert holds(tmp_path, seen[16])
    (file,) = (tmp_path / "checkpoints").glob("best-*")
    assert file.name.startswith("best-00000008-")


def test_of_equal_losses_the_first_is_kept(
    rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses(monkeypatch, lambda step: 2.0)
    assert train(SECTION, 1, rows, fetched, tmp_path, CPU).kept_step == 8
    assert holds(tmp_path, seen[8])


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_the_training(
    patience: int, rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    section = OVERFITTING.model_copy(update={"patience": patience, "epochs": 30})
    with caplog.at_level("INFO"):
        facts = train(section, 1, rows, fetched, tmp_path, CPU)
    assert facts.stopped_early
    assert facts.kept_step == lowest(facts) == facts.steps - 4 * patience
    assert holds(tmp_path, seen[facts.kept_step])
    assert facts.steps < 120
    assert facts.trained_tokens == facts.steps // 4 * labels(rows)
    said = f"train: {patience} measurements in a row without a lower test loss than {facts.kept_loss:.4g}, that of step"
    assert f"{said} {facts.kept_step}; ended at step {facts.steps} of 120" in caplog.text


def test_a_training_that_ends_amid_an_epoch_has_trained_what_its_steps_demand(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses(monkeypatch, lambda step: float(step))
    section = OVERFITTING.model_copy(update={"patience": 3, "test_steps": 3})
    facts = train(section, 1, rows, fetched, tmp_path, CPU)
    assert list(measured(facts)) == [3, 4, 6, 8]
    assert (facts.steps, facts.kept_step, facts.kept_epoch) == (8, 3, 1)
    section = section.model_copy(update={"patience": 2})
    facts = train(section, 1, rows, fetched, tmp_path / "amid", CPU)
    assert (facts.steps, facts.kept_step, facts.stopped_early) == (6, 3, True)
    assert labels(rows) < facts.trained_tokens < 2 * labels(rows)
    assert facts.tokens < 2 * sum(map(len, rows["train"]["input_ids"]))


@pytest.mark.parametrize("patience", [None, 3])
def test_without_test_rows_the_last_weights_are_kept_and_it_is_said(
    patience: int | None, rows: DatasetDict, fetched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = DatasetDict(train=rows["train"], test=rows["test"].select([]))
    with caplog.at_level("INFO"):
        facts = train(SECTION.model_copy(update={"patience": patience}), 1, parts, fetched, tmp_path, CPU)
    assert (facts.kept_step, facts.kept_epoch, facts.kept_loss, facts.stopped_early) == (16, 2, None, False)
    assert caplog.text.count("there is no test row, so the weights of the last step are kept") == 1
    assert ("and train.patience has no effect" in caplog.text) == (patience is not None)


@pytest.mark.parametrize("patience", [None, 2])
def test_resumed_equals_unbroken(
    patience: int | None, rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signals come amid epochs, and at the end of one before it is measured."""
    section = OVERFITTING.model_copy(update={"patience": patience})
    whole = train(section, 1, rows, fetched, tmp_path / "whole", CPU)
    stops = [2, 8, 13, 30, whole.steps]
    monkeypatch.setattr(Learner, "step", Stopping(stops).step)
    for _ in stops:
        with pytest.raises(Interrupted):
            train(section, 1, rows, fetched, tmp_path / "broken", CPU)
    broken = train(section, 1, rows, fetched, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert curve(broken) == curve(whole)
    kept = [(facts.kept_step, facts.kept_loss, facts.steps, facts.stopped_early) for facts in (whole, broken)]
    assert kept[0] == kept[1]


def test_killed_between_the_best_weights_and_the_checkpoint(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each end of an epoch: the newest checkpoint is of step 5 n, so that it knows other best weights."""
    whole = train(OVERFITTING, 1, rows, fetched, tmp_path / "whole", CPU)
    for step in range(4, 48, 4):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
            killed(patch, step)
            train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
        assert list((tmp_path / "broken/checkpoints").glob("best-*"))
    broken = train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert (broken.kept_step, broken.kept_loss) == (whole.kept_step, whole.kept_loss)


def test_best_weights_of_a_step_that_was_lost_do_not_count(
    rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may find another loss there: those that the checkpoint knows have to be there still."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        killed(patch, 9)
        losses(patch, lambda step: 1 / step)
        train(OVERFITTING, 1, rows, fetched, tmp_path, CPU)
    names = sorted(path.name[:13] for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best-00000004", "best-00000008", "step-00000005"]
    losses(monkeypatch, lambda step: float(step))
    facts = train(OVERFITTING, 1, rows, fetched, tmp_path, CPU)
    assert (facts.kept_step, facts.kept_loss) == (4, 1 / 4)
    assert holds(tmp_path, seen[4])
    assert [path.name[:13] for path in (tmp_path / "checkpoints").glob("best-*")] == ["best-00000004"]


def test_a_checkpoint_whose_best_weights_are_damaged_is_skipped(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    losses(monkeypatch, lambda step: abs(step - 12) + 1.0)
    train(OVERFITTING, 1, rows, fetched, tmp_path / "whole", CPU)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        killed(patch, 11)
        train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
    (newest,) = (tmp_path / "broken/checkpoints").glob("best-00000008-*")
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
    assert "step-00000010 is incomplete or damaged and is skipped" in caplog.text
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_best_weights_that_are_damaged_at_the_end_are_an_error_and_the_next_run_finds_them_again(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(OVERFITTING, 1, rows, fetched, tmp_path / "whole", CPU)
    unchanged = Best.load_into

    def without(best: Best, *arguments: Any) -> None:
        for file in best.folder.glob("best-*"):
            file.unlink()
        unchanged(best, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Best, "load_into", without)
        with pytest.raises(KickoffError, match=r"weights of step \d+ in .* are gone or damaged; run the same command"):
            train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
    assert not (tmp_path / "broken/model").exists()
    train(OVERFITTING, 1, rows, fetched, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


@pytest.mark.parametrize(("size", "kept"), [(16, 2), (4, 8)])
def test_best_weights_from_another_number_of_rows_in_a_step(
    size: int, kept: int, rows: DatasetDict, fetched: Path, tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of the first epoch stay in its file, whatever the steps are called afterwards."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        killed(patch, 8)
        losses(patch, lambda step: float(step))
        train(OVERFITTING.model_copy(update={"save_steps": 8}), 1, rows, fetched, tmp_path, CPU)
    before = seen[4]
    losses(monkeypatch, lambda step: 10.0 + step)
    section = OVERFITTING.model_copy(update={"batch_size": size})
    facts = train(section, 1, rows, fetched, tmp_path, CPU)
    assert (facts.kept_step, facts.kept_epoch) == (kept, 1)
    assert holds(tmp_path, before)


def test_several_processes_keep_the_same_weights_and_end_early_together(place: Place, rows: DatasetDict) -> None:
    section = {**SHARP, "batch_size": 4, "epochs": 30, "patience": 2}
    assert place.train(2, section, "whole")[0] == 0
    whole = place.facts("whole")
    assert whole.stopped_early and whole.kept_step == lowest(whole) == whole.steps - 8
    assert place.train(2, section, stop=whole.kept_step + 2)[0] == Exit.INTERRUPTED
    assert place.train(2, section)[0] == 0
    assert place.facts().kept_step == whole.kept_step
    names = [place.folder / run / "model/model.safetensors" for run in ("whole", "run")]
    assert names[0].read_bytes() == names[1].read_bytes()
