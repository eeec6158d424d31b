"""Misspelling: what is surely one, with the data on the side of the right word, and what is not."""

import pytest

from job.data.dedupe.misspelling import Occurrence, is_misspelling


def seen(word: str, elsewhere: int, before: str = "", named: bool = False, answered: bool = False) -> Occurrence:
    return Occurrence(word, elsewhere, before, named, answered)


@pytest.mark.parametrize(
    ("word", "slip"),
    [
        ("referee", "refreee"),
        ("penalty", "penallty"),
        ("goalkeeper", "golkeeper"),
        ("striker", "strnker"),
        ("question", "quesiton"),
        ("balance", "blance"),
    ],
)
def test_misspellings_are_recognized_by_english_and_by_the_data(word: str, slip: str) -> None:
    assert is_misspelling(seen(word, 3), seen(slip, 0))
    assert is_misspelling(seen(slip, 0), seen(word, 3)), "in either order"
    assert not is_misspelling(seen(word, 0), seen(slip, 0)), "nothing says which of them is right"
    assert not is_misspelling(seen(word, 3), seen(slip, 2)), "it stands elsewhere"
    assert not is_misspelling(seen(word, 3), seen(slip, 0, answered=True)), "its answer uses it"


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("hotel", "hostel"),
        ("country", "county"),
        ("desert", "dessert"),
        ("trail", "trial"),
        ("nitrate", "nitrite"),
        ("ethane", "ethene"),
        ("methane", "methene"),
        ("phosphate", "phosphite"),
        ("system", "systemd"),
        ("moral", "amoral"),
        ("typical", "atypical"),
        ("ever", "never"),
        ("house", "houses"),
        ("mutter", "mütter"),
        ("books", "bookz"),
        ("version2", "version3"),
        ("not", "now"),
        ("книга", "книги"),
        ("كتاب", "كتب"),
        ("강남지점", "강북지점"),
    ],
)
def test_words_that_differ_in_a_letter_are_words(word: str, other: str) -> None:
    """However often the data has one of them, and though the other stands nowhere else."""
    for answered in (False, True):
        assert not is_misspelling(seen(word, 100, answered=answered), seen(other, 0))


@pytest.mark.parametrize(("name", "other"), [("Smith", "Smyth"), ("Springdale", "Springvale"), ("Johnson", "Jonson")])
def test_names_are_spelt_in_many_ways(name: str, other: str) -> None:
    assert not is_misspelling(seen(name.lower(), 100, named=True), seen(other.lower(), 0, named=True))


@pytest.mark.parametrize(
    ("slip", "before", "told"), [("hat", "is", True), ("hat", "sizes", False), ("wat", "shape", True)]
)
def test_a_question_begins_with_a_question_word(slip: str, before: str, told: bool) -> None:
    assert is_misspelling(seen("what", 50, before=before), seen(slip, 5, before=before)) == told
