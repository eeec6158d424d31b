"""Gradients of several processes: those of one, whatever rows a process has and wherever its memory runs out."""

import pytest
from datasets import DatasetDict
from resumed import Place, close, labels
from training import curve, weights


def require_equal(place: Place, rows: DatasetDict, left: str, right: str) -> None:
    assert place.facts(left).trained_tokens == place.facts(right).trained_tokens == 2 * labels(rows)
    losses = [[loss for _, loss in curve(place.facts(run))] for run in (left, right)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert close(weights(place.folder / left), weights(place.folder / right), 1e-5)


def test_processes_without_a_row_change_nothing(place: Place, rows: DatasetDict) -> None:
    """30 rows: the second step of each epoch has two, for four processes."""
    assert place.train(1, {"batch_size": 28}, "one")[0] == 0
    code, output = place.train(4, {"batch_size": 7}, "four")
    assert code == 0, output
    assert "Warning" not in output
    require_equal(place, rows, "one", "four")


def test_forward_passes_are_added_up_before_the_processes_share(place: Place, rows: DatasetDict) -> None:
    assert place.train(1, {"batch_size": 8}, "one")[0] == 0
    code, output = place.train(2, {"batch_size": 1, "gradient_accumulation_steps": 4}, "two")
    assert code == 0, output
    require_equal(place, rows, "one", "two")


@pytest.mark.parametrize(
    ("rank", "weight"),
    [(0, ""), (1, "transformer.wte.weight")],
)
def test_memory_that_runs_out_amid_a_backward_pass_repeats_the_step(
    rank: int, weight: str, place: Place, rows: DatasetDict
) -> None:
    """The other process waits for gradients that this one never computed."""
    assert place.train(2, {"batch_size": 4}, "whole")[0] == 0
    code, output = place.train(2, {"batch_size": 4}, "short", short=(rank, weight))
    assert code == 0, output
    assert output.count("out of memory: 4 -> 2 rows in a forward pass") == 1
    assert ("failed after 0 buckets" in output) == (weight in ("", "transformer.ln_f.weight")), output
    require_equal(place, rows, "whole", "short")
