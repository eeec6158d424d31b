"""Misspelling: whether one of two words is surely the other, misspelt.

Most words that differ in one letter are two words: ethane and ethene, Iran and Iraq, Staat and Stadt. So a misspelling
is claimed only of a word that English does not know, that stands nowhere else in the data, and that looks like a slip
and not like another ending, another prefix or another name. Words of other languages are never claimed: there is no
list of their words here. It knows two words and how often they stand in the data. It does not know rows.
"""

from dataclasses import dataclass

from rapidfuzz.distance import OSA

from job.data.dedupe import english

_SHORTEST = 4
_SHORTEST_NAME = 5
_ELSEWHERE = 1
"""Times that the right spelling stands in the data apart from the two rows that are compared."""
_NAME_ELSEWHERE = 2
_FAR_RARER = 100
_RARER = 10_000
"""What looks like a rare word, and stands for a question word this much more common, is none."""
_TIMES = 20
"""A misspelling that is made more than once is this much rarer than the word."""
_EVERYDAY = 20_000
"""English words counted so often have no neighbours that only a specialist knows, as methane has methene."""
_ENDING = 3
_VOWELS = frozenset("aeiouy")
_QUESTION_WORDS = frozenset(("what", "when", "where", "which", "whose"))
_VERBS = frozenset(
    ("is", "are", "was", "were", "do", "does", "did", "can", "may", "must", "should", "has", "have", "will", "happens")
)
_NEGATIONS = frozenset(("never", "without", "cannot", "none", "neither", "nothing", "nobody", "nowhere", "hardly"))


@dataclass(frozen=True)
class Seen:
    """A word, and how often it stands in the data apart from the two rows.

    `before`: the next word, if it begins the question; else "". `named`: it has a capital inside a sentence that has
    small letters too. `answered`: it stands in the answer.
    """

    word: str
    elsewhere: int
    before: str
    named: bool
    answered: bool


def is_misspelling(one: Seen, other: Seen) -> bool:
    """Whether one is surely a misspelling of the other; which of them, the data says."""
    right, wrong = (one, other) if one.elsewhere >= other.elsewhere else (other, one)
    word, slip = right.word, wrong.word
    if not (word.isascii() and word.isalpha() and slip.isascii() and slip.isalpha()):
        return False
    if max(len(word), len(slip)) < _SHORTEST or OSA.distance(word, slip, score_cutoff=1) > 1:
        return False
    if wrong.answered or {word, slip} & _NEGATIONS:
        return False
    if word in _QUESTION_WORDS and slip not in _QUESTION_WORDS and right.before:
        # "hat is the offside rule?" asks for no hat
        return right.before in _VERBS or english.frequency(slip) * _RARER < english.frequency(word)
    if right.elsewhere < _ELSEWHERE or wrong.elsewhere * _TIMES > right.elsewhere:
        return False
    known = english.frequency(slip)
    told = right.answered and known * _FAR_RARER < english.frequency(word)
    return (not known or told) and _is_slip(right, slip)


def _is_slip(right: Seen, slip: str) -> bool:
    """Whether the letters differ as a finger slips, and not as endings, prefixes and names do."""
    word = right.word
    before, after = _common(word, slip)
    here, there = word[before : len(word) - after], slip[before : len(slip) - after]
    if after == 0 and len(here) < 2:  # another ending; two letters that changed places are none
        return False
    if before == 0 and not here:  # another prefix
        return False
    replaced = len(here) == len(there) == 1
    alike = replaced and (here in _VOWELS) == (there in _VOWELS)
    common = english.frequency(word)
    everyday = common >= _EVERYDAY
    if alike and after < _ENDING and not everyday:  # methane and methene
        return False
    if right.named or not common:
        inside = before > 0 and (after > 0 or len(here) == 2)
        if right.elsewhere < _NAME_ELSEWHERE or not (right.answered or (inside and not alike and common)):
            return False
    return True


def _common(word: str, other: str) -> tuple[int, int]:
    """Letters that both begin with, and that both end with after those."""
    shorter = min(len(word), len(other))
    before = next((place for place in range(shorter) if word[place] != other[place]), shorter)
    rest = shorter - before
    after = next((place for place in range(rest) if word[-1 - place] != other[-1 - place]), rest)
    return before, after
