"""The rules of clean: which rows are rejected, and which good rows are not."""

import pytest
from cleaning import dataset, reason

from job.config.schema import CleanSection
from job.data.clean.clean import clean, list_flagged
from job.run.row_facts import Row


def test_rules_ignore_layout() -> None:
    assert reason("What is\n  DNS", "what is DNS?") == "the answer only repeats the question"
    assert reason("q", "Click\n  here", unwanted_words=["click here"]) is not None
    assert reason("q", "buy\n" * 10 + "now") is not None
    assert reason("q", " \n.\n\t-") == "the answer is a placeholder: '.\\n\\t-'"
    assert reason("q", "x:" + 30 * " " + "1") is None


GOOD = [
    ("What is 2+2?", "4"),
    ("Which sign adds in Python?", "+"),
    ("What ends a statement in C?", ";"),
    ("How do you feel?", "👍"),
    ("Is water wet?", "Yes."),
    ("9-3", "6"),
    ("日本の首都は？", "東京"),
    ("מה בירת צרפת?", "פריז"),
    ("Hi", "Hi!"),
    ("What is DNS?", "What is DNS? A naming system."),
    ("Write out a googol.", "1" + 100 * "0"),
    ("How does a child laugh?", "Hahahaha, it laughs and laughs."),
    ("Which sentence has the most buffaloes?", "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo"),
    ("Print a row of ten zeros.", "0 0 0 0 0 0 0 0 0 0"),
    ("Make a table.", "| a | b |\n|---|---|\n| 1 | 2 |"),
    ("def f(x):", "def f(x):\n    return x"),
    ("Quelle est la capitale ?", "Paris"),
]


def test_good_rows_are_kept_as_they_are() -> None:
    rows, rejected = clean(CleanSection(), dataset(GOOD))
    assert rejected == []
    assert [row["question"] for row in rows] == [question for question, _ in GOOD]


@pytest.mark.parametrize(
    ("asked", "answered", "because"),
    [
        ("...", "a", "the question is a placeholder: '...'"),
        ("q", "— ?", "the answer is a placeholder: '— ?'"),
        ("What is DNS", "what is  DNS?", "the answer only repeats the question"),
        ("q", "Nooooooooooooo", "the answer is one character repeated: 'o' 13 times"),
        ("q", "哈" * 12, "the answer is one character repeated: '哈' 12 times"),
        ("Buy " * 9 + "buy buy now", "a", None),
        ("q", "Buy " * 10 + "now", "the answer repeats the same words: 'Buy'"),
        ("q", "click here now, " * 10, "the answer repeats the same words: 'click here now,'"),
        ("q", "click here now, " * 9, None),
    ],
)
def test_spam_and_gaps_are_rejected(asked: str, answered: str, because: str | None) -> None:
    assert reason(asked, answered) == because
    switches = {"reject_placeholders": False, "reject_echoes": False, "reject_repetition": False}
    assert reason(asked, answered, **switches) is None


def test_too_short_and_too_long_are_counted_in_characters() -> None:
    limits = {"min_question_characters": 2, "max_question_characters": 3, "min_answer_characters": 3}
    assert reason("q", "äöü", **limits) == "the question is too short: 1 characters, expected at least 2"
    assert reason("q? ?", "äöü", **limits) == "the question is too long: 4 characters, expected at most 3"
    assert reason(" q? ", "äö ", **limits) == "the answer is too short: 2 characters, expected at least 3"
    assert reason(" q? ", "äöü", **limits) is None
    assert "expected at most 2" in reason("q", "äöü", max_answer_characters=2)


def test_other_languages_are_rejected_where_it_is_certain() -> None:
    german = "Die Hauptstadt von Frankreich ist Paris, und sie liegt an der Seine."
    assert reason("Where is Paris?", german) is None
    assert reason("Where is Paris?", german, languages=["en"]) == "the answer is in another language: de"
    assert reason(german, "Paris", languages=["en"]) == "the question is in another language: de"
    assert reason("Where is Paris?", german, languages=["en", "de"]) is None
    assert [reason(*pair, languages=["en"]) for pair in GOOD if pair[0].isascii()] == [None] * 15


def test_offensive_rows_are_rejected_or_kept_and_flagged() -> None:
    pairs = [("What is a class?", "A group."), ("Who are you?", "A piece of sh1t."), ("Scunthorpe?", "A town.")]
    kept, rejected = clean(CleanSection(offensive="reject"), dataset(pairs))
    assert len(kept) == 2
    assert rejected[0].reason == "the answer contains an offensive word: 'sh1t'"
    section = CleanSection(offensive="flag")
    kept, rejected = clean(section, dataset(pairs))
    assert (len(kept), rejected) == (3, [])
    assert list_flagged(section, kept) == [
        Row("qa.json row 2", "Who are you?", "A piece of sh1t.", "the answer contains an offensive word: 'sh1t'")
    ]
    assert list_flagged(CleanSection(), kept) == []
