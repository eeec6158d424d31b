"""Layout: which blanks and lines of a text stay."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.layout import trim, unify_line_breaks


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a  \nb\t\n\n\n\nc\u00a0\n\n", "a\nb\n\nc"),
        ("  a  b\tc ", "a  b\tc"),
        ("\u00a0a\u3000", "a"),
        ("\n\n    if x:\n        y\n    else:\n        z\n", "if x:\n    y\nelse:\n    z"),
        ("\n  \n\tone\n\t\ttwo\n", "one\n\ttwo"),
        ("        x\n    y\nz", "        x\n    y\nz"),
        ("    x\n  \n  y", "  x\n\ny"),
        ("\u3000\u3000一\n\u3000\u3000二", "一\n二"),
        ("\ta\n    b", "\ta\n    b"),
        (" \n\t\n", ""),
    ],
)
def test_texts_are_trimmed(before: str, after: str) -> None:
    assert trim(before) == after


def test_one_blank_before_a_completion_is_no_indentation() -> None:
    assert trim(" It is.\nSo it is.") == "It is.\nSo it is."
    assert trim(" def f():\n    return 1\n\ndef g():\n    pass").startswith("def f():\n    return")
    assert trim(" o\n/|\\") == " o\n/|\\"
    assert trim(" ab\nc\n de") == " ab\nc\n de"


@given(st.text(st.sampled_from("ab \t\n\u00a0\u3000:-"), max_size=40))
def test_relative_indentation_stays(text: str) -> None:
    once = trim(text)
    assert trim(once) == once
    assert once.split() == text.split()
    filled = [line.rstrip() for line in text.split("\n") if line.strip()]
    left = [line for line in once.split("\n") if line]
    assert [line.lstrip() for line in left] == [line.lstrip() for line in filled]
    if len(filled) > 1 and filled[0][:1] not in " \u00a0\u3000":
        shared = len(filled[0]) - len(left[0])
        assert [line[shared:] for line in filled] == left


@given(st.lists(st.sampled_from(["a", "  b", "\tc", "    d", ""]), min_size=1))
def test_as_textwrap_dedents(lines: list[str]) -> None:
    text = "\n".join(f"    {line}" if line else "" for line in ["x", *lines, "x"])
    assert trim(text).replace("\n", "") == textwrap.dedent(text).replace("\n", "")


def test_line_breaks() -> None:
    assert unify_line_breaks("a\r\nb\rc\x0bd\x0ce\u2028f\u2029g\nh") == "a\nb\nc\nd\ne\nf\ng\nh"
    assert unify_line_breaks("a\r\n\r\nb") == "a\n\nb"
