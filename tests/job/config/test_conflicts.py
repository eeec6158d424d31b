"""Keys of a config that cannot be meant together."""

from pathlib import Path

import pytest
from config_text import FILE, errors, read


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (FILE + "evaluate: {gate: f1, generate_rows: 0}", "2:12: evaluate.gate", "needs generated answers"),
        (FILE + "evaluate: {gate: exact_match, generate_rows: 0}", "2:12: evaluate.gate", "is exact_match"),
        (FILE + "evaluate: {gate: off, gate_threshold: 1}", "2:23: evaluate.gate_threshold", "gate is off"),
        (FILE + "train: {patience: 3, keep: last}", "2:9: train.patience", "is 3, and train.keep is last"),
        (FILE + "publish: {tag: v1}", "2:11: publish.tag", "without publish.repo"),
        (FILE + "publish: {branch: b}", "2:11: publish.branch", "without publish.repo"),
        ("dataset: {file: a, name: b/c}", "1:1: dataset", "both file and name are set"),
        ("dataset: {file: '', name: b/c}", "1:1: dataset", "both file and name are set"),
        ("dataset: {split: train}", "1:1: dataset", "neither file nor name is set"),
        ("dataset:", "1:1: dataset", "neither file nor name is set"),
        ("dataset: {file: a, revision: b}", "1:20: dataset.revision", "is for a Hub data set"),
        ("dataset: {file: a, config: b}", "1:20: dataset.config", "is for a Hub data set"),
        ("dataset: {file: a, split: test}", "1:20: dataset.split", "is for a Hub data set"),
        ("dataset: {sources: [{file: a, split: test}]}", "1:31: dataset.sources.0.split", "is for a Hub data set"),
        ("dataset: {split: test, sources: [{file: a}]}", "1:11: dataset.split", "is set together with dataset.sources"),
        (
            "dataset: {revision: b, sources: [{name: a/b}]}",
            "1:11: dataset.revision",
            "is set together with dataset.sources",
        ),
        ("dataset: {sources: [{file: a, question: q}]}", "1:31: dataset.sources.0.question", "is set alone"),
        ("dataset: {sources: [{file: a}, {name: b/c, answer: q}]}", "1:44: dataset.sources.1.answer", "is set alone"),
        ("dataset: {answer: q, sources: [{file: a}, {file: b}]}", "1:11: dataset.answer", "is set alone"),
        (
            "dataset: {question: q, test: t, sources: [{file: a, answer: b}]}",
            "1:11: dataset.question",
            "is set alone",
        ),
        ("dataset: {file: a, question: q}", "1:20: dataset.question", "is set alone"),
        ("dataset: {file: a, answer: q}", "1:20: dataset.answer", "is set alone"),
        ("dataset: {file: a, question: q, answer: q}", "1:33: dataset.answer", "name two columns"),
        ("dataset: {file: []}", "1:11: dataset.file", "is an empty list"),
        ("dataset: {file: a, test: []}", "1:20: dataset.test", "is an empty list"),
        ("dataset: {sources: [{file: []}]}", "1:22: dataset.sources.0.file", "is an empty list"),
        ("dataset: {file: a, test: b}\nsplit: {group: g}", "2:9: split.group", "dataset.test gives the test rows"),
        (
            FILE + "clean: {min_answer_characters: 9, max_answer_characters: 8}",
            "2:9: clean.min_answer_characters",
            "is 9, above",
        ),
        (
            FILE + "clean: {max_question_characters: 3, min_question_characters: 4}",
            "2:37: clean.min_question_characters",
            "is 4, above",
        ),
        (
            "dataset: {file: a, question: q, answer: r, ignore_columns: [x, q]}",
            "1:44: dataset.ignore_columns",
            "holds 'q', which dataset.question reads",
        ),
    ],
)
def test_contradictions(tmp_path: Path, text: str, place: str, words: str) -> None:
    (line,) = errors(tmp_path, text)
    assert line.startswith(f"config.yaml:{place}: ")
    assert words in line


@pytest.mark.parametrize(
    "dataset",
    [
        "{file: a, split: train}",
        "{name: a/b, split: test}",
        "{split: train, sources: [{name: a/b, split: test}, {file: c, split: train}]}",
        "{question: q, sources: [{file: a, answer: b}, {file: c, question: x, answer: y}]}",
        "{question: q, answer: b, sources: [{file: a, answer: c}, {name: d/e, question: x}, {file: f}]}",
    ],
)
def test_no_contradiction(tmp_path: Path, dataset: str) -> None:
    assert read(tmp_path, f"dataset: {dataset}").dataset


def test_gate_on_loss_needs_no_generated_answers(tmp_path: Path) -> None:
    run = read(tmp_path, FILE + "evaluate: {generate_rows: 0, gate_threshold: 2}")
    assert (run.evaluate.generate_rows, run.evaluate.gate_threshold) == (0, 2.0)
