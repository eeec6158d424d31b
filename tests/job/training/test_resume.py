"""A training that goes on in another place: the same rows, each in each epoch once, or a refusal with the way out."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from machines import BF16, CPU, FP16
from resumed import EIGHT, Place, broken_off, close, labels, rewrite, state_of
from training import SECTION, curve, same, weights

from job.errors import ConfigError, Exit, Interrupted
from job.run import checkpoint
from job.run.machine import Machine
from job.training import geometry
from job.training.geometry import Geometry
from job.training.loop import Training
from job.training.train import train


@pytest.mark.parametrize("step", [3, 4, 6], ids=["amid", "end of an epoch", "amid the second"])
@pytest.mark.parametrize(
    ("batch", "accumulation"), [(4, 2), (2, 4), (1, 8), (8, 1)], ids=["4x2", "2x4", "1x8", "the same"]
)
def test_the_same_step_size_resumes_in_any_shape(
    batch: int, accumulation: int, step: int, rows: DatasetDict, calm: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    whole = train(EIGHT, 1, rows, calm, tmp_path / "whole", CPU)
    broken_off(EIGHT, rows, calm, tmp_path / "broken", CPU, step)
    there = EIGHT.model_copy(update={"batch_size": batch, "gradient_accumulation_steps": accumulation})
    with caplog.at_level("INFO"):
        facts = train(there, 1, rows, calm, tmp_path / "broken", CPU)
    assert facts.steps == 8
    assert facts.trained_tokens == 2 * labels(rows)
    assert [loss for _, loss in curve(facts)] == pytest.approx([loss for _, loss in curve(whole)], rel=1e-4)
    assert close(weights(tmp_path / "whole"), weights(tmp_path / "broken"), 1e-5)
    moved = f"(batch_size 8 -> {batch}, gradient_accumulation_steps 1 -> {accumulation}); the same rows in the same"
    assert (moved in caplog.text) == (batch != 8)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken")) or batch != 8


@pytest.mark.parametrize("step", [3, 4], ids=["amid", "end of an epoch"])
@pytest.mark.parametrize(
    ("then", "now"),
    [(CPU, BF16), (BF16, CPU), (BF16, FP16), (FP16, BF16), (FP16, CPU), (CPU, FP16)],
    ids=lambda machine: machine.precision,
)
def test_another_precision_resumes(
    then: Machine, now: Machine, step: int, rows: DatasetDict, calm: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    whole = train(EIGHT, 1, rows, calm, tmp_path / "whole", CPU)
    broken_off(EIGHT, rows, calm, tmp_path / "broken", then, step)
    with caplog.at_level("INFO"):
        facts = train(EIGHT, 1, rows, calm, tmp_path / "broken", now)
    assert facts.trained_tokens == 2 * labels(rows)
    assert [loss for _, loss in curve(facts)] == pytest.approx([loss for _, loss in curve(whole)], rel=0.02)
    assert f"precision {then.precision} -> {now.precision}" in caplog.text
    assert "the last bits of the weights may differ" in caplog.text


@pytest.mark.parametrize(("there", "total"), [((16, 1), 4), ((5, 1), 12), ((3, 2), 10)], ids=str)
def test_another_step_size_resumes_at_the_end_of_an_epoch(
    there: tuple[int, int], total: int, rows: DatasetDict, calm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the first epoch had been trained there: the same half of the schedule is left."""
    broken_off(EIGHT, rows, calm, tmp_path, CPU, 4)
    section = EIGHT.model_copy(update={"batch_size": there[0], "gradient_accumulation_steps": there[1]})
    section = section.model_copy(update={"save_steps": 1, "save_total_limit": 1})
    with caplog.at_level("INFO"):
        facts = train(section, 1, rows, calm, tmp_path, CPU)
    assert facts.steps == total
    assert facts.trained_tokens == 2 * labels(rows)
    assert f"from the end of its last epoch on, which is step {total // 2} of {total} here" in caplog.text
    points = [point for point in facts.history if "train_loss" in point]
    assert [point["step"] for point in points[4:]] == list(range(total // 2 + 1, total + 1))
    after = [point["learning_rate"] / EIGHT.learning_rate for point in points[4:]]
    assert after == pytest.approx([1 - step / total for step in range(total // 2, total)])
    assert [point["step"] for point in facts.history if "test_loss" in point] == [total // 2, total]
    kept = [path.name for path in (tmp_path / "checkpoints").glob("step-*")]
    assert kept == [f"step-{total - 1:08d}"], "a checkpoint in the old count does not push out the newest one"


@pytest.mark.parametrize("step", [1, 3, 5])
def test_another_step_size_is_refused_within_an_epoch_and_every_remedy_works(
    step: int, rows: DatasetDict, calm: Path, tmp_path: Path
) -> None:
    broken_off(EIGHT, rows, calm, tmp_path, CPU, step)
    before = state_of(tmp_path)
    there = EIGHT.model_copy(update={"batch_size": 4})
    with pytest.raises(ConfigError, match="= 8 rows in a step, and this run would use .* = 4 rows in a step") as caught:
        train(there, 1, rows, calm, tmp_path, CPU)
    assert caught.value.exit_code == Exit.CONFIG
    assert state_of(tmp_path) == before
    message = str(caught.value)
    assert "Run it with train.gradient_accumulation_steps=2 or with 2 processes, or choose another output" in message
    facts = train(there.model_copy(update={"gradient_accumulation_steps": 2}), 1, rows, calm, tmp_path, CPU)
    assert facts.trained_tokens == 2 * labels(rows)


PLACES = [
    ((2, 8, 1), (1, 8, 1)), ((1, 8, 1), (2, 8, 1)), ((4, 8, 2), (1, 8, 2)), ((2, 8, 1), (3, 8, 1)),
    ((1, 6, 1), (4, 2, 1)), ((3, 4, 2), (2, 8, 1)), ((1, 7, 1), (1, 4, 2)), ((8, 2, 1), (1, 3, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("then", "now"), PLACES)
def test_the_remedies_give_the_same_step_size(then: tuple[int, ...], now: tuple[int, ...]) -> None:
    shape = Geometry(
        100, "x", {"train.epochs": 2}, batch_size=1, accumulation=1, processes=1, precision="fp32", device="cpu"
    )
    there, here = (
        replace(shape, processes=processes, batch_size=batch, accumulation=accumulation)
        for processes, batch, accumulation in (then, now)
    )
    with pytest.raises(ConfigError) as caught:
        geometry.position(there, here, 1, Path("run/checkpoints"))
    advice = (
        str(caught.value).partition("Run it with ")[2].partition(", or choose another output, or remove run/check")[0]
    )
    assert advice
    for way in advice.split(" or with "):
        values = dict(zip(("processes", "batch_size", "gradient_accumulation_steps"), now, strict=True))
        values |= {key: int(value) for key, value in re.findall(r"train\.(\w+)=(\d+)", way)}
        if found := re.search(r"(\d+) process", way):
            values["processes"] = int(found[1])
        product = values["processes"] * values["batch_size"] * values["gradient_accumulation_steps"]
        assert product == there.rows_per_step, way


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 3), ("learning_rate", 3e-4), ("lr_scheduler", "cosine"), ("warmup_steps", 2),
        ("weight_decay", 0.1), ("max_grad_norm", 2.0), ("keep", "last"), ("test_steps", 3), ("patience", 2),
    ],
)  # fmt: skip
def test_another_recipe_is_refused(key: str, value: Any, rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 4)
    changed = EIGHT.model_copy(update={key: value})
    found = f"train.{key} was {getattr(EIGHT, key)} and is {value}; undo the change, or choose another output"
    with pytest.raises(ConfigError, match=re.escape(found)):
        train(changed, 1, rows, fetched, tmp_path, CPU)


def test_another_seed_is_refused(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 4)
    with pytest.raises(ConfigError, match="seed was 1 and is 2"):
        train(EIGHT, 2, rows, fetched, tmp_path, CPU)


@pytest.mark.parametrize("change", ["fewer", "order", "answers"])
def test_other_rows_are_refused(change: str, rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 4)
    train_rows = rows["train"]
    others = {
        "fewer": lambda: train_rows.select(range(29)),
        "order": lambda: train_rows.select(range(29, -1, -1)),
        "answers": lambda: train_rows.map(lambda row: {"labels": [-100, *row["labels"][1:-1], -100]}),
    }[change]()
    counts = r"\(30 rows then, 29 now\)" if change == "fewer" else r"\(30 rows, not the same\)"
    with pytest.raises(ConfigError, match=f"other encoded rows {counts}; restore the run folder's `encoded`, or"):
        train(EIGHT, 1, DatasetDict(train=others, test=rows["test"]), fetched, tmp_path, CPU)


def test_a_checkpoint_that_does_not_record_a_key_of_the_recipe_is_refused(
    rows: DatasetDict, fetched: Path, tmp_path: Path
) -> None:
    """It was written before there was the key, so that nothing was kept."""
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 3)
    written = state_of(tmp_path)[1]["geometry"]
    recipe = {key: value for key, value in written["recipe"].items() if key not in ("train.keep", "train.patience")}
    rewrite(tmp_path, geometry={**written, "recipe": recipe})
    told = "another version of Kickoff wrote the checkpoint of step 3: it does not record train.keep, train.patience; "
    with pytest.raises(ConfigError, match=told):
        train(EIGHT, 1, rows, fetched, tmp_path, CPU)


@pytest.mark.parametrize("found", [None, {"rows": 30}, {"a future": "version"}])
def test_a_checkpoint_without_its_geometry_is_refused(
    found: Any, rows: DatasetDict, fetched: Path, tmp_path: Path
) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 3)
    rewrite(tmp_path, geometry=found)
    with pytest.raises(ConfigError, match="another version of Kickoff wrote the checkpoint of step 3.*another output"):
        train(EIGHT, 1, rows, fetched, tmp_path, CPU)


@pytest.mark.parametrize("counted", [{"trained_rows": 21}, {"trained_tokens": 5}])
def test_a_training_that_missed_rows_leaves_no_model(
    counted: dict[str, int], rows: DatasetDict, fetched: Path, tmp_path: Path
) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 3)
    rewrite(tmp_path, **counted)
    with pytest.raises(ConfigError, match="the training ended after .* expected 60 and .* no model was saved"):
        train(EIGHT, 1, rows, fetched, tmp_path, CPU)
    assert not (tmp_path / "model").exists()


def test_a_forward_pass_that_was_halved_stays_so_in_the_same_place_only(
    rows: DatasetDict, fetched: Path, tmp_path: Path
) -> None:
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 3)
    rewrite(tmp_path, forward_rows=[2])
    assert train(EIGHT, 1, rows, fetched, tmp_path, CPU).forward_rows == 2
    broken_off(EIGHT, rows, fetched, tmp_path / "gpu", CPU, 3)
    _, state = state_of(tmp_path / "gpu")
    rewrite(tmp_path / "gpu", forward_rows=[2], geometry={**state["geometry"], "device": "Tesla T4"})
    assert train(EIGHT, 1, rows, fetched, tmp_path / "gpu", CPU).forward_rows == 8


def test_bits_are_kept_across_a_checkpoint_that_minutes_made(rows: DatasetDict, fetched: Path, tmp_path: Path) -> None:
    often = SECTION.model_copy(update={"save_minutes": 1e-9, "save_steps": 1000, "save_total_limit": 99})
    train(SECTION, 1, rows, fetched, tmp_path / "whole", CPU)
    train(often, 1, rows, fetched, tmp_path / "often", CPU)
    made = sorted(path.name for path in (tmp_path / "often" / "checkpoints").glob("step-*"))
    assert made == [f"step-{step:08d}" for step in range(1, 16)]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "often"))
    rarely = often.model_copy(update={"save_minutes": 60.0})
    train(rarely, 1, rows, fetched, tmp_path / "rarely", CPU)
    assert not list((tmp_path / "rarely" / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(("then", "now"), [((2, 4), (1, 8)), ((1, 8), (2, 4))], ids=["2 to 1", "1 to 2"])
def test_another_process_count_with_the_same_step_size_resumes(
    then: tuple[int, int], now: tuple[int, int], place: Place, rows: DatasetDict
) -> None:
    assert place.train(1, {"batch_size": 8}, "whole")[0] == 0
    assert place.train(then[0], {"batch_size": then[1]}, stop=3)[0] == Exit.INTERRUPTED
    code, output = place.train(now[0], {"batch_size": now[1]})
    assert code == 0, output
    assert f"processes {then[0]} -> {now[0]}" in output
    whole, broken = place.facts("whole"), place.facts()
    assert broken.trained_tokens == 2 * labels(rows)
    assert [loss for _, loss in curve(broken)] == pytest.approx([loss for _, loss in curve(whole)], rel=1e-4)
    assert close(weights(place.folder / "whole"), weights(place.folder / "run"), 1e-5)


@pytest.mark.parametrize(("then", "now", "total"), [(2, 1, 8), (1, 2, 4)])
def test_another_process_count_is_refused_within_an_epoch_and_resumes_at_its_end(
    then: int, now: int, total: int, place: Place, rows: DatasetDict
) -> None:
    """The batch is per process, so that a step has twice or half as many rows there."""
    epoch = 4 if then == 1 else 2
    assert place.train(then, {"batch_size": 8}, stop=1)[0] == Exit.INTERRUPTED
    code, output = place.train(now, {"batch_size": 8})
    assert code == Exit.CONFIG, output
    assert f"or with {then} process" in output or f"Run it with {then} process" in output
    assert not (place.folder / "run" / "model").exists()
    assert place.train(then, {"batch_size": 8}, stop=epoch)[0] == Exit.INTERRUPTED
    code, output = place.train(now, {"batch_size": 8, "save_minutes": 1e-9})
    assert code == 0, output
    facts = place.facts()
    assert (facts.steps, facts.trained_tokens) == (total, 2 * labels(rows))
    newest = checkpoint.load_newest(place.folder / "run" / "checkpoints")
    assert newest is not None
    assert newest[1]["step"] == total - 1, "all processes agree to save when the first one's minutes have passed"


def test_processes_that_do_not_share_the_run_folder_are_refused(place: Place) -> None:
    assert place.train(2, {"batch_size": 4}, "shared", stop=3)[0] == Exit.INTERRUPTED
    code, output = place.train(2, {"batch_size": 4}, ["shared", "elsewhere"])
    assert code == Exit.CONFIG, output
    assert "step of the checkpoint: process 0: 3, process 1: None" in output


@pytest.mark.parametrize("full", [0, 1])
def test_the_launcher_ends_as_the_process_that_ran_out_of_memory(full: int, place: Place) -> None:
    """The other one ends as well, with an error of the connection."""
    code, output = place.launch(2, {"batch_size": 4}, full=full)
    assert code == Exit.MEMORY, output


def test_an_existing_checkpoint_is_not_written_again(
    rows: DatasetDict, fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while one of the same step is put in its place would leave none."""
    broken_off(EIGHT, rows, fetched, tmp_path, CPU, 4)
    before = state_of(tmp_path)[0].stat().st_ino
    monkeypatch.setattr(Training, "test_loss", lambda self, stop_requested: None)
    with pytest.raises(Interrupted, match="stopped at step 4 of 8, checkpoint complete"):
        train(EIGHT, 1, rows, fetched, tmp_path, CPU)
    assert state_of(tmp_path)[0].stat().st_ino == before
