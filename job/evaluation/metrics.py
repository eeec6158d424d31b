"""Metrics: how near an answer is to the expected one. It knows two texts, not models or rows.

F1 and exact match are those of SQuAD's evaluation script (Rajpurkar et al. 2016): lower case, no punctuation, no
articles (a, an, the), then the words that both texts share. On ordinary English the numbers are the script's own, so
they compare with published ones. The script was made for English names and dates, and it loses what other answers
live on. So this differs from it:

- What it would leave empty keeps its own text: "+", "A" and "?" are answers, and equal nothing but themselves. An
  empty answer is right only where an empty one is expected.
- Numbers keep their sign, their decimal point and what else stands between two digits: -5 is not 5, 1.5 not 15, 10:30
  not 1030, 1/2 not 12. Commas of thousands go, as in the script: 1,500 is 1500.
- + < = > stay, and so do the # of C#, the ^ of x^2, the minus of A-, Cl- or HCO3-, and signs between or before
  numbers and variables: 1e-5 is not 1e5, -x not x, n-1 not n1. Nothing else tells C++ from C. Hyphens of words and
  names (e-mail, B-52) go, and so do signs of currency and percent, as in the script.
- An article that ends one of two texts and alone tells them apart is none: "Serie A" is not "Serie".
- Punctuation is what Unicode calls so (category P) beside ASCII's, as in MLQA (Lewis et al. 2020). Dashes of all kinds
  are one, letters are composed (NFC), and invisible characters (category Cf) go.
- Scripts that write no blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) count by
  characters, each with its marks, beside words in other scripts: the mixed segmentation of CMRC (Cui et al. 2019) and
  MLQA. Korean has blanks and counts by words.

Articles are removed in English only (MLQA removes those of each language, which would have to be told here).
"""

import re
import string
import unicodedata
from collections import Counter
from functools import cache

_ARTICLES = frozenset({"a", "an", "the"})
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,]*\d)")
_BEFORE = r"(?:(?<=\d)|(?<=\b[i-kmnp-z])|(?<=\d[a-z]))"
"""What a sign of arithmetic stands behind: a number, a variable, or both, such as 2x. K-9 and b-12 are names."""
_MEANT = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=\d)[^\w\s](?=\d)",  # 1.5, 10:30, 1/2
        r"(?<=\d[eE])-(?=\d)",  # 1e-5
        _BEFORE + r"[-*/](?=\d|[ijnxyz](?![\w-]))",  # n-1, 2x*3, x/y; but neither 3-d nor 5-a-side
        r"(?:(?<=\d)|(?<=\b[A-Za-z])|(?<=\d[a-z]))\*(?=\d|[A-Za-z]\b)",  # a*b
        r"(?:(?<=\d\s)|(?<=\b[b-z]\s)|(?<=\d[a-z]\s))[-*/^](?=\s\(?-?(?:\.?\d|[b-z](?!\w)))",  # 5 - 3, 2 * x
        r"(?<![\w.])\.(?=\d)",  # .5
        r"(?<!\w)-(?=[.$]?\d)",  # -5, -$5, 2^-3
        r"(?<![^\s(=^])-(?=[A-Za-z](?![\w-]))",  # -x, (-x), y=-x
        r"(?:(?<==)|(?<==\s))-(?=\s?\w)",  # y = -sin x
        r"(?<![^\s(])[A-Z][A-Za-z]?-(?!\w)",  # A-, Cl-
        r"(?<![^\s(\[])(?=[A-Za-z]*\d)(?:[A-Z][a-z]?\d*)+-(?!\w)",  # HCO3-
        r"(?<=\^\d)-(?!\w)",  # PO4^3-
        r"(?<=[A-Za-z]\d\s\d)-(?=\W*$)",  # SO4 2-
        r"(?<=[A-Za-z])#(?!\w)",  # C#
        r"(?<!\S)[^\w\s]*[+<=>][^\w\s]*(?!\S)",  # !=, ->
        r"[+<=>]",
        r"(?<=[\w)])\^(?=-?\w|\()",  # x^2, 2^-3
    )
)
"""Where punctuation stays, in a text whose dashes are all the same."""
_FINAL_A = re.compile(r"\w\W*\s[Aa]\W*$")
_UNSPACED = (
    "CJK UNIFIED", "CJK COMPATIBILITY", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
)  # fmt: skip
"""How Unicode's names of their characters begin."""


def f1(given: str, expected: str) -> float:
    """The harmonic mean of precision and recall of the given tokens, each counted as often as it stands there."""
    left, right = _compared(given, expected)
    same = sum((Counter(left) & Counter(right)).values())
    if not same:
        return float(left == right)
    precision, recall = same / len(left), same / len(right)
    return 2 * precision * recall / (precision + recall)


def exact_match(given: str, expected: str) -> bool:
    """Whether nothing but case, blanks, articles and meaningless punctuation differs."""
    left, right = _compared(given, expected)
    return left == right


def _compared(given: str, expected: str) -> tuple[list[str], list[str]]:
    left, right = tokens(given), tokens(expected)
    if left == right and left:
        named = [bool(_FINAL_A.search(text)) for text in (given, expected)]
        if named[0] != named[1]:
            return [*left, *["a"] * named[0]], [*right, *["a"] * named[1]]
    return left, right


def tokens(text: str) -> list[str]:
    """What of a text is compared: words, numbers, and characters where words have no blanks."""
    seen = "".join(character for character in text if unicodedata.category(character) != "Cf")
    plain = unicodedata.normalize("NFC", seen).translate(_DASHES)
    plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), plain)
    meant = {place for pattern in _MEANT for found in pattern.finditer(plain) for place in range(*found.span())}
    kept = (character for place, character in enumerate(plain) if place in meant or not _is_punctuation(character))
    words = "".join(kept).casefold().split()
    if not any(character.isalnum() or not _is_punctuation(character) for word in words for character in word):
        return plain.casefold().split()  # nothing but punctuation: it is the answer
    named = [word for word in words if word not in _ARTICLES]
    return [token for word in named or words for token in _segments(word)]


def _segments(word: str) -> list[str]:
    """A word as it is, but for characters of scripts without blanks: those stand alone, each with its marks."""
    parts: list[str] = []
    alone = True  # whether the next character begins a token
    for character in word:
        if parts and unicodedata.category(character).startswith("M"):
            parts[-1] += character
        elif _is_unspaced(character):
            parts.append(character)
            alone = True
        elif alone:
            parts.append(character)
            alone = False
        else:
            parts[-1] += character
    return parts


@cache
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


@cache
def _is_unspaced(character: str) -> bool:
    return not character.isdigit() and unicodedata.name(character, "").startswith(_UNSPACED)
