"""Casing: decides whether capitals change the meaning of texts with equal letters: Polish and polish, US and us.

Many people write without capitals, or in capitals only. So a capital distinguishes words only if both texts have
capitals and small letters, and not in the first word, which always has one. It does not know names.
"""

import re

_WORD = re.compile(r"[^\W\d_]+")
_SHARP_S = "ß"
_MAX_ABBREVIATION = 3
"""Letters. A longer first word in capitals is emphasis ("WHAT is"), not an abbreviation."""


def differ_in_sharp_s(one: str, other: str) -> bool:
    """Whether one text has ß where the other has ss: Maße and Masse. In capitals both are MASSE."""
    pairs = list(zip(_WORD.findall(one), _WORD.findall(other), strict=False))
    return any(
        (_SHARP_S in left) != (_SHARP_S in right) and not left.isupper() and not right.isupper()
        for left, right in pairs
    )


def differ_in_names(one: str, other: str) -> bool:
    """Whether a word is a name or an abbreviation in only one of the texts, by its capital."""
    if not (_is_mixed(one) and _is_mixed(other)):
        return False
    lefts, rights = _WORD.findall(one), _WORD.findall(other)
    if len(lefts) != len(rights):
        return False
    first = lefts[0].isupper() != rights[0].isupper() and 1 < len(lefts[0]) <= _MAX_ABBREVIATION
    return first or any(
        left != right and left[0].isupper() != right[0].isupper()
        for left, right in zip(lefts[1:], rights[1:], strict=True)
    )


def is_name(word: str, text: str) -> bool:
    """Whether a word has a capital inside a text that also has words without one.

    Args:
        word: case-folded.
        text: as written.
    """
    words = _WORD.findall(text)[1:]
    return any(text_word[0].islower() for text_word in words) and any(
        text_word[0].isupper() and text_word.casefold() == word for text_word in words
    )


def _is_mixed(text: str) -> bool:
    words = _WORD.findall(text)
    return not text.islower() and any(word[0].islower() for word in words)
