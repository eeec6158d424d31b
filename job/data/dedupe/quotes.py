"""Quotes: removes the quotes around words, which carry no meaning, and keeps primes and apostrophes, which do.

The same sign is a quote in 'f', a prime in f' and a foot in 5'. Quotes come in pairs: one opens before a word, and one
of the same kind closes after this word or a later one. It knows no language and no code.
"""

import re

_PLAIN = str.maketrans(dict.fromkeys("“”„‟", '"') | dict.fromkeys("‘’‚‛\u02bc", "'"))
_NEVER_SIGNS = str.maketrans(dict.fromkeys("«»‹›「」『』"))
_RUN = re.compile(r"[\"'`]+")
_BEFORE = " \t\n([{¿¡=,:.…—«‹「『"
_BEGINS = re.compile(r"[.:!?…]*[^\s.,:;!?)\]}…。、—»›」』]")
_AFTER = " \t\n.,:;!?)]}…。、—»›」』"


def remove_quotes(text: str) -> str:
    """Remove the quotes around words, and make those that remain plain ASCII quotes."""
    text = text if text.isascii() else text.translate(_PLAIN)
    if '"' in text or "'" in text or "`" in text:
        text = _remove_pairs(text)
    return text if text.isascii() else text.translate(_NEVER_SIGNS)


def _remove_pairs(text: str) -> str:
    opened: dict[str, list[int]] = {kind: [] for kind in "\"'`"}
    removed: list[int] = []
    for run in _RUN.finditer(text):
        start, end = run.span()
        if _opens(text, start, end):
            for index in range(start, end):
                opened[text[index]].append(index)
        elif start and not text[start - 1].isspace() and (end == len(text) or text[end] in _AFTER):
            for index in reversed(range(start, end)):  # of 'f'' the last one is the quote
                if opened[text[index]]:
                    removed += [opened[text[index]].pop(), index]
    parts, before = [], 0
    for index in sorted(removed):
        parts.append(text[before:index])
        before = index + 1
    return "".join(parts) + text[before:]


def _opens(text: str, start: int, end: int) -> bool:
    return bool(_BEGINS.match(text, end)) and (start == 0 or text[start - 1] in _BEFORE)
