"""Contrast: whether two texts differ in a number or in a negation, which turns one fact into another.

An embedding hardly notices either. It knows the words that deny in some common languages. It does not know what else
makes two facts of one, such as another name.
"""

import re
import unicodedata
from collections import Counter


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORDS = _listed(
    "not no never none cannot without neither nor hardly nein nicht nichts kein keine keinen keiner keinem nie niemals "
    "ohne sem não nao nunca nenhum nenhuma sin ningún ninguna nada jamais pas sans aucun aucune rien non senza mai "
    "nessun nessuna niet geen zonder nooit ikke ingen uden uten aldrig aldri inte utan ingen не нет без никогда ни "
    "nie bez değil yok asla hayır لا ليس ليست غير بدون لم لن ما 안"
)
_SHORT = re.compile(r"n['’]t\b")
_PARTS = _listed("不 没 沒 無 无 非 未 別 ない ません なく 않 없 못 ไม่ มิ नहीं मत")
"""In scripts without blanks, or as parts of a word: counted wherever they stand."""


def differ(one: str, other: str) -> bool:
    """Whether the texts hold other numbers, or deny another number of times."""
    one, other = (unicodedata.normalize("NFKC", text).casefold() for text in (one, other))
    return _numbers(one) != _numbers(other) or _denials(one) != _denials(other)


def _numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


def _denials(text: str) -> int:
    words = sum(word in _WORDS for word in re.findall(r"\w+", text))
    return words + len(_SHORT.findall(text)) + sum(text.count(part) for part in _PARTS)
