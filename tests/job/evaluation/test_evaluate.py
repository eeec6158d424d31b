"""The stage: its numbers against plain computations, which rows are answered, and what memory does not hold."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from datasets import Dataset
from machines import CPU
from tiny import ROWS
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from job.config.schema import EvaluateSection
from job.data.encode import encode
from job.errors import OutOfMemory
from job.evaluation.answers import draw_rows
from job.evaluation.evaluate import answer, evaluate
from job.evaluation.intervals import rate
from job.run.machine import Machine
from job.run.out_of_memory import in_halves

BF16 = Machine(torch.device("cpu"), "bf16")


def encoded(rows: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> Dataset:
    columns = {key: [row[key] for row in rows] for key in ("question", "answer")}
    where = [f"rows.json row {number}" for number in range(1, len(rows) + 1)]
    return encode(Dataset.from_dict({**columns, "where": where}), tokenizer, 64)[0]


@pytest.fixture
def rows(tokenizer: PreTrainedTokenizerBase) -> Dataset:
    return encoded(ROWS[:7], tokenizer)


def plain(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def test_metrics_against_a_plain_computation(fetched: Path, rows: Dataset) -> None:
    metrics, answers = evaluate(EvaluateSection(batch_size=3), 0, fetched, rows, CPU, "tiny")
    model = plain(fetched)
    total, correct, tokens = 0.0, 0, 0
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(-1) == labels).sum())
        tokens += int((labels >= 0).sum())
    assert metrics.loss == pytest.approx(total / tokens, rel=1e-5)
    assert metrics.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert metrics.token_accuracy == correct / tokens
    assert metrics.f1 == pytest.approx(sum(row.f1 for row in answers) / 7)


@pytest.mark.parametrize(("count", "answered"), [(2, 2), (7, 3), (140, 10), (140, 140)])
def test_every_metric_has_its_interval(
    count: int, answered: int, published: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """By the number of rows that it was measured on, few or many. The model knows eight rows and errs on the rest."""
    test = encoded([ROWS[number % 16] for number in range(count)], tokenizer)
    metrics, answers = evaluate(EvaluateSection(generate_rows=answered), 1, published, test, CPU, "tiny")
    assert len(answers) == metrics.answered_rows == answered
    intervals, kinds = metrics.intervals, metrics.interval_kinds
    assert set(intervals) == {"loss", "perplexity", "token_accuracy", "f1", "exact_match", "ended"} == set(kinds)
    assert all(low <= metrics.value(name) <= high for name, (low, high) in intervals.items())
    for name in ("exact_match", "ended"):
        assert kinds[name] == "Wilson"
        assert tuple(intervals[name]) == rate(metrics.value(name) * answered, answered)[:2]
        assert intervals[name][0] < intervals[name][1]
    assert kinds["loss"] == "bootstrap"
    assert intervals["perplexity"] == tuple(pytest.approx(math.exp(bound)) for bound in intervals["loss"])


def test_intervals_do_not_depend_on_the_batches(published: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    test = encoded(ROWS[:20], tokenizer)
    one, many = (
        evaluate(EvaluateSection(batch_size=size, generate_rows=0), 0, published, test, CPU, "tiny")[0]
        for size in (1, 20)
    )
    for name, bounds in one.intervals.items():
        assert bounds == pytest.approx(many.intervals[name], rel=1e-4)
        assert bounds[0] < bounds[1]


def test_one_row_has_no_interval_of_its_loss(fetched: Path, rows: Dataset) -> None:
    metrics, _ = evaluate(EvaluateSection(), 0, fetched, rows.select([0]), CPU, "tiny")
    assert set(metrics.intervals) == {"token_accuracy", "f1", "exact_match", "ended"}
    assert set(metrics.interval_kinds.values()) == {"Wilson"}


def test_the_rows_to_answer_are_drawn_with_their_source(fetched: Path, rows: Dataset) -> None:
    section = EvaluateSection(generate_rows=3)
    seen = set()
    for seed in range(8):
        again = [evaluate(section, seed, fetched, rows, CPU, "tiny")[1] for _ in range(2)]
        assert again[0] == again[1]
        places = [row.where for row in again[0]]
        assert places == sorted(places) and len(set(places)) == 3
        for row in again[0]:
            number = int(row.where.split()[-1]) - 1
            assert (row.question, row.expected) == (ROWS[number]["question"], ROWS[number]["answer"])
        seen |= set(places)
    assert len(seen) == 7, "any row may be drawn, not the first ones"


def test_all_rows_are_answered_in_order_where_they_are_few() -> None:
    assert draw_rows(5, 5, 1) == draw_rows(5, 200, 1) == [0, 1, 2, 3, 4]
    assert draw_rows(0, 200, 1) == draw_rows(9, 0, 1) == []
    assert draw_rows(100_000, 200, 1) != draw_rows(100_000, 200, 2)
    assert max(draw_rows(100_000, 200, 1)) > 90_000


def test_no_generated_answers_when_they_are_off(fetched: Path, rows: Dataset) -> None:
    metrics, answers = evaluate(EvaluateSection(generate_rows=0), 0, fetched, rows, CPU, "tiny")
    assert answers == []
    assert not metrics.was_measured("f1")
    assert set(metrics.intervals) == {"loss", "perplexity", "token_accuracy"}
    assert metrics.rows == 7


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_measured_as_trained_in_autocast_over_fp32_weights(
    stored: torch.dtype, fetched: Path, rows: Dataset, tmp_path: Path
) -> None:
    """Whatever the weights are stored in; in fp32, and in weights of bf16, the loss is another one."""
    model = plain(fetched)
    with torch.no_grad():
        model.transformer.wte.weight *= 10  # so that rounding shows
    model.to(stored).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(fetched).save_pretrained(tmp_path)
    metrics, answers = evaluate(EvaluateSection(), 0, tmp_path, rows, BF16, "tiny")
    model = plain(tmp_path)
    under_autocast, in_fp32 = _loss(model, rows, True), _loss(model, rows, False)
    in_bf16 = _loss(model.bfloat16(), rows, False)
    assert metrics.loss == pytest.approx(under_autocast, rel=1e-6)
    assert all(abs(other / under_autocast - 1) > 1e-5 for other in (in_fp32, in_bf16))
    assert answer(tmp_path, rows["question"][:], BF16) == [row.answer for row in answers]


def _loss(model: PreTrainedModel, rows: Dataset, autocast: bool) -> float:
    """The mean over the labelled tokens, a row at a time, with all logits."""
    total, tokens = 0.0, 0
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for row in rows:
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"][1:])
            total += torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum").item()
            tokens += int((labels >= 0).sum())
    return total / tokens


def test_what_is_infinite_in_fp16_weights_is_measured(fetched: Path, rows: Dataset, tmp_path: Path) -> None:
    """The residual stream of some models exceeds 65,504; under autocast it stays fp32, as in training."""
    model = plain(fetched)
    with torch.no_grad():
        model.transformer.wpe.weight *= 1e7
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(fetched).save_pretrained(tmp_path)
    metrics, _ = evaluate(EvaluateSection(), 0, tmp_path, rows, Machine(torch.device("cpu"), "fp16"), "tiny")
    assert metrics.loss == pytest.approx(evaluate(EvaluateSection(), 0, tmp_path, rows, CPU, "tiny")[0].loss, 0.01)
    with torch.no_grad():
        assert not model.half()(torch.tensor([rows[0]["input_ids"]])).logits.isfinite().all()


def test_a_loss_that_is_not_finite_is_none(
    fetched: Path, rows: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = plain(fetched)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = math.nan
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(fetched).save_pretrained(tmp_path)
    metrics, answers = evaluate(EvaluateSection(), 0, tmp_path, rows, CPU, "tiny")
    assert (metrics.loss, metrics.perplexity) == (None, None)
    assert not {"loss", "perplexity"} & set(metrics.intervals)
    assert len(answers) == 7
    assert "the loss is nan" in caplog.text


def test_a_batch_that_does_not_fit_goes_through_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("x: can't allocate memory"),
    ):

        def work(part: list[int], error: Exception = error) -> list[int]:
            if len(part) > 2:
                raise error
            return [10 * row for row in part]

        assert in_halves(list(range(7)), work, "evaluate") == [10 * row for row in range(7)]
        with pytest.raises(OutOfMemory, match="with a single test row; use a smaller model.base"):
            in_halves([1, 2, 3], lambda part: work([1, 2, 3]), "evaluate")
    assert "out of memory with 7 rows, continuing with 3" in caplog.text
    with pytest.raises(RuntimeError, match="inconsistent"):
        in_halves([1], lambda part: torch.zeros(2) @ torch.zeros(3), "evaluate")  # type: ignore[arg-type, return-value]


BOUND = """
import resource, sys, torch
from pathlib import Path
from job import errors
from job.evaluation import evaluate
from job.run.machine import Machine

used = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("Vm")}
kind, key = {"address": (resource.RLIMIT_AS, "VmSize"), "data": (resource.RLIMIT_DATA, "VmData")}[sys.argv[2]]
resource.setrlimit(kind, (used[key] * 1024 + int(sys.argv[3]) * 2**20,) * 2)
try:
    evaluate.answer(Path(sys.argv[1]), ["What?"], Machine(torch.device("cpu"), "fp32"))
except errors.KickoffError as error:
    print(error.exit_code.value, error)
"""


@pytest.mark.parametrize(("kind", "mebibytes"), [("address", 20), ("data", 20)])
def test_a_model_that_does_not_fit_is_an_out_of_memory_error(
    kind: str, mebibytes: int, tmp_path_factory: pytest.TempPathFactory, fetched: Path
) -> None:
    """A real bound on the process, 77 MB of weights: allocation and mapping fail in words of their own."""
    folder = tmp_path_factory.getbasetemp() / "large"
    if not folder.exists():
        config = GPT2Config(vocab_size=400, n_embd=512, n_layer=6, n_head=4, bos_token_id=0, eos_token_id=0)
        GPT2LMHeadModel(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(fetched).save_pretrained(folder)
    ended = subprocess.run(
        [sys.executable, "-c", BOUND, str(folder), kind, str(mebibytes)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout.startswith("6 out of memory while loading a model to measure it"), ended.stdout + ended.stderr


def test_another_loading_error_is_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json"):
        answer(tmp_path, ["What?"], CPU)
