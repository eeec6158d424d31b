"""Column values: what kind of text a value in a column is, and its hash.

It knows single values of any type that a file may hold. It does not know columns.
"""

import json
import re

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

_EMPTY = frozenset(["", "n/a", "na", "nan", "none", "null", "-", "<noinput>", "noinput", "no input"])
# a web address, a hash, or one word with digits or an underscore in it
_MACHINE = re.compile(r"\w+://\S+|[0-9a-fA-F-]{16,}|(?=\S*[\d_])[!-~]+")
_LETTER = re.compile(r"[^\W\d_]")
_TOKEN = re.compile(r"[^\W\d_]+")
# scripts that put no blanks between words: Thai to Khmer, Chinese, Japanese
_UNDIVIDED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff]")


def value_text(value: object) -> str:
    """Write a value as one text; empty if it says nothing."""
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, dict):
        return " ".join(filter(None, map(value_text, value.values())))
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(value_text, value)))
    text = str(value).strip()
    return "" if text.lower() in _EMPTY else text


def canonical_text(value: object) -> str:
    """Write a value as a text that no other value has; empty if it says nothing."""
    text = value_text(value)
    if text and isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return text


def is_language(value: object, text: str) -> bool:
    """Whether a value is text that people write: no boolean, and no address, hash, or word with digits.

    Args:
        value: as the file holds it.
        text: the same, as `value_text` gives it.
    """
    # booleans are not text, although str() makes them so
    return bool(_LETTER.search(text)) and not _MACHINE.fullmatch(text) and not isinstance(value, bool)


def is_prose(text: str) -> bool:
    """Whether the text has several words, and not only names or dates: two words or more begin without a capital."""
    words = plain = 0.0
    for token in _TOKEN.findall(text):
        words += len(token) / 2 if _UNDIVIDED.match(token) else 1
        plain += len(token) / 2 if _UNDIVIDED.match(token) else token[0] == token[0].lower()
    return words >= 4 and plain >= 2


def hash_values(texts: list[str]) -> Hashes:
    """Hash each text to 64 bits (xxHash3); an empty one to 0."""
    hashes = (xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) if text else 0 for text in texts)
    return np.fromiter(hashes, np.uint64, len(texts))
