"""Signs: decides whether texts with equal words differ in a sign that may matter: max-height and max_height.

In doubt `wording` turns a sign between two words into a blank. If the answers differ as well, the sign probably makes
the difference. Signs that never matter are left out here: quotes around words, the end of a sentence, commas and colons
after a word. It does not know what a sign means.
"""

import re

from job.data.dedupe.wording import compose

_PAUSES = ".,:;…。、،؛।"
_ENDS = _PAUSES + "?!؟"
_BULLETS = frozenset("-*•\"'`")
"""Words of these signs alone carry no meaning at the edges of a text."""
_FACTORIAL = re.compile(r"(?:[\d)]|(?<![^\W\d_])[^\W\d_])$")


def differ_in_signs(one: str, other: str) -> bool:
    """Whether two texts, as written, differ in signs. Their normalised forms are equal."""
    return one != other and significant_text(one) != significant_text(other)


def significant_text(text: str) -> str:
    """Remove the punctuation that never matters from a text."""
    words = [bare for word in compose(text).casefold().split() if (bare := word.rstrip(_PAUSES))]
    while words and _BULLETS.issuperset(words[-1].rstrip(_ENDS)):
        words.pop()
    first = next((index for index, word in enumerate(words) if not _BULLETS.issuperset(word)), len(words))
    words = words[first:]
    if words:
        words[0] = words[0].lstrip("¿¡…") if not words[0].startswith("..") else words[0].lstrip(".")
        words[-1] = _without_end(words[-1])
    return " ".join(words)


def _without_end(word: str) -> str:
    bare = word.rstrip(_ENDS)
    return f"{bare}!" if word[len(bare) :].startswith("!") and _FACTORIAL.search(bare[-2:]) else bare
