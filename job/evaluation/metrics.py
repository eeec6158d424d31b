"""Metrics: compares an answer with the expected one, by token F1 and exact match.

Both are those of SQuAD's evaluation script (Rajpurkar et al. 2016): lower case, without punctuation and articles (a,
an, the), then the words that both texts have in common. On ordinary English the values equal the script's, so they are
comparable with published ones. The script was made for English names and dates and removes what other answers depend
on. The differences:

- A text that the script would reduce to nothing keeps its characters: "+", "A" and "?" are answers, and equal only
  themselves. An empty answer is right only if an empty one is expected.
- Numbers keep their sign, their decimal point and other characters between two digits: -5 is not 5, 1.5 not 15, 10:30
  not 1030, 1/2 not 12. Thousands separators are removed, as in the script: 1,500 is 1500.
- + < = > are kept, and so are the # of C#, the ^ of x^2, the minus of A-, Cl- or HCO3-, and operators between or before
  numbers and variables: 1e-5 is not 1e5, -x not x, n-1 not n1, C++ not C. Hyphens in words and names (e-mail, B-52) are
  removed, and so are currency and percent signs, as in the script.
- A final article that is the only difference between two texts is kept: "Serie A" is not "Serie".
- Punctuation is Unicode's category P besides ASCII's, as in MLQA (Lewis et al. 2020). All dashes are equal, letters are
  composed (NFC), and invisible characters (category Cf) are removed.
- Scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) are compared by
  character, with its combining marks, beside words in other scripts: the mixed segmentation of CMRC (Cui et al. 2019)
  and MLQA. Korean has blanks and is compared by words.

Articles are removed in English only (MLQA removes those of each language, which this module does not know). The module
knows two texts, not models or rows.
"""

import re
import string
import unicodedata
from collections import Counter
from functools import cache

_ARTICLES = frozenset({"a", "an", "the"})
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{2,3})*,\d{3}(?![\d,]*\d)")
_OPERAND = r"(?:(?<=\d)|(?<=\b[i-kmnp-z])|(?<=\d[a-z]))"
"""What precedes an arithmetic operator: a number, a variable, or both, such as 2x. K-9 and b-12 are names."""
_KEPT_PUNCTUATION = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=\d)[^\w\s](?=\d)",  # 1.5, 10:30, 1/2
        r"(?<=\d[eE])-(?=\d)",  # 1e-5
        _OPERAND + r"[-*/](?=\d|[ijnxyz](?![\w-]))",  # n-1, 2x*3, x/y; but neither 3-d nor 5-a-side
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
"""Patterns of punctuation that is kept, in a text whose dashes are normalized."""
_FINAL_A = re.compile(r"\w\W*\s[Aa]\W*$")
_UNSPACED = (
    "CJK UNIFIED", "CJK COMPATIBILITY", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO",
    "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
)  # fmt: skip
"""Prefixes of the Unicode names of characters in scripts without blanks between words."""


def f1(given: str, expected: str) -> float:
    """Compute SQuAD's token F1: the harmonic mean of precision and recall over the multiset of tokens.

    Args:
        given: The model's answer.
        expected: The row's answer.

    Returns:
        0.0 to 1.0.
    """
    left, right = _token_pair(given, expected)
    same = sum((Counter(left) & Counter(right)).values())
    if not same:
        return float(left == right)
    precision, recall = same / len(left), same / len(right)
    return 2 * precision * recall / (precision + recall)


def exact_match(given: str, expected: str) -> bool:
    """Return whether the texts differ only in case, blanks, articles and punctuation without meaning."""
    left, right = _token_pair(given, expected)
    return left == right


def _token_pair(given: str, expected: str) -> tuple[list[str], list[str]]:
    left, right = tokens(given), tokens(expected)
    if left == right and left:
        ends_in_a = [bool(_FINAL_A.search(text)) for text in (given, expected)]
        if ends_in_a[0] != ends_in_a[1]:
            return [*left, *["a"] * ends_in_a[0]], [*right, *["a"] * ends_in_a[1]]
    return left, right


def tokens(text: str) -> list[str]:
    """Split a text into the tokens that are compared: words, numbers, and characters of scripts without blanks."""
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    plain = unicodedata.normalize("NFC", visible).translate(_DASHES)
    plain = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), plain)
    meaningful = {
        index for pattern in _KEPT_PUNCTUATION for match in pattern.finditer(plain) for index in range(*match.span())
    }
    characters = (letter for index, letter in enumerate(plain) if index in meaningful or not _is_punctuation(letter))
    words = "".join(characters).casefold().split()
    if not any(character.isalnum() or not _is_punctuation(character) for word in words for character in word):
        return plain.casefold().split()  # nothing but punctuation: it is the answer
    without_articles = [word for word in words if word not in _ARTICLES]
    return [token for word in without_articles or words for token in _segments(word)]


def _segments(word: str) -> list[str]:
    """Split a word before and after each character of a script without blanks; combining marks stay with theirs."""
    parts: list[str] = []
    starts_token = True
    for character in word:
        if parts and unicodedata.category(character).startswith("M"):
            parts[-1] += character
        elif _is_unspaced(character):
            parts.append(character)
            starts_token = True
        elif starts_token:
            parts.append(character)
            starts_token = False
        else:
            parts[-1] += character
    return parts


@cache
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


@cache
def _is_unspaced(character: str) -> bool:
    return not character.isdigit() and unicodedata.name(character, "").startswith(_UNSPACED)
