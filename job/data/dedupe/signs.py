"""Signs: whether two texts with the same words differ in a sign that may matter: max-height and max_height.

Where `wording` cannot tell, it takes a sign between two words for a blank. If the answers differ as well, the sign is
likely to be what makes the difference. What never matters is left out here: quotes around words, the end of a sentence,
commas and colons behind a word. It does not know what a sign means.
"""

import re

from job.data.dedupe.wording import composed

_PAUSES = ".,:;…。、،؛।"
_ENDS = _PAUSES + "?!؟"
_BESIDE = frozenset("-*•\"'`")
"""Words of these alone say nothing at the edges of a text."""
_FACTORIAL = re.compile(r"(?:[\d)]|(?<![^\W\d_])[^\W\d_])$")


def other_signs(one: str, other: str) -> bool:
    """Whether the texts have other signs. Both are as they were written, and equal once normalised."""
    return one != other and signs(one) != signs(other)


def signs(text: str) -> str:
    """The text without the punctuation that never matters."""
    words = [bare for word in composed(text).casefold().split() if (bare := word.rstrip(_PAUSES))]
    while words and _BESIDE.issuperset(words[-1].rstrip(_ENDS)):
        words.pop()
    first = next((place for place, word in enumerate(words) if not _BESIDE.issuperset(word)), len(words))
    words = words[first:]
    if words:
        words[0] = words[0].lstrip("¿¡…") if not words[0].startswith("..") else words[0].lstrip(".")
        words[-1] = _without_end(words[-1])
    return " ".join(words)


def _without_end(word: str) -> str:
    bare = word.rstrip(_ENDS)
    return f"{bare}!" if word[len(bare) :].startswith("!") and _FACTORIAL.search(bare[-2:]) else bare
