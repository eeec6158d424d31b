"""Clean: what is repaired, what is left alone, and that every row is kept or has a reason."""

import unicodedata

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.clean import clean
from job.config import CleanSection

FAMILY = "👨\u200d👩\u200d👧"


def dataset(pairs: list[tuple[str, str]]) -> datasets.Dataset:
    questions, answers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    where = [f"qa.json row {number}" for number in range(1, len(pairs) + 1)]
    columns = {"question": questions, "answer": answers, "where": where}
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


def answer(text: str, **switches: bool) -> str:
    rows, rejected = clean(CleanSection(**switches), dataset([("q", text)]))
    assert not rejected
    return str(rows[0]["answer"])


def question(text: str, **switches: bool) -> str:
    rows, rejected = clean(CleanSection(**switches), dataset([(text, "a")]))
    assert not rejected
    return str(rows[0]["question"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cafÃ©", "café"),
        ("itâ€™s", "it’s"),
        ("cafe\u0301", "café"),
        ("cafe\u200b\u0301", "café"),
        ("a\x00b\x07c\x1bd\x7f", "abcd"),
        ("a\u200bb\u2060c\ufeffd", "abcd"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u2028b", "a\nb"),
    ],
)
def test_repaired(before: str, after: str) -> None:
    assert answer(before) == after


@pytest.mark.parametrize(
    "text",
    [
        f"a {FAMILY} b",
        "❤️",
        "“quoted” and ‘so’",
        "ﬁne",
        "ＦＵＬＬ",
        "&amp; <b>bold</b>",
        "see https://example.org/a?b=c.",
        "UPPER lower",
        "می\u200cخواهم",
        "क्\u200dष",
        "מה זה? ما هو؟",
        "H₂O x²",
        "1/2 – 3 — 4…",
    ],
)
def test_left_alone_by_default(text: str) -> None:
    assert answer(text) == text
    assert question(text) == text


def test_fix_text_off_keeps_mojibake_and_decomposed_accents() -> None:
    assert answer("cafÃ© e\u0301", fix_text=False) == "cafÃ© e\u0301"
    assert answer("a\x00 \u200bb", fix_text=False) == "a b"


def test_whitespace_of_a_question_becomes_single_blanks() -> None:
    assert question("  What\t is\n\n DNS \u00a0?\r\n") == "What is DNS ?"


def test_newlines_of_an_answer_are_kept() -> None:
    assert answer("\n\n one  two \t\n three\n\n\n\n\nfour \u00a0 \n") == "one two\nthree\n\nfour"


def test_lowercase() -> None:
    assert answer("The Hub", lowercase=True) == "the hub"


def test_remove_html() -> None:
    assert answer("<p class='x'>a &amp; b</p><!-- c\nd --> 1 < 2 > 0", remove_html=True) == "a & b 1 < 2 > 0"
    assert answer("e&#769;&#0;&#8203;x", remove_html=True) == "é\ufffdx"


def test_remove_urls() -> None:
    assert answer("see http://a.org/b?c=d and HTTPS", remove_urls=True) == "see and HTTPS"


def test_unwanted_words_are_whole_words_whatever_their_case() -> None:
    pairs = [("A class?", "b"), ("Ass?", "b"), ("a", "An ASS."), ("a", "assess"), ("a", "c++!"), ("a", "xc++ c++d")]
    section = CleanSection(unwanted_words=("ass", "c++"))
    rows, rejected = clean(section, dataset(pairs))
    assert rows["where"][:] == ["qa.json row 1", "qa.json row 4", "qa.json row 6"]
    assert rejected == [
        {"where": "qa.json row 2", "stage": "clean", "reason": "the question holds the unwanted word 'Ass'"},
        {"where": "qa.json row 3", "stage": "clean", "reason": "the answer holds the unwanted word 'ASS'"},
        {"where": "qa.json row 5", "stage": "clean", "reason": "the answer holds the unwanted word 'c++'"},
    ]


@pytest.mark.parametrize("nothing", ["\x00", "\u200b\ufeff", " \x07\n"])
def test_row_that_is_empty_once_cleaned(nothing: str) -> None:
    rows, rejected = clean(CleanSection(), dataset([(nothing, "a"), ("q", nothing), ("q", "a")]))
    assert [row["where"] for row in rows] == ["qa.json row 3"]
    assert [(row["where"], row["stage"], row["reason"]) for row in rejected] == [
        ("qa.json row 1", "clean", "the question is empty once cleaned"),
        ("qa.json row 2", "clean", "the answer is empty once cleaned"),
    ]


def test_row_of_nothing_but_html_is_rejected_if_html_is_removed() -> None:
    _, rejected = clean(CleanSection(remove_html=True), dataset([("q", "<br/>")]))
    assert rejected[0]["reason"] == "the answer is empty once cleaned"


def test_no_rows() -> None:
    rows, rejected = clean(CleanSection(), dataset([]))
    assert (len(rows), rejected, rows.column_names) == (0, [], ["question", "answer", "where"])


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text("a \n\r\t\x00\x85\u200b\u0301\u2028Ã©<>&;")


@settings(max_examples=80, deadline=None)
@given(
    texts=st.lists(st.tuples(TEXT, TEXT), max_size=8),
    switches=st.fixed_dictionaries(
        {name: st.booleans() for name in ("fix_text", "lowercase", "remove_html", "remove_urls")}
    ),
    words=st.lists(st.text("a.+ ", min_size=1, max_size=2), max_size=2),
)
def test_nothing_is_lost(texts: list[tuple[str, str]], switches: dict[str, bool], words: list[str]) -> None:
    before = dataset(texts)
    rows, rejected = clean(CleanSection(**switches, unwanted_words=tuple(words)), before)
    assert sorted([*rows["where"], *(row["where"] for row in rejected)]) == sorted(before["where"])
    for row in rows:
        assert row["question"] == " ".join(row["question"].split()) != ""
        assert row["answer"] == row["answer"].strip() != ""
        for text in (row["question"], row["answer"]):
            assert not any(unicodedata.category(character) == "Cc" and character != "\n" for character in text)
            assert not switches["fix_text"] or unicodedata.is_normalized("NFC", text)
