"""Contrast: decides whether two texts differ in a number or a negation, which turns one fact into another.

An embedding hardly notices either. It knows the negation words of some common languages. It does not know what else
distinguishes two facts, such as another name.
"""

import re
import unicodedata
from collections import Counter

from job.data.word_list import word_set

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_NEGATION_WORDS = word_set(
    "not no never none cannot without neither nor hardly nein nicht nichts kein keine keinen keiner keinem nie niemals "
    "ohne sem não nao nunca nenhum nenhuma sin ningún ninguna nada jamais pas sans aucun aucune rien non senza mai "
    "nessun nessuna niet geen zonder nooit ikke ingen uden uten aldrig aldri inte utan ingen не нет без никогда ни "
    "nie bez değil yok asla hayır لا ليس ليست غير بدون لم لن ما 안"
)
_CONTRACTION = re.compile(r"n['’]t\b")
_NEGATION_PARTS = word_set("不 没 沒 無 无 非 未 別 ない ません なく 않 없 못 ไม่ มิ नहीं मत")
"""Negations in scripts without blanks, or inside words: counted wherever they occur."""


def differ(one: str, other: str) -> bool:
    """Whether two texts differ in their numbers, or in how many negations they have."""
    one, other = (unicodedata.normalize("NFKC", text).casefold() for text in (one, other))
    return _numbers(one) != _numbers(other) or _count_negations(one) != _count_negations(other)


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


def _count_negations(text: str) -> int:
    words = sum(word in _NEGATION_WORDS for word in re.findall(r"\w+", text))
    return words + len(_CONTRACTION.findall(text)) + sum(text.count(part) for part in _NEGATION_PARTS)
