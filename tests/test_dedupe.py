"""Dedupe: which questions count as the same, and what a rejected row says."""

from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job import dedupe as stage
from job.config import DedupeSection
from job.spelling import normalised

ON = DedupeSection()


def dataset(pairs: list[tuple[str, str]], name: str = "qa.json") -> datasets.Dataset:
    columns = {
        "question": [pair[0] for pair in pairs],
        "answer": [pair[1] for pair in pairs],
        "where": [f"{name} row {number}" for number in range(1, len(pairs) + 1)],
    }
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


def dedupe(
    section: DedupeSection, rows: datasets.Dataset, test: datasets.Dataset | None = None
) -> tuple[datasets.Dataset, list[dict[str, Any]]]:
    kept, _, rejected, _ = stage.dedupe(section, rows, test)
    return kept, rejected


def kept(questions: list[str]) -> list[str]:
    return list(dedupe(ON, dataset([(question, "a") for question in questions]))[0]["question"])


@pytest.mark.parametrize(
    "again",
    [
        "What is the offside rule?",
        "what is THE offside rule",
        "What is  the off-side rule".replace("-", ""),
        "«What is the offside rule»?!",
        "What_is-the.offside/rule",
        "Ｗｈａｔ is the oﬀside rule?",
    ],
)
def test_case_punctuation_and_blanks_do_not_make_a_question_new(again: str) -> None:
    rows, rejected = dedupe(ON, dataset([("What is the offside rule?", "a"), ("New?", "b"), (again, "a")]))
    assert list(rows["where"]) == ["qa.json row 1", "qa.json row 2"]
    assert rejected == [{"where": "qa.json row 3", "stage": "dedupe", "reason": "asks the same as qa.json row 1"}]


def test_accents_encoded_otherwise_are_the_same() -> None:
    assert kept(["Qui est José?", "Qui est Jose\u0301?", "Straße", "STRASSE"]) == ["Qui est José?", "Straße"]


@pytest.mark.parametrize(
    "questions",
    [
        ["What is 1.5?", "What is 15?"],
        ["What is C?", "What is C++?", "What is C#?"],
        ["What is .NET?", "What is net?"],
        ['What does "!" do?', 'What does "?" do?'],
        ["What is R&D?", "What is RD?"],
        ["Qui est José?", "Qui est Jose?"],
        ["दिन", "दीन"],  # Hindi: day, poor; they differ in a vowel sign alone
        ["ใกล้", "ไกล"],  # Thai: near, far
        ["ما هو؟", "من هو؟"],
        ["?", "!", "?!"],
        ["❤️", "☀️"],
        ["👨\u200d👩\u200d👧", "👨\u200d👩"],
    ],
)
def test_different_questions_stay_apart(questions: list[str]) -> None:
    assert kept(questions) == questions


def test_questions_of_punctuation_only() -> None:
    assert kept(["?", "?", "...", "?", "a", "A?"]) == ["?", "...", "a"]


def test_another_answer_is_said() -> None:
    _, rejected = dedupe(ON, dataset([("q", "a"), ("Q?", "b"), ("q!", "a")]))
    assert [row["reason"] for row in rejected] == [
        "asks the same as qa.json row 1, with another answer",
        "asks the same as qa.json row 1",
    ]


def test_rows_given_for_testing_win_over_training_rows() -> None:
    test = dataset([("Who?", "x"), ("When?", "y")], "test.json")
    rows, rejected = dedupe(ON, dataset([("who", "x"), ("Where?", "z"), ("WHEN", "w"), ("where", "z")]), test)
    assert list(rows["question"]) == ["Where?"]
    assert [(row["where"], row["reason"]) for row in rejected] == [
        ("qa.json row 1", "asks the same as test.json row 1"),
        ("qa.json row 3", "asks the same as test.json row 2, with another answer"),
        ("qa.json row 4", "asks the same as qa.json row 2"),
    ]


def test_test_rows_of_a_file_of_the_same_name_win_too() -> None:
    rows, rejected = dedupe(ON, dataset([("Who?", "x")]), dataset([("Who?", "x")]))
    assert (len(rows), len(rejected)) == (0, 1)


def test_off_keeps_everything() -> None:
    rows = dataset([("q", "a"), ("q", "a")])
    after, rejected = dedupe(DedupeSection(exact=False, near=False), rows, rows)
    assert (list(after), rejected) == (list(rows), [])


def test_no_rows() -> None:
    rows, rejected = dedupe(ON, dataset([]))
    assert (len(rows), rejected) == (0, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from("aA?b "), max_size=8))
def test_nothing_is_lost_and_each_question_stays_once(questions: list[str]) -> None:
    before = dataset([(question, "a") for question in questions])
    rows, rejected = dedupe(ON, before)
    assert sorted([*rows["where"], *(row["where"] for row in rejected)]) == sorted(before["where"])
    assert [normalised(question) for question in rows["question"]] == list(dict.fromkeys(map(normalised, questions)))
