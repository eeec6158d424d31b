"""The facts of a run: what is written is read again as it was; another version's are understood or refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.run import fact_files
from job.run.fact_files import Damaged, OtherVersion
from job.run.facts import (
    Answer,
    Answers,
    BaseFacts,
    DataFacts,
    Gate,
    Measured,
    Metrics,
    ModelMetrics,
    Published,
    Resolved,
    RunRequest,
    Source,
    TrainingFacts,
)
from job.run.retriever_facts import GroundFacts, UnknownQuestions
from job.run.row_facts import Closest, Cluster, Conflict, Doubtful, GivenAnswer, KeptRow, Rendered, Repeat, Row
from job.run.search_facts import DecodingTrial, SearchFacts, Trial

ROW = Row("a.json row 1", "Who?", {"not": ["text", 1.5, None]}, "the answer is an object, not text")
PLACES = [KeptRow(f"a.json row {number}", f"Question {number}?") for number in (1, 2)]
TUNED = ModelMetrics(
    *(1.25, None, 0.5, 5),
    **{"f1": 0.25, "exact_match": 0.0, "ended": 1.0, "answered_rows": 5},
    intervals={"f1": (0.125, 0.5)},
    interval_kinds={"f1": "bootstrap"},
)
PLAIN = ModelMetrics(2.5, 12.0, 0.25, 5, intervals={"loss": (2.0, 3.0)}, interval_kinds={"loss": "bootstrap"})
ANSWERS = [Answer("a.json row 1", "Who?", "Me.", "Me.", 1.0, True)]
RECORDS = [
    RunRequest({"seed": 42}, {"dataset.file": {"rows.json": "ab" * 32}}, Resolved({"seed": 42}, "cd" * 32), 1),
    RunRequest({"seed": 42}, {}, Resolved(), 1),
    DataFacts(
        *(30, 20, 5, 5, {"clean": 5}, {"clean: no": 5}, {"clean: no": [ROW]}),
        clusters=[Cluster(PLACES[0], [Repeat("a.json row 3", "Question 3?", 0.934)], 1)],
        conflicts=[Conflict("Who?", [GivenAnswer("a.json row 1", "Me."), GivenAnswer("a.json row 2", "You.")], "all")],
        doubtful=[Doubtful(0.871, [ROW, replace(ROW, reason=None)])],
        closest=Closest(0.612, *PLACES),
        lengths={"tokens": {"8": 25}, "question_characters": {"10": 25}, "answer_characters": {"0": 25}},
        rendered=[Rendered("a.json row 4", "Who?\n", "Me.<|endoftext|>")],
        sources=[
            Source("a.json", "question", "answer", ["id"], 20, "ab" * 32),
            Source("ada/rows", "q", "a", [], 10, None, "cd" * 20, "main", "train", 30),
        ],
        **{"settings": {"seed": 42}, "flagged": [ROW], "mended": 3, "notes": ["4 of 4 rows contain HTML"]},
    ),
    BaseFacts("ada/tiny", "cd" * 20, None, 1000, 128, "Kickoff's", None, "ef" * 32),
    UnknownQuestions(["How do I boil an egg?"]),
    GroundFacts("ada/finder", "cd" * 20, "ef" * 32),
    SearchFacts(
        *(10.0, "f1", 24, 6, 0.25, 1.5),
        asked=["train.epochs"],
        trials=[Trial(1e-4, 2, 24, 1.5, 0.25, 9.0, 6.0, 2.0), Trial(1e-2, 1, 24)],
        decodings=[DecodingTrial({"repetition_penalty": 1.1}, 0.5), DecodingTrial({}, 0.25)],
        **{"finished": True, "learning_rate": 1e-4, "epochs": 2, "decoding": {}, "notes": ["The time is short"]},
    ),
    TrainingFacts(
        *([{"step": 1, "train_loss": 2.0, "grad_norm": None}, {"step": 2, "test_loss": None}], 2, 0, 8, 4, 99, 40, 1.5),
        **{"tokens_per_second": 66.0, "precision": "bf16", "device": "cpu", "processes": 2},
        **{"answer_only_logits": True, "peak_gib": 0.5, "encoded": {"train": "ab", "test": "cd"}},
        **{"kept_step": 1, "kept_epoch": 1, "kept_loss": 1.5, "stopped_early": True},
    ),
    Measured({"gate": "loss"}, {"model": (TUNED, ANSWERS)}),
    Metrics({"gate": "loss"}, TUNED, PLAIN, Gate("loss", True, 1.25, 2.5, rule="loss must be below 2.5")),
    Metrics({"gate": "off"}, None, None, Gate("off", passed=True, rule="off")),
    Answers(ANSWERS, ANSWERS),
    Published("there", "ada/sums", "cd" * 20, "https://hub.example/ada/sums"),
    Published(),
]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "base").mkdir()
    yield tmp_path


def content(run: Path, kind: type) -> dict[str, Any]:
    return dict(json.loads((run / fact_files.FILES[kind]).read_text()))


@pytest.mark.parametrize("facts", RECORDS, ids=lambda facts: type(facts).__name__)
def test_what_is_written_is_read_again_as_it_was(facts: Any, run: Path) -> None:
    fact_files.write(run, facts)
    assert fact_files.read(run, type(facts)) == facts


def test_every_kind_of_fact_is_tested() -> None:
    assert {type(facts) for facts in RECORDS} == set(fact_files.FILES)


def test_unknown_fields_are_left_out_and_none_is_null(run: Path) -> None:
    for facts in RECORDS:
        fact_files.write(run, facts)
    assert content(run, Published) == {}
    assert content(run, Metrics) == {
        **{"settings": {"gate": "off"}, "model": {}, "base": {}},
        "gate": {"metric": "off", "passed": True, "rule": "off"},
    }
    fact_files.write(run, Metrics({}, TUNED, PLAIN, Gate("loss", False, rule="no")))
    assert (content(run, Metrics)["model"]["perplexity"], "f1" in content(run, Metrics)["base"]) == (None, False)
    assert (content(run, BaseFacts)["checkpoint"], content(run, BaseFacts)["template_date"]) == (None, None)


@pytest.mark.parametrize(
    ("kind", "absent", "values"),
    [
        (DataFacts, ["flagged", "mended", "notes"], {"flagged": [], "mended": 0, "notes": []}),
        (DataFacts, ["doubtful", "rendered", "clusters"], {"doubtful": [], "rendered": [], "clusters": []}),
        (DataFacts, ["conflicts", "closest", "examples"], {"conflicts": [], "closest": None, "examples": {}}),
        (BaseFacts, ["checkpoint", "template_date", "weights"], {"checkpoint": None, "weights": None}),
        (TrainingFacts, ["encoded"], {"encoded": None}),
        (
            TrainingFacts,
            ["kept_step", "kept_epoch", "kept_loss"],
            dict.fromkeys(("kept_step", "kept_epoch", "kept_loss")),
        ),
        (TrainingFacts, ["stopped_early"], {"stopped_early": False}),
        (RunRequest, ["files", "resolved", "version"], {"files": {}, "resolved": Resolved(), "version": 1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_fields_missing_from_an_earlier_version_get_defaults(
    kind: type, absent: list[str], values: dict[str, Any], run: Path
) -> None:
    facts = next(facts for facts in RECORDS if type(facts) is kind)
    fact_files.write(run, facts)
    found = {key: value for key, value in content(run, kind).items() if key not in absent}
    (run / fact_files.FILES[kind]).write_text(json.dumps({**found, "of_a_later_version": 1}))
    expected = replace(facts, **values, **({"template_date": None} if kind is BaseFacts else {}))  # type: ignore[type-var]
    assert fact_files.read(run, kind) == expected


def test_a_field_of_another_kind_names_file_and_field(run: Path) -> None:
    data = next(facts for facts in RECORDS if isinstance(facts, DataFacts))
    (run / "data.json").write_text(fact_files.dump(data).replace('"similarity": 0.934', '"similarity": "near"'))
    with pytest.raises(
        Damaged, match=r"data\.json is from another version .*\(clusters\.0\.victims\.0\.similarity: Inp"
    ):
        fact_files.read(run, DataFacts)
    (run / "asked.json").write_text(json.dumps({"config": {}, "version": 2}))
    with pytest.raises(OtherVersion, match=r"asked\.json is from another version of Kickoff \(facts 2, expected 1\)"):
        fact_files.read(run, RunRequest)


def test_reading_a_missing_fact_gives_none(run: Path) -> None:
    assert [fact_files.read(run, kind) for kind in fact_files.FILES] == [None] * len(fact_files.FILES)
    assert fact_files.read_phases(run) == {}
