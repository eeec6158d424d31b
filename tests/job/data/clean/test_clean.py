"""Clean: what is repaired, what is left alone, and that every row is kept or has a reason."""

import unicodedata
from typing import Any

import pytest
from cleaning import answer, dataset, question, reason
from hypothesis import given, settings
from hypothesis import strategies as st

from job.config.schema import CleanSection
from job.data.clean.clean import clean, notes

KEY = "AKIA" + "Q3EGZDX5TJN2MPLE"
FAMILY = "👨\u200d👩\u200d👧"


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
def test_texts_are_repaired(before: str, after: str) -> None:
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
def test_good_texts_stay_unchanged_by_default(text: str) -> None:
    assert answer(text) == text
    assert question(text) == text


def test_fix_text_off_keeps_mojibake_and_decomposed_accents() -> None:
    assert answer("cafÃ© e\u0301", fix_text=False) == "cafÃ© e\u0301"
    assert answer("a\x00 \u200bb", fix_text=False) == "a b"


CODE = "def f(xs):\n    for x in xs:\n        if x > 0:\n            yield x"
KEPT = {
    "python": CODE,
    "yaml": "a:\n  - b: 1\n    c:\n      - d\n\ne: 2",
    "makefile": "all: x\n\techo a\n\t@echo\tb",
    "tsv": "a\tb\t\tc\n1\t2\t\t3",
    "aligned": "name    hours\nBern    9-5\nBasel  10-6",
    "list": "Steps:\n1. Open it.\n   - With care.\n2. Close it.",
    "drawing": "  /\\\n /  \\\n/____\\",
    "markdown": "Run this:\n\n    $ ls  -l\n\nThen look.",
    "paragraphs": "第一段。\n\n第二段。",
    "long blanks": "x =" + 40 * " " + "1\ny" + 40 * " " + "= 2",
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("switches", [{}, {"fix_text": False}, {"remove_html": True}, {"urls": "mask"}], ids=str)
def test_lines_indentation_and_blanks_of_both_texts_are_kept(kind: str, switches: dict[str, Any]) -> None:
    assert answer(KEPT[kind], **switches) == KEPT[kind]
    assert question(KEPT[kind], **switches) == KEPT[kind]


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\u2028", "\u2029"])
def test_every_line_break_becomes_a_newline_and_indentation_stays(break_: str) -> None:
    assert answer(CODE.replace("\n", break_)) == CODE
    assert question(CODE.replace("\n", break_), fix_text=False) == CODE


def test_nel_is_a_line_break_or_with_fix_text_an_ellipsis() -> None:
    assert answer("one\x85two", fix_text=False) == "one\ntwo"
    assert answer("one\x85two") == "one…two"


def test_other_steps_leave_the_lines_alone() -> None:
    text = "The cat:\n\n    IT runs\tto the dog\n    it JUMPS"
    assert answer(text, lowercase=True) == text.lower()
    assert answer(text, stem=True) == "the cat:\n\n    it run\tto the dog\n    it jump"
    assert answer(text, remove_stop_words=True) == "cat:\n\n    runs\tdog\n    JUMPS"


def test_python_and_yaml_still_parse() -> None:
    rows = [
        (f"    Write it.\n\n    {n}", "\n\n" + "".join(f"  {line}  \r\n" for line in CODE.split("\n"))) for n in "ab"
    ]
    kept, rejected = clean(CleanSection(), dataset(rows))
    assert rejected == []
    assert kept["answer"][:] == [CODE, CODE]
    compile(kept[0]["answer"], "answer", "exec")
    assert kept["question"][:] == ["Write it.\n\na", "Write it.\n\nb"]


def test_rows_with_html_are_reported_with_the_config_key() -> None:
    rows = dataset([("What?", "<p>One</p>"), ("Is a < b?", "List<String> & more"), ("x&nbsp;y", "z")])
    (note,) = notes(CleanSection(), [rows, rows])
    assert note.startswith("4 of 6 rows contain HTML, such as '<p>' in qa.json row 1; clean.remove_html: true")
    assert notes(CleanSection(remove_html=True), [rows]) == []
    assert notes(CleanSection(), [rows.select([1])]) == []


def test_lowercase() -> None:
    assert answer("The Hub", lowercase=True) == "the hub"


def test_remove_html() -> None:
    assert answer("<p class='x'>a &amp; b</p><!-- c\nd --> 1 < 2 > 0", remove_html=True) == "a & b\n\n1 < 2 > 0"
    assert answer("e&#769;&#0;&#8203;x", remove_html=True) == "é\ufffdx"
    listed = "<ol>\n  <li>Open it.</li>\n  <li>Close it.</li>\n</ol>"
    assert question(listed, remove_html=True) == "Open it.\nClose it."
    assert answer(f"Run:<pre><code>{CODE.replace('>', '&gt;')}</code></pre>", remove_html=True) == f"Run:\n\n{CODE}"


def test_stop_words_and_stems() -> None:
    assert answer("The capital of France is Paris.", remove_stop_words=True) == "capital France Paris."
    assert answer("Running horses’ [url]", stem=True) == "run hor’ [url]"
    assert answer("Die Häuser der Stadt", words_language="german", remove_stop_words=True, stem=True) == "haus stadt"


@pytest.mark.parametrize("nothing", ["\x00", "\u200b\ufeff", " \x07\n"])
def test_a_row_that_is_empty_after_cleaning_is_rejected(nothing: str) -> None:
    rows, rejected = clean(CleanSection(), dataset([(nothing, "a"), ("q", nothing), ("q", "a")]))
    assert [row["where"] for row in rows] == ["qa.json row 3"]
    assert [(row.where, row.stage, row.reason) for row in rejected] == [
        ("qa.json row 1", "clean", "the question is empty after cleaning"),
        ("qa.json row 2", "clean", "the answer is empty after cleaning"),
    ]


def test_a_row_of_html_tags_is_rejected_if_html_is_removed() -> None:
    _, rejected = clean(CleanSection(remove_html=True), dataset([("q", "<br/>")]))
    assert rejected[0].reason == "the answer is empty after cleaning"


def test_no_rows() -> None:
    rows, rejected = clean(CleanSection(), dataset([]))
    assert (len(rows), rejected, rows.column_names) == (0, [], ["question", "answer", "where"])


ESCAPED = [
    ("<p>Use a list:</p><pre><code>&lt;ul&gt;\n  &lt;li&gt;One&lt;/li&gt;\n&lt;/ul&gt;\n</code></pre>",
     "Use a list:\n\n<ul>\n  <li>One</li>\n</ul>"),
    ("<p>Write <code>&lt;br&gt;</code> or <code>&lt;!-- so --&gt;</code>.</p>", "Write <br> or <!-- so -->."),
    ("<p><code>&amp;lt;b&amp;gt;</code> shows <code>&lt;b&gt;</code></p>", "&lt;b&gt; shows <b>"),
    ("<p>A\u200b <b\u200b>bold</b> word, caf\u00c3\u00a9</p>", "A bold word, caf\u00e9"),
]  # fmt: skip


@pytest.mark.parametrize(("page", "text"), ESCAPED)
def test_code_that_is_escaped_in_html_stays(page: str, text: str) -> None:
    assert answer(page, remove_html=True) == text
    assert question(page, remove_html=True, urls="mask") == text
    assert answer(text) == text


def test_a_text_that_each_round_changes_again_is_rejected() -> None:
    assert "still changes after 20 rounds" in reason("q", "hope" + 60 * "fulness", stem=True)
    assert answer("hope" + 5 * "fulness", stem=True) == "hope"


FRAGMENTS = [
    "cafÃ©", "e\u0301", "\u200b", "\ufeff", "\x1b[36m", "\r\n", "\u2028", "  ", "\x00", "İ", "ﬁ", "1",
    "&amp;lt;i&amp;gt;", "&lt;", "<b>", "<", ">", "<!-- x -->", "http://", "www.a.org/b", "@", "ada@mail.example.org",
    "+41 44 668 18 00", "650 253 0000", "[url]", "[", "Running", "flies", "generalisations", "the", "of", "...", "?",
    "\n", "\n    ", "\n\n", "\t", "<li>", "</li>", "<td>", "<pre>", "</pre>", "<ul>", "<br>",
    "-", "aaaaaaaaaaaa", "buy now ", "sh1t", "AKIA", KEY, "Die Hauptstadt von Frankreich ist Paris.", FAMILY, "हिन्दी",
    "日本",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)).map("".join)
CONTACT = st.sampled_from(["keep", "mask", "reject"])
SECTION = st.builds(
    CleanSection,
    **{name: st.booleans() for name, field in CleanSection.model_fields.items() if field.annotation is bool},
    urls=CONTACT,
    emails=CONTACT,
    phone_numbers=CONTACT,
    offensive=st.sampled_from(["keep", "reject"]),
    languages=st.sampled_from([(), ("en",)]),
    min_answer_characters=st.integers(1, 3),
    max_question_characters=st.none() | st.integers(5, 50),
    unwanted_words=st.lists(st.text("a.+ ", min_size=1, max_size=2), max_size=2).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.tuples(TEXT, TEXT), max_size=6), section=SECTION)
def test_nothing_is_lost_and_cleaning_twice_is_cleaning_once(
    texts: list[tuple[str, str]], section: CleanSection
) -> None:
    before = dataset(texts)
    rows, rejected = clean(section, before)
    assert sorted([*rows["where"], *(row.where for row in rejected)]) == sorted(before["where"])
    for row in rows:
        for text in (row["question"], row["answer"]):
            assert text.strip() and text == text.rstrip() and "\n\n\n" not in text
            assert all(line == line.rstrip() for line in text.split("\n")) and text.split("\n")[0]
            assert not any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in text)
            assert not section.fix_text or unicodedata.is_normalized("NFC", text)
    # code that was escaped in HTML is there now, and is no markup; all the other steps are done
    again, rejected_again = clean(section.model_copy(update={"remove_html": False}), rows)
    assert rejected_again == []
    assert again[:] == rows[:]
