"""Training: the same weights whatever the way there."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from machines import CPU
from training import SECTION, Stopping, curve, same, weights

from job.errors import ConfigError, Diverged, Exit, Interrupted, OutOfMemory
from job.training import train as stage
from job.training.step import Learner
from job.training.train import count_steps, train


def test_it_learns_and_leaves_a_complete_folder(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    facts = train(SECTION.model_copy(update={"epochs": 4}), 1, rows, fetched, tmp_path, CPU)
    tests = [point["test_loss"] for point in facts.history if "test_loss" in point]
    assert len(tests) == 4
    assert tests[-1] < tests[0] < math.log(400)
    assert facts.steps == 4 * 8
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "chat_template.jinja"} <= names
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o644}
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("stops", [[5], [3], [8], [2, 7, 11]])
def test_resumed_equals_unbroken(
    stops: list[int], rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(SECTION, 1, rows, fetched, tmp_path / "whole", CPU)
    monkeypatch.setattr(Learner, "step", Stopping(stops).step)
    for stop in stops:
        with pytest.raises(Interrupted, match=f"stopped at step {stop} of 16"):
            train(SECTION, 1, rows, fetched, tmp_path / "broken", CPU)
    broken = train(SECTION, 1, rows, fetched, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert curve(broken) == curve(whole)


@pytest.mark.parametrize(("size", "accumulation"), [(8, 4), (2, 16)])
def test_accumulation_gives_the_same_loss_and_weights(
    size: int, accumulation: int, rows: DatasetDict, fetched: Path
) -> None:
    losses, results = [], []
    for batch, times in ((32, 1), (size, accumulation)):
        section = SECTION.model_copy(update={"batch_size": batch, "gradient_accumulation_steps": times})
        training = Learner(section, 1, rows["train"], fetched, Path(), CPU, 10)
        training.model.eval()  # without dropout: its mask differs with the shape of the batch
        losses.append([training.step(list(range(30))).summed for _ in range(3)])
        results.append({name: weight.detach().clone() for name, weight in training.model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert all(torch.allclose(results[0][name], results[1][name], atol=1e-5) for name in results[0])


def test_gradients_are_clipped_as_torch_clips_them(rows: DatasetDict, fetched: Path) -> None:
    """AdamW does not feel the size of the gradients, only how it changes from step to step."""
    section = SECTION.model_copy(update={"max_grad_norm": 0.5, "weight_decay": 0.0})
    training, plain = (Learner(section, 1, rows["train"], fetched, Path(), CPU, 10) for _ in range(2))
    optimizer = torch.optim.AdamW(plain.model.parameters(), lr=section.learning_rate, weight_decay=0.0)
    for each in (training, plain):
        each.model.eval()
    for step, batch in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11])):
        for group in optimizer.param_groups:
            group["lr"] = section.learning_rate * (1 - step / 10)
        plain._accumulate(batch)
        expected = torch.nn.utils.clip_grad_norm_(plain.model.parameters(), section.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        assert training.step(batch).norm == pytest.approx(float(expected))
        assert expected > section.max_grad_norm
    for ours, theirs in zip(training.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_out_of_memory_halves_the_batch_and_keeps_the_step(
    rows: DatasetDict, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = SECTION.model_copy(update={"batch_size": 16})
    whole = Learner(section, 1, rows["train"], fetched, Path(), CPU, 10)
    whole.model.eval()
    expected = whole.step(list(range(16)))
    training = Learner(section, 1, rows["train"], fetched, Path(), CPU, 10)
    training.model.eval()
    batch = training.rows.batch

    def small_memory(batch_rows: list[int], *more: Any) -> Any:
        if len(batch_rows) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch(batch_rows, *more)

    monkeypatch.setattr(training.rows, "batch", small_memory)
    found = training.step(list(range(16)))
    assert training.micro_size == 4
    assert (found.summed, found.norm) == pytest.approx((expected.summed, expected.norm), rel=1e-5)


def test_out_of_memory_with_one_row_ends_the_run(
    rows: DatasetDict, fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Learner(SECTION, 1, rows["train"], fetched, Path(), CPU, 10)

    def no_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.rows, "batch", no_memory)
    with pytest.raises(OutOfMemory, match="single row"):
        training.step([0, 1])


def test_a_loss_that_is_nan_stops_the_run(rows: DatasetDict, fetched: Path) -> None:
    training = Learner(SECTION, 1, rows["train"], fetched, Path(), CPU, 10)
    with torch.no_grad():
        next(training.model.parameters()).fill_(math.nan)
    with pytest.raises(Diverged, match="at step 1: the loss is nan; the step's rows: row 3, row 17. Look") as caught:
        training.step([3, 17])
    assert caught.value.exit_code == Exit.CONFIG


def test_a_gradient_that_is_nan_does_not_reach_the_weights(rows: DatasetDict, fetched: Path) -> None:
    training = Learner(SECTION, 1, rows["train"], fetched, Path(), CPU, 10)
    weight = list(training.model.parameters())[-1]
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = weight.detach().clone()
    with pytest.raises(Diverged, match="the gradient is (nan|inf)"):
        training.step([3, 17])
    assert torch.equal(weight, before)


def test_a_loss_that_explodes_stops_the_run_and_the_checkpoint_is_kept(
    rows: DatasetDict, fetched: Path, tmp_path: Path
) -> None:
    section = SECTION.model_copy(update={"learning_rate": 3.0, "max_grad_norm": 1e9, "save_steps": 1})
    with pytest.raises(Diverged, match=r"the loss is .* at most .*step-0000000\d is kept"):
        train(section, 1, rows, fetched, tmp_path, CPU)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tiny_data_has_steps(count: int, rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    few = DatasetDict(train=rows["train"].select(range(count)), test=rows["test"].select([]))
    facts = train(SECTION, 1, few, fetched, tmp_path, CPU)
    assert facts.steps >= 2
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 16, and the whole training has 16 steps"):
        count_steps(SECTION.model_copy(update={"warmup_steps": 16}), 30, 1)


def test_the_tuned_model_has_the_type_of_its_base(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(fetched, dtype=torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(fetched).save_pretrained(half)
    train(SECTION, 1, rows, half, tmp_path / "run", CPU)
    assert {weight.dtype for weight in weights(tmp_path / "run").values()} == {torch.bfloat16}


def test_a_rehearsal_measures_a_step(rows: DatasetDict, fetched: Path) -> None:
    pace = stage.rehearse(SECTION, rows["train"], fetched, CPU)
    assert 0 < pace.seconds_per_token < 1
    assert pace.peak_gib > 0
