"""English: word frequencies of ordinary English.

The counts come with pyspellchecker, from film subtitles and books: 17 million for "what", 50 for the rarest of 160,000
words. It knows only the best-known names and few technical words.
"""

from collections.abc import Iterable
from functools import cache

_MIN_KNOWN_SHARE = 0.6
_MIN_KNOWN_WORDS = 3


def frequency(word: str) -> int:
    """Look up the count of a lower-case word; 0 if it is unknown."""
    return _counts().get(word, 0)


def is_english(words: Iterable[str]) -> bool:
    """Whether most of some lower-case words are English; at least three must be."""
    is_known = [word in _counts() for word in words if len(word) > 1 and word.isalpha()]
    return len(is_known) >= _MIN_KNOWN_WORDS and sum(is_known) >= _MIN_KNOWN_SHARE * len(is_known)


@cache
def _counts() -> dict[str, int]:
    from spellchecker import SpellChecker  # a third of a second

    return dict(SpellChecker(language="en", distance=1).word_frequency.dictionary)
