"""Spelling: whether two texts say the same but for single letters and the order of their words.

It knows normalised texts, as `data.wording` gives them. It does not know whether a word that differs in one letter is a
misspelling or another word; that is `data.misspelling`.
"""

import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import OSA

MOST_CHANGED = 3
"""Words that may be spelt otherwise in two texts that say the same."""
_SHORTEST_MISSPELT = 4
_SHORTEST_ROTATED = 4
_DIGIT = re.compile(r"\d")
_JOINT = re.compile(r"(?<=[^\W\d_])[-'._:/()]+|[-'._:/()]+(?=[^\W\d_])")
"""Signs at a letter, which some write and others do not: e-mail, email."""
_PARTS = re.compile(r"(?<=[^\W\d_]{3})[-'._:/()]|[-'._:/()](?=[^\W\d_]{3})")
"""Where a number ends, and a word of three letters or more begins: 10-year."""


@dataclass(frozen=True)
class Changes:
    """In what two texts differ.

    `words`: words of the one and what stands for them in the other. `rotated`: the last words of the one come first in
    the other ("In soccer, what is offside?"). `loose`: other things that may or may not matter, which are another
    order, blanks and signs inside words, and punctuation that stands alone.
    """

    words: tuple[tuple[str, str], ...] = ()
    rotated: bool = False
    loose: bool = False

    def letters(self) -> frozenset[tuple[str, str]]:
        """The letters that stand for others."""
        return frozenset(
            ("".join(Counter(word) - Counter(other)), "".join(Counter(other) - Counter(word)))
            for word, other in self.words
        )


def changes(left: str, right: str) -> Changes | None:
    """In what two normalised texts differ; None if there are words that the other has not, not even nearly."""
    if left == right:
        return Changes()
    words, others = left.split(), right.split()
    ours, theirs = Counter(words), Counter(others)
    unmatched = list((theirs - ours).elements())
    if abs(len(words) - len(others)) > MOST_CHANGED or len(unmatched) > 2 * MOST_CHANGED:
        return None
    pairs, rest = [], []
    for word in (ours - theirs).elements():
        same = next((other for other in unmatched if _nearly(word, other)), None)
        if same is None:
            rest.append(word)
            continue
        unmatched.remove(same)
        pairs.append((word, same))
    spoken, other = (_JOINT.sub("", "".join(word for word in some if not _aside(word))) for some in (rest, unmatched))
    if spoken != other or len(pairs) > MOST_CHANGED:
        return None
    common, again = [word for word in words if word in theirs], [word for word in others if word in ours]
    meant = dict(pairs)
    rotated = _is_rotated([meant.get(word, word) for word in words], others)
    return Changes(tuple(pairs), rotated, bool(rest or unmatched) or (common != again and not rotated))


def _is_rotated(words: list[str], others: list[str]) -> bool:
    """Whether the words are the same but for some that moved from the end to the front; numbers keep their order."""
    if len(words) != len(others) or len(words) < _SHORTEST_ROTATED or words == others:
        return False
    signs, other_signs = ([word for word in some if not word.lstrip("'").isalpha()] for some in (words, others))
    if signs != other_signs:
        return False
    return any(words[place:] + words[:place] == others for place in range(1, len(words)))


@functools.lru_cache(200_000)
def _nearly(word: str, other: str) -> bool:
    """One letter other, missing, too many or in its neighbour's place; in a word of three letters only the last."""
    if not (_is_word(word) and _is_word(other)):
        return False
    if max(len(word), len(other)) >= _SHORTEST_MISSPELT:
        return OSA.distance(word, other, score_cutoff=1) <= 1
    return len(word) == len(other) == 3 and sorted(word) == sorted(other)


def _is_word(word: str) -> bool:
    return all(unicodedata.category(character)[0] in "LM" for character in word)


def _aside(word: str) -> bool:
    return all(unicodedata.category(character)[0] == "P" for character in word) and not set(word) & set("#%&@*!?/\\")


def numbers(text: str) -> list[str]:
    """The words of a normalised text that hold a digit, sorted; of "covid-19" the number alone."""
    if not _DIGIT.search(text):
        return []
    return sorted(part for word in text.split() if _DIGIT.search(word) for part in _parts(word))


def _parts(word: str) -> list[str]:
    return [part for part in _PARTS.split(word) if _DIGIT.search(part)]
