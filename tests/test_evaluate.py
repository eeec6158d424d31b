import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, ROWS
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from job.config import EvaluateSection
from job.encode import encode
from job.errors import GateRefused
from job.evaluate import answer, check_gate, evaluate, f1, interval, normalised, refuse


@pytest.fixture
def rows(tokenizer: PreTrainedTokenizerBase) -> Dataset:
    columns = {key: [row[key] for row in ROWS[:7]] for key in ("question", "answer")}
    return encode(Dataset.from_dict({**columns, "where": [""] * 7}), tokenizer, 64)[0]


def test_metrics_against_a_plain_computation(fetched: Path, rows: Dataset) -> None:
    metrics, answers = evaluate(EvaluateSection(batch_size=3), fetched, rows, CPU, "tiny")
    model = AutoModelForCausalLM.from_pretrained(fetched, dtype=torch.float32).eval()
    total, correct, tokens = 0.0, 0, 0
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(-1) == labels).sum())
        tokens += int((labels >= 0).sum())
    assert metrics["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert metrics["token_accuracy"] == correct / tokens
    assert metrics["f1"] == pytest.approx(sum(row["f1"] for row in answers) / 7)


def test_few_rows_come_with_intervals(fetched: Path, rows: Dataset) -> None:
    metrics, _ = evaluate(EvaluateSection(), fetched, rows, CPU, "tiny")
    assert set(metrics["intervals"]) == {"loss", "perplexity", "token_accuracy", "f1", "exact_match", "ended"}
    assert all(low <= metrics[name] <= high for name, (low, high) in metrics["intervals"].items())
    assert metrics["intervals"]["loss"][0] < metrics["intervals"]["loss"][1]
    many = interval(np.arange(1000) % 2 * 1.0, np.ones(1000))
    assert many == pytest.approx([0.469, 0.531], abs=0.005), "the normal approximation of a share of one half"


def test_batched_answers_are_those_of_plain_transformers(fetched: Path) -> None:
    questions = [row["question"] for row in ROWS[5:14]]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(fetched).eval(), AutoTokenizer.from_pretrained(fetched)
    alone = []
    for question in questions:
        chat = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        alone.append(tokenizer.decode(output, skip_special_tokens=True).strip())
    assert answer(fetched, questions, CPU) == alone


def test_no_generated_answers_when_they_are_off(fetched: Path, rows: Dataset) -> None:
    metrics, answers = evaluate(EvaluateSection(generate_rows=0), fetched, rows, CPU, "tiny")
    assert answers == []
    assert "f1" not in metrics
    assert metrics["rows"] == 7


@pytest.mark.parametrize(
    ("given", "expected", "score"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "cat sat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("The", "a", 1.0),
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_f1_as_squad_counts_it(given: str, expected: str, score: float) -> None:
    assert f1(given, expected) == pytest.approx(score)


def test_normalised_as_squad_does_it() -> None:
    assert normalised("The  Quick, brown-fox; an A.") == "quick brownfox"


@pytest.mark.parametrize(
    ("settings", "tuned", "base", "passed"),
    [
        ({}, {"loss": 1.0}, {"loss": 2.0}, True),
        ({}, {"loss": 2.0}, {"loss": 2.0}, False),
        ({}, {"loss": 3.0}, {"loss": 2.0}, False),
        ({}, {"loss": math.nan}, {"loss": 2.0}, False),
        ({"gate": "f1"}, {"f1": 0.5}, {"f1": 0.4}, True),
        ({"gate": "f1"}, {"f1": 0.3}, {"f1": 0.4}, False),
        ({"gate": "f1", "gate_threshold": 0.3}, {"f1": 0.3}, {"f1": 0.4}, True),
        ({"gate": "f1", "gate_threshold": 0.0}, {"f1": 0.0}, {"f1": 0.4}, True),
        ({"gate": "loss", "gate_threshold": 1.5}, {"loss": 1.6}, {"loss": 2.0}, False),
        ({"gate": "off"}, {"loss": 9.0}, {"loss": 2.0}, True),
        ({}, {}, {}, False),
    ],
)
def test_the_gate(settings: dict[str, object], tuned: dict[str, float], base: dict[str, float], passed: bool) -> None:
    gate = check_gate(EvaluateSection.model_validate(settings), tuned, base)
    assert gate["passed"] is passed
    if passed:
        refuse(gate, Path("model"))
    else:
        with pytest.raises(GateRefused, match="not published"):
            refuse(gate, Path("model"))
