"""Spelling: finds how two texts differ, if only in single letters and the order of their words.

It knows normalised texts, as `wording` makes them. It does not know whether a word that differs in one letter is a
misspelling or another word; `misspelling` decides that.
"""

import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import OSA

MAX_CHANGED_WORDS = 3
"""Words that may be spelt differently in two texts that say the same."""
_MIN_MISSPELT_LETTERS = 4
_MIN_ROTATED_WORDS = 4
_DIGIT = re.compile(r"\d")
_SIGN_AT_LETTER = re.compile(r"(?<=[^\W\d_])[-'._:/()]+|[-'._:/()]+(?=[^\W\d_])")
"""Signs next to a letter, which some people write and others do not: e-mail, email."""
_NUMBER_BOUNDARY = re.compile(r"(?<=[^\W\d_]{3})[-'._:/()]|[-'._:/()](?=[^\W\d_]{3})")
"""Where a number ends, and a word of three letters or more begins: 10-year."""


@dataclass(frozen=True)
class Changes:
    """How two texts differ."""

    words: tuple[tuple[str, str], ...] = ()
    """Pairs of words that differ in one letter."""
    rotated: bool = False
    """Whether the last words of one text come first in the other ("In soccer, what is offside?")."""
    loose: bool = False
    """Whether they differ in what may or may not matter: order, blanks and signs in words, separate punctuation."""

    def letters(self) -> frozenset[tuple[str, str]]:
        """List the letters that are replaced, and those that replace them, of each pair of words."""
        return frozenset(
            ("".join(Counter(word) - Counter(other)), "".join(Counter(other) - Counter(word)))
            for word, other in self.words
        )


def changes(left: str, right: str) -> Changes | None:
    """Compare two normalised texts word by word.

    Returns:
        How they differ; None if a word has no counterpart in the other text.
    """
    if left == right:
        return Changes()
    words, others = left.split(), right.split()
    ours, theirs = Counter(words), Counter(others)
    unmatched = list((theirs - ours).elements())
    if abs(len(words) - len(others)) > MAX_CHANGED_WORDS or len(unmatched) > 2 * MAX_CHANGED_WORDS:
        return None
    pairs, rest = [], []
    for word in (ours - theirs).elements():
        same = next((other for other in unmatched if _is_near(word, other)), None)
        if same is None:
            rest.append(word)
            continue
        unmatched.remove(same)
        pairs.append((word, same))
    spelling_left, other = (
        _SIGN_AT_LETTER.sub("", "".join(word for word in some if not _is_punctuation(word)))
        for some in (rest, unmatched)
    )
    if spelling_left != other or len(pairs) > MAX_CHANGED_WORDS:
        return None
    common, common_there = [word for word in words if word in theirs], [word for word in others if word in ours]
    replacements = dict(pairs)
    rotated = _is_rotated([replacements.get(word, word) for word in words], others)
    return Changes(tuple(pairs), rotated, bool(rest or unmatched) or (common != common_there and not rotated))


def _is_rotated(words: list[str], others: list[str]) -> bool:
    """Whether the words are equal except that some moved from the end to the front; numbers keep their order."""
    if len(words) != len(others) or len(words) < _MIN_ROTATED_WORDS or words == others:
        return False
    signs, other_signs = ([word for word in some if not word.lstrip("'").isalpha()] for some in (words, others))
    if signs != other_signs:
        return False
    return any(words[index:] + words[:index] == others for index in range(1, len(words)))


@functools.lru_cache(200_000)
def _is_near(word: str, other: str) -> bool:
    """Whether one letter is replaced, missing or extra, or two are swapped; of three letters, only swapped."""
    if not (_is_word(word) and _is_word(other)):
        return False
    if max(len(word), len(other)) >= _MIN_MISSPELT_LETTERS:
        return OSA.distance(word, other, score_cutoff=1) <= 1
    return len(word) == len(other) == 3 and sorted(word) == sorted(other)


def _is_word(word: str) -> bool:
    return all(unicodedata.category(character)[0] in "LM" for character in word)


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in word) and not set(word) & set("#%&@*!?/\\")


def numbers(text: str) -> list[str]:
    """List the words of a normalised text that hold a digit, sorted; of "covid-19" only the number."""
    if not _DIGIT.search(text):
        return []
    return sorted(part for word in text.split() if _DIGIT.search(word) for part in _number_parts(word))


def _number_parts(word: str) -> list[str]:
    return [part for part in _NUMBER_BOUNDARY.split(word) if _DIGIT.search(part)]
