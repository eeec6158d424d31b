"""Dedupe: which questions count as the same, and what a rejected row says."""

import pytest
from deduping import ON, dataset, dedupe, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from job.config.schema import DedupeSection
from job.data.dedupe import dedupe as stage
from job.data.dedupe.wording import normalise_wording
from job.run.row_facts import Rejection


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
    assert rejected == [Rejection("qa.json row 3", "dedupe", "asks the same as qa.json row 1")]


def test_differently_encoded_accents_are_equal() -> None:
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
        ["What is -5?", "What is 5?"],
        ["What is 1.5?", "What is 1-5?", "What is 1/5?", "What is 1:5?"],
        ["Is it 5-4?", "Is it 54?"],
        ["What is x²?", "What is x2?", "What is x₂?"],
        ["What is ½?", "What is 1/2?"],
        ["What does a != b mean?", "What does a = b mean?"],
        ["What does a->b mean?", "What does a>b mean?"],
        ["What is a//b?", "What is a/b?"],
        ["What is []?", "What is {}?", "What is ()?"],
        ["What is x[0]?", "What is x 0?"],
        ["What is grep -v?", "What is grep -V?", "What is grep v?"],
        ["Is 5 mW enough?", "Is 5 MW enough?"],
        ["Is 5mg enough?", "Is 5Mg enough?"],
        ["What is 5!?", "What is 5?"],
        ["Was sind die Maße?", "Was sind die Masse?"],
        ["What does this do?\nif x:\n    a()\nb()", "What does this do?\nif x:\n    a()\n    b()"],
    ],
)
def test_different_questions_stay_apart(questions: list[str]) -> None:
    assert kept(questions) == questions


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does Polish mean?", "What does polish mean?"),
        ("What does US mean?", "What does us mean?"),
        ("Turkey is what?", "What is in Turkey?"),
        ("IT is what?", "It is what?"),
    ],
)
def test_a_name_is_another_word_where_the_answers_differ(one: str, other: str) -> None:
    rows, _, rejected, found = stage.dedupe(ON, dataset([(one, "The first answer."), (other, "Something else.")]))
    assert (len(rows), rejected, found.conflicts) == (2, [], [])


def test_without_capitals_names_are_not_recognized_and_both_answers_are_shown() -> None:
    rows, _, rejected, found = stage.dedupe(
        ON, dataset([("what is polish?", "A wax."), ("What is Polish?", "A tongue.")])
    )
    assert (len(rows), len(rejected)) == (1, 1)
    assert [answer.answer for answer in found.conflicts[0].answers] == ["A wax.", "A tongue."]


def test_answers_that_differ_in_their_indentation_are_two_answers() -> None:
    code = ["if x:\n    a()\n    b()", "if x:\n    a()\nb()"]
    _, _, rejected, found = stage.dedupe(ON, dataset([("How is it written?", text) for text in code]))
    assert rejected[0].reason.endswith("with another answer")
    assert [answer.answer for answer in found.conflicts[0].answers] == code


def test_rows_that_are_encoded_already_pass_through() -> None:
    rows = dataset([("Who?", "x"), ("who", "x"), ("Where?", "y")])
    rows = rows.add_column("input_ids", [[1, 2], [3], [4, 5, 6]]).add_column("labels", [[-100, 2], [3], [4, 5, 6]])
    after, _, rejected, found = stage.dedupe(ON, rows)
    assert (after["input_ids"][:], after["labels"][:]) == ([[1, 2], [4, 5, 6]], [[-100, 2], [4, 5, 6]])
    assert (len(rejected), found.families.tolist()) == (1, [0, 2])


def test_one_question_with_very_many_answers() -> None:
    rows = dataset([("What is DNS?", f"Answer {number} of many.") for number in range(3000)])
    after, rejected = dedupe(DedupeSection(conflicts="keep_all"), rows)
    assert (len(after), rejected) == (3000, [])


def test_questions_of_punctuation_only() -> None:
    assert kept(["?", "?", "...", "?", "a", "A?"]) == ["?", "...", "a"]


def test_the_reason_mentions_a_different_answer() -> None:
    _, rejected = dedupe(ON, dataset([("q", "a"), ("Q?", "b"), ("q!", "a")]))
    assert [row.reason for row in rejected] == [
        "asks the same as qa.json row 1, with another answer",
        "asks the same as qa.json row 1",
    ]


def test_rows_given_for_testing_win_over_training_rows() -> None:
    test = dataset([("Who?", "x"), ("When?", "y")], "test.json")
    rows, rejected = dedupe(ON, dataset([("who", "x"), ("Where?", "z"), ("WHEN", "w"), ("where", "z")]), test)
    assert list(rows["question"]) == ["Where?"]
    assert [(row.where, row.reason) for row in rejected] == [
        ("qa.json row 1", "asks the same as test.json row 1"),
        ("qa.json row 3", "asks the same as test.json row 2, with another answer"),
        ("qa.json row 4", "asks the same as qa.json row 2"),
    ]


def test_test_rows_of_a_file_with_the_same_name_win() -> None:
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
    assert sorted([*rows["where"], *(row.where for row in rejected)]) == sorted(before["where"])
    assert [normalise_wording(question) for question in rows["question"]] == list(
        dict.fromkeys(map(normalise_wording, questions))
    )
