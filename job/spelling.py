"""Spelling: whether two texts say the same but for misspellings, the order of their words, case and punctuation.

It knows characters and words of any script. It does not know rows.
"""

import functools
import re
import unicodedata
from collections import Counter

from rapidfuzz.distance import OSA

ORDER = "order"
_SHORTEST_MISSPELT = 4
_VARIATION = re.compile(r"[\ufe00-\ufe0f]")  # how an emoji is drawn; Unicode counts it as a mark
_DIGIT = re.compile(r"\d")


class _Spelling(dict[int, str | int]):
    """Per character, what is left of it: letters, marks, digits and symbols stay, punctuation separates words."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        # marks count: they are the vowels of Hindi and the tones of Thai. So do C++, C#, 5 %, R&D
        self[code] = code if unicodedata.category(character)[0] in "LMNS" or character in "#%&@*" else " "
        return self[code]


_SPELLING = _Spelling()


def normalised(text: str) -> str:
    """The text's words and symbols, compatibility-composed and case-folded, blanks between them.

    Punctuation is left out where it is only punctuation. It stays where it stands for itself: between blanks inside the
    text ('What does "!" do?'), or as the dot that begins a name (".NET"). A text of punctuation only is its own words.
    """
    folded = _VARIATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    words = folded.split()
    spelled = [
        _word(word, inside=0 < place < len(words) - 1) if not word.isalnum() else word
        for place, word in enumerate(words)
    ]
    return " ".join(" ".join(spelled).split()) or " ".join(text.split())


def _word(word: str, inside: bool) -> str:
    bare = word.translate(_SPELLING)
    if bare.isspace():
        return word if inside else ""
    return f".{bare.lstrip()}" if word[0] == "." and word[1].isalnum() else bare


def differences(left: str, right: str) -> frozenset[tuple[str, str]] | None:
    """In what two normalised texts differ that have the same words, up to misspellings, order, and blanks inside words.

    Returns:
        The letters that stand for others, and (ORDER, ORDER) if the words stand in another order; None if there are
        words that the other has not.
    """
    if left == right:
        return frozenset()
    words, others = left.split(), right.split()
    ours, theirs = Counter(words), Counter(others)
    found, rest = set(), []
    unmatched = list((theirs - ours).elements())
    for word in (ours - theirs).elements():
        same = next((other for other in unmatched if _misspelt(word, other)), None)
        if same is None:
            rest.append(word)
            continue
        unmatched.remove(same)
        lost, gained = Counter(word) - Counter(same), Counter(same) - Counter(word)
        found.add(("".join(lost), "".join(gained)))
    spoken, other = ("".join(word for word in some if not _aside(word)) for some in (rest, unmatched))
    if spoken != other:
        return None
    if [word for word in words if word in theirs] != [word for word in others if word in ours]:
        found.add((ORDER, ORDER))
    return frozenset(found)


@functools.lru_cache(200_000)
def _misspelt(word: str, other: str) -> bool:
    """One letter wrong, missing, too many or in its neighbour's place; in a word of three letters only the last."""
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
    """The words of a normalised text that hold a digit, sorted."""
    return sorted(word for word in text.split() if _DIGIT.search(word)) if _DIGIT.search(text) else []
