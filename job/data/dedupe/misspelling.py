"""Misspelling: decides whether one of two words is surely a misspelling of the other.

Most words that differ in one letter are two words: ethane and ethene, Iran and Iraq, Staat and Stadt. So a word counts
as misspelt only if English does not know it, it is rare in the data, and it looks like a slip rather than another
ending, prefix or name. Words of other languages never count, since no list of their words is at hand.

It knows two words and how often they occur in the data. It does not know rows.
"""

from dataclasses import dataclass

from rapidfuzz.distance import OSA

from job.data.dedupe import english

_MIN_LETTERS = 4
_MIN_ELSEWHERE = 1
"""Times that the right spelling must occur outside the two rows that are compared; the second for a name."""
_MIN_NAME_ELSEWHERE = 2
_MIN_RATIO_ANSWERED = 100
_MIN_RATIO_QUESTION_WORD = 10_000
"""How much more common in English the right word must be than the misspelt one: if it occurs in the answer, and if it
is a question word."""
_MIN_RATIO_DATA = 20
"""How much more often the right spelling must occur in the data than one that is misspelt more than once."""
_MIN_EVERYDAY_COUNT = 20_000
"""English words with this count have no neighbours that only a specialist knows, as methane has methene."""
_MIN_SHARED_ENDING = 3
_VOWELS = frozenset("aeiouy")
_QUESTION_WORDS = frozenset(("what", "when", "where", "which", "whose"))
_VERBS = frozenset(
    ("is", "are", "was", "were", "do", "does", "did", "can", "may", "must", "should", "has", "have", "will", "happens")
)
_NEGATIONS = frozenset(("never", "without", "cannot", "none", "neither", "nothing", "nobody", "nowhere", "hardly"))


@dataclass(frozen=True)
class Occurrence:
    """A word of one of two rows, and where else it occurs."""

    word: str
    elsewhere: int
    """Times that it occurs in the data outside the two rows."""
    next_word: str
    """The next word, if it begins the question; else empty."""
    is_name: bool
    """Whether it has a capital inside a sentence that has small letters too."""
    in_answer: bool
    """Whether its row's answer holds it."""


def is_misspelling(one: Occurrence, other: Occurrence) -> bool:
    """Whether one of two words, the rarer in the data, is surely a misspelling of the other."""
    right, wrong = (one, other) if one.elsewhere >= other.elsewhere else (other, one)
    word, misspelt = right.word, wrong.word
    if not (word.isascii() and word.isalpha() and misspelt.isascii() and misspelt.isalpha()):
        return False
    if max(len(word), len(misspelt)) < _MIN_LETTERS or OSA.distance(word, misspelt, score_cutoff=1) > 1:
        return False
    if wrong.in_answer or {word, misspelt} & _NEGATIONS:
        return False
    if word in _QUESTION_WORDS and misspelt not in _QUESTION_WORDS and right.next_word:
        # "hat is the offside rule?" asks for no hat
        return right.next_word in _VERBS or english.frequency(misspelt) * _MIN_RATIO_QUESTION_WORD < english.frequency(
            word
        )
    if right.elsewhere < _MIN_ELSEWHERE or wrong.elsewhere * _MIN_RATIO_DATA > right.elsewhere:
        return False
    misspelt_count = english.frequency(misspelt)
    answered_and_rare = right.in_answer and misspelt_count * _MIN_RATIO_ANSWERED < english.frequency(word)
    return (not misspelt_count or answered_and_rare) and _is_slip(right, misspelt)


def _is_slip(right: Occurrence, misspelt: str) -> bool:
    """Whether the words differ by a slip, and not as endings, prefixes and names differ."""
    word = right.word
    before, after = _common_edges(word, misspelt)
    replaced_letters, replacing_letters = (
        word[before : len(word) - after],
        misspelt[before : len(misspelt) - after],
    )
    if after == 0 and len(replaced_letters) < 2:  # another ending, unless two letters changed places
        return False
    if before == 0 and not replaced_letters:  # another prefix
        return False
    replaced = len(replaced_letters) == len(replacing_letters) == 1
    same_kind = replaced and (replaced_letters in _VOWELS) == (replacing_letters in _VOWELS)
    common = english.frequency(word)
    everyday = common >= _MIN_EVERYDAY_COUNT
    if same_kind and after < _MIN_SHARED_ENDING and not everyday:  # methane and methene
        return False
    if right.is_name or not common:
        inside = before > 0 and (after > 0 or len(replaced_letters) == 2)
        if right.elsewhere < _MIN_NAME_ELSEWHERE or not (right.in_answer or (inside and not same_kind and common)):
            return False
    return True


def _common_edges(word: str, other: str) -> tuple[int, int]:
    """The length of the common prefix, and of the common suffix of the rest."""
    shorter = min(len(word), len(other))
    before = next((index for index in range(shorter) if word[index] != other[index]), shorter)
    rest = shorter - before
    after = next((index for index in range(rest) if word[-1 - index] != other[-1 - index]), rest)
    return before, after
