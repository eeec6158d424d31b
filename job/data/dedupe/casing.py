"""Casing: whether capitals make two texts with the same letters say different things: Polish and polish, US and us.

Many people write without capitals, or in capitals only. So a capital tells words apart only where both texts have
capitals and small letters, and not in the first word, which begins with one in any case.
"""

import re

_WORD = re.compile(r"[^\W\d_]+")
_SHARP = "ß"
_SHORT = 3
"""A longer first word in capitals is stressed ("WHAT is"), and no abbreviation."""


def other_words(one: str, other: str) -> bool:
    """Whether one text has ß where the other has ss: Maße and Masse. In capitals they are the same, MASSE."""
    pairs = list(zip(_WORD.findall(one), _WORD.findall(other), strict=False))
    return any(
        (_SHARP in left) != (_SHARP in right) and not left.isupper() and not right.isupper() for left, right in pairs
    )


def other_names(one: str, other: str) -> bool:
    """Whether a word is a name or an abbreviation in one of the texts only."""
    if not (_is_mixed(one) and _is_mixed(other)):
        return False
    lefts, rights = _WORD.findall(one), _WORD.findall(other)
    if len(lefts) != len(rights):
        return False
    first = lefts[0].isupper() != rights[0].isupper() and 1 < len(lefts[0]) <= _SHORT
    return first or any(
        left != right and left[0].isupper() != right[0].isupper()
        for left, right in zip(lefts[1:], rights[1:], strict=True)
    )


def named(word: str, text: str) -> bool:
    """Whether a lower-case word begins with a capital inside the text, which has small initials too."""
    words = _WORD.findall(text)[1:]
    return any(found[0].islower() for found in words) and any(
        found[0].isupper() and found.casefold() == word for found in words
    )


def _is_mixed(text: str) -> bool:
    words = _WORD.findall(text)
    return not text.islower() and any(word[0].islower() for word in words)
