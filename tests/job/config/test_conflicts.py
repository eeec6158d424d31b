"""Keys of a config that cannot be meant together."""

from pathlib import Path

import pytest
from config_text import FILE, errors, read

from job.config.read import dump
from job.config.schema import RetrieverSection
from job.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (FILE + "evaluate: {gate: f1, generate_rows: 0}", "2:12: evaluate.gate", "needs generated answers"),
        (FILE + "evaluate: {gate: exact_match, generate_rows: 0}", "2:12: evaluate.gate", "is exact_match"),
        (
            FILE + "evaluate: {min_confidence: 0.5, generate_rows: 0}",
            "2:12: evaluate.min_confidence",
            "no answer tells how sure the model may be",
        ),
        (
            FILE + "model: {kind: retriever}\nevaluate: {min_confidence: 0.5}",
            "3:12: evaluate.min_confidence",
            "a retriever writes no answers",
        ),
        (FILE + "evaluate: {gate: off, gate_threshold: 1}", "2:23: evaluate.gate_threshold", "gate is off"),
        (FILE + "train: {search_minutes: 5}", "2:9: train.search_minutes", "nothing is searched for"),
        (FILE + "train: {epochs: auto, patience: 2}", "2:23: train.patience", "and train.epochs is auto"),
        (
            FILE + "train: {learning_rate: auto, warmup_steps: 9}",
            "2:30: train.warmup_steps",
            "and train.learning_rate is auto",
        ),
        (FILE + "model: {kind: retriever, decoding: auto}", "2:26: model.decoding", "would have no effect"),
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("query_prompt", "'ask: '"), ("document_prompt", "''"), ("word_dropout", "0.25"), ("base_share", "0.1"),
        ("unknown", "u.json"), ("max_wrong", "0.05"), ("threshold", "0.5"), ("unknown_answer", "No."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["", "model: {kind: generator}\n"])
def test_a_retrievers_keys_are_no_generators(kind: str, key: str, value: str, tmp_path: Path) -> None:
    """Each of them, also with its default value; and each is accepted of a retriever."""
    assert key in RetrieverSection.model_fields
    text = f"{FILE}{kind}retriever:\n  {key}: {value}\n"
    place = f"config.yaml:{text.count(chr(10))}:3: retriever.{key}"
    assert errors(tmp_path, text) == [
        f"{place}: is set, and model.kind is generator; remove it, or set model.kind to retriever"
    ]
    assert read(tmp_path, f"{FILE}model: {{kind: retriever}}\nretriever:\n  {key}: {value}\n").model.kind == "retriever"


@pytest.mark.parametrize("kind", ["generator", "retriever"])
def test_a_config_that_is_written_back_has_no_such_key(kind: str, tmp_path: Path) -> None:
    config = read(tmp_path, f"{FILE}model: {{kind: {kind}}}\n")
    assert ("retriever:" in dump(config)) == (kind == "retriever")
    assert read(tmp_path, dump(config)) == config


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("model: {kind: retriever, ground: a}", "2:26: model.ground", "a retriever writes no answers"),
        ("model: {ground_rows: 5}", "2:9: model.ground_rows", "is set without model.ground"),
        ("model: {ground_misses: 0.5}", "2:9: model.ground_misses", "is set without model.ground"),
        ("model: {ground_revision: main}", "2:9: model.ground_revision", "is set without model.ground"),
        ("model: {ground: a}\nretriever: {threshold: 0.5}", "3:13: retriever.threshold", "model.kind is generator"),
        ("model: {ground: a}\nretriever: {unknown: []}", "3:13: retriever.unknown", "is an empty list"),
    ],
)
def test_keys_of_a_grounded_generator(text: str, place: str, words: str, tmp_path: Path) -> None:
    (error,) = errors(tmp_path, FILE + text)
    assert error.startswith(f"config.yaml:{place}: ") and words in error


def test_a_grounded_generator_keeps_its_unknown_questions(tmp_path: Path) -> None:
    config = read(tmp_path, f"{FILE}model: {{ground: a/b}}\nretriever: {{unknown: u.json}}\n")
    assert config.retriever.unknown == "u.json"
    assert read(tmp_path, dump(config)) == config


def test_every_key_of_a_retriever_is_tried() -> None:
    (keys,) = (
        mark.args[1] for mark in test_a_retrievers_keys_are_no_generators.pytestmark if mark.args[0] == ("key", "value")
    )
    assert {key for key, _ in keys} == set(RetrieverSection.model_fields)


@pytest.mark.parametrize(
    ("kind", "gate", "words"),
    [
        ("generator", "recall_at_1", "is recall_at_1, which is not measured of a generator"),
        ("generator", "recall_at_5", "is recall_at_5, which is not measured of a generator"),
        ("generator", "mrr_at_10", "is mrr_at_10, which is not measured of a generator"),
        ("retriever", "loss", "is loss, which is not measured of a retriever"),
        ("retriever", "perplexity", "is perplexity, which is not measured of a retriever"),
        ("retriever", "token_accuracy", "is token_accuracy, which is not measured of a retriever"),
        ("retriever", "ended", "is ended, which is not measured of a retriever"),
    ],
)
def test_a_gate_on_a_metric_of_the_other_kind(kind: str, gate: str, words: str, tmp_path: Path) -> None:
    (line,) = errors(tmp_path, f"{FILE}model: {{kind: {kind}}}\nevaluate: {{gate: {gate}}}\n")
    assert line == f"config.yaml:3:12: evaluate.gate: {words}; set it to auto"


@pytest.mark.parametrize("gate", ["auto", "off", "f1", "exact_match", "recall_at_1", "recall_at_5", "mrr_at_10"])
def test_a_gate_of_a_retriever(gate: str, tmp_path: Path) -> None:
    """It needs no generated answers."""
    text = f"{FILE}model: {{kind: retriever}}\nevaluate: {{gate: {gate}, generate_rows: 0}}\n"
    assert read(tmp_path, text).evaluate.gate == gate


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: {kind: retriever, gguf_file: a.gguf}", "2:26: model.gguf_file: is set, and model.kind is retriever"),
        ("model: {kind: retriever}\nretriever: {unknown: []}", "3:13: retriever.unknown: is an empty list"),
    ],
)
def test_what_a_retriever_cannot_have(text: str, line: str, tmp_path: Path) -> None:
    (found,) = errors(tmp_path, FILE + text)
    assert found.startswith(f"config.yaml:{line}")


@pytest.mark.parametrize(
    "text",
    [
        "model: {max_new_tokens: 9, kind: retriever}",
        "model: {chat_template: kickoff, kind: retriever}",
        "model: {kind: retriever}\ntrain: {word_dropout: 0.3}",
    ],
)
def test_keys_of_a_generator_have_no_effect_beside_a_retriever(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a retriever writes no answers, so it would have no effect; remove it"):
        read(tmp_path, f"dataset: {{file: a.json}}\n{text}\n")
