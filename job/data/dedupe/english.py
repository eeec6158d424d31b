"""English: how common a word is in ordinary English.

The numbers are those of pyspellchecker, counts of words in film subtitles and books: 17 million for "what", 50 for the
rarest of 160,000 words. It knows no names but the best known, and few technical words.
"""

from collections.abc import Iterable
from functools import cache

_MOSTLY = 0.6
_FEWEST = 3


def frequency(word: str) -> int:
    """How often a lower-case word was counted; 0 if it is not known."""
    return _counts().get(word, 0)


def is_english(words: Iterable[str]) -> bool:
    """Whether most of a sentence's lower-case words are English, and there are some."""
    known = [word in _counts() for word in words if len(word) > 1 and word.isalpha()]
    return len(known) >= _FEWEST and sum(known) >= _MOSTLY * len(known)


@cache
def _counts() -> dict[str, int]:
    from spellchecker import SpellChecker  # a third of a second

    return dict(SpellChecker(language="en", distance=1).word_frequency.dictionary)
