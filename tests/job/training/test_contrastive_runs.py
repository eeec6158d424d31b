"""Trainings of a retriever: over processes, without memory, broken off; and the encoder that is saved."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from finding import PAIRS
from fork_server import ForkServer
from machines import BF16, CPU
from resumed import Place, broken_off, close
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from training import SECTION, curve, weights

from job.config.schema import RetrieverSection
from job.errors import Exit, OutOfMemory
from job.retrieval.retriever import Retriever
from job.run.machine import Machine
from job.training.contrastive import Contrastive
from job.training.train import rehearse, train

EIGHT = SECTION.model_copy(update={"batch_size": 8, "learning_rate": 1e-4})
"""20 rows: 3 steps an epoch, the last of 4 rows."""
LOAD = partial(Contrastive, retriever=RetrieverSection())


@pytest.fixture
def found_place(pair_rows: DatasetDict, calm_encoder: Path, tmp_path: Path, jobs: ForkServer) -> Place:
    return Place(tmp_path, pair_rows, calm_encoder, jobs)


@pytest.mark.parametrize("short", [None, (0, "2"), (1, "loss")], ids=["enough", "amid the step", "in the loss"])
def test_two_processes_are_one(
    short: tuple[int, str] | None, found_place: Place, pair_rows: DatasetDict, calm_encoder: Path, tmp_path: Path
) -> None:
    """Also if the memory of one does not suffice once: all repeat the step."""
    one = train(EIGHT, 1, pair_rows, calm_encoder, tmp_path / "one", CPU, LOAD)
    code, output = found_place.train(2, {"batch_size": 4}, "two", short=short, retriever={})
    assert code == 0, output
    assert output.count("out of memory: 4 -> 2 rows in a forward pass") == (short is not None)
    two = found_place.facts("two")
    assert (one.processes, two.processes) == (1, 2)
    assert [loss for _, loss in curve(two)] == pytest.approx([loss for _, loss in curve(one)], rel=1e-5, abs=1e-6)
    assert close(weights(tmp_path / "one"), weights(tmp_path / "two"), 1e-6)


def test_a_step_without_memory_is_repeated_in_halves(
    pair_rows: DatasetDict, calm_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    whole = train(EIGHT, 1, pair_rows, calm_encoder, tmp_path / "whole", CPU, LOAD)
    _limit(monkeypatch, 20)
    halved = train(EIGHT, 1, pair_rows, calm_encoder, tmp_path / "halved", CPU, LOAD)
    assert (whole.forward_rows, halved.forward_rows) == (8, 4)
    assert "out of memory: 8 -> 4 rows in a forward pass and 1 -> 2 passes in a step" in caplog.text
    assert [loss for _, loss in curve(halved)] == pytest.approx([loss for _, loss in curve(whole)], rel=1e-5, abs=1e-6)
    assert close(weights(tmp_path / "whole"), weights(tmp_path / "halved"), 1e-6)


def test_a_single_row_without_memory_ends_the_training(
    pair_rows: DatasetDict, calm_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit(monkeypatch, 0)
    with pytest.raises(OutOfMemory, match="a single row in a forward pass") as caught:
        train(EIGHT, 1, pair_rows, calm_encoder, tmp_path, CPU, LOAD)
    assert caught.value.exit_code == Exit.MEMORY


def _limit(monkeypatch: pytest.MonkeyPatch, texts: int) -> None:
    """More texts at once do not fit."""
    unchanged = Contrastive._encode

    def encode(self: Contrastive, all_texts: Any, part: list[int], seed: tuple[int, ...]) -> torch.Tensor:
        if len(part) > texts:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return unchanged(self, all_texts, part, seed)

    monkeypatch.setattr(Contrastive, "_encode", encode)


@pytest.mark.parametrize("step", [1, 3, 4], ids=["amid", "end of an epoch", "amid the second"])
def test_a_training_that_goes_on_gives_the_bytes_of_an_unbroken_one(
    step: int, pair_rows: DatasetDict, fetched_encoder: Path, tmp_path: Path
) -> None:
    whole = train(EIGHT, 1, pair_rows, fetched_encoder, tmp_path / "whole", CPU, LOAD)
    broken_off(EIGHT, pair_rows, fetched_encoder, tmp_path / "broken", CPU, step, load=LOAD)
    broken = train(EIGHT, 1, pair_rows, fetched_encoder, tmp_path / "broken", CPU, LOAD)
    assert curve(whole) == curve(broken)
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


@pytest.mark.parametrize("machine", [CPU, BF16], ids=["fp32", "bf16"])
def test_it_learns(machine: Machine, pair_rows: DatasetDict, fetched_encoder: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"batch_size": 10, "epochs": 6, "learning_rate": 3e-3})
    facts = train(section, 1, pair_rows, fetched_encoder, tmp_path, machine, LOAD)
    losses = [float(point["train_loss"] or 0) for point in facts.history if "train_loss" in point]
    assert len(losses) == 12
    assert sum(losses[-2:]) < 0.85 * sum(losses[:2])
    tested = [float(point["test_loss"] or 0) for point in facts.history if "test_loss" in point]
    assert len(tested) == 6
    assert 0 < min(tested) <= max(tested) < 2 * losses[0], "four rows: it need not fall"
    assert facts.trained_tokens == 6 * len(PAIRS), "a row is one term of the loss"
    assert not facts.answer_only_logits


def test_a_rehearsal_trains_on_the_longest_rows(pair_rows: DatasetDict, fetched_encoder: Path) -> None:
    assert rehearse(EIGHT, pair_rows["train"], fetched_encoder, CPU, LOAD).seconds_per_token > 0


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_saved_weights_are_mixed_with_those_of_the_base(
    share: float, pair_rows: DatasetDict, fetched_encoder: Path, tmp_path: Path
) -> None:
    tuned, mixed = (
        _trained(pair_rows, fetched_encoder, tmp_path / name, base_share=part)
        for name, part in (("tuned", 0.0), ("mixed", share))
    )
    base = load_file(fetched_encoder / "model.safetensors")
    assert mixed.keys() == base.keys()
    moved = max(float((tuned[name] - base[name]).abs().max()) for name in base)
    assert moved > 1e-4, "there is something to mix"
    for name, weight in mixed.items():
        expected = (1 - share) * tuned[name] + share * base[name]
        assert torch.allclose(weight, expected, atol=1e-7), name


def _trained(rows: DatasetDict, base: Path, run: Path, **retriever: Any) -> dict[str, torch.Tensor]:
    load = partial(Contrastive, retriever=RetrieverSection(**retriever))
    train(SECTION, 1, rows, base, run, CPU, load)
    return weights(run)


def test_the_saved_folder_gives_the_same_vectors_in_plain_sentence_transformers(
    pair_rows: DatasetDict, fetched_encoder: Path, tmp_path: Path
) -> None:
    _trained(pair_rows, fetched_encoder, tmp_path)
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    ours = Retriever(tmp_path / "model", CPU)
    for theirs, mine, column in (
        (plain.encode_query, ours.encode_questions, 0), (plain.encode_document, ours.encode_answers, 1),
    ):  # fmt: skip
        texts = [pair[column] for pair in PAIRS]
        assert np.abs(theirs(texts, normalize_embeddings=True) - mine(texts)).max() < 1e-6
    assert plain.max_seq_length == 32


def test_a_base_in_half_precision_is_published_in_it(
    pair_rows: DatasetDict, fetched_encoder: Path, tmp_path: Path
) -> None:
    model = SentenceTransformer(str(fetched_encoder), device="cpu").half()
    model.save_pretrained(str(tmp_path / "half"), create_model_card=False)
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "float16"
    found = _trained(pair_rows, tmp_path / "half", tmp_path / "run")
    assert {weight.dtype for weight in found.values()} == {torch.float16}
