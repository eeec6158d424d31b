"""Quotes: those that stand around words, which say nothing, are told from primes and apostrophes, which do.

The same sign is a quote in 'f', a prime in f' and a foot in 5'. A quote has a partner: it opens before a word, and one
of its kind closes behind this word or a later one. It knows no language and no code.
"""

import re

_PLAIN = str.maketrans(dict.fromkeys("“”„‟", '"') | dict.fromkeys("‘’‚‛\u02bc", "'"))
_NEVER_SIGNS = str.maketrans(dict.fromkeys("«»‹›「」『』"))
_RUN = re.compile(r"[\"'`]+")
_BEFORE = " \t\n([{¿¡=,:.…—«‹「『"
_BEGINS = re.compile(r"[.:!?…]*[^\s.,:;!?)\]}…。、—»›」』]")
_AFTER = " \t\n.,:;!?)]}…。、—»›」』"


def unquoted(text: str) -> str:
    """A text without the quotes around words; those that are left are typewriter's."""
    text = text if text.isascii() else text.translate(_PLAIN)
    if '"' in text or "'" in text or "`" in text:
        text = _without_pairs(text)
    return text if text.isascii() else text.translate(_NEVER_SIGNS)


def _without_pairs(text: str) -> str:
    opened: dict[str, list[int]] = {kind: [] for kind in "\"'`"}
    gone: list[int] = []
    for run in _RUN.finditer(text):
        start, end = run.span()
        if _opens(text, start, end):
            for place in range(start, end):
                opened[text[place]].append(place)
        elif start and not text[start - 1].isspace() and (end == len(text) or text[end] in _AFTER):
            for place in reversed(range(start, end)):  # of 'f'' the last one goes
                if opened[text[place]]:
                    gone += [opened[text[place]].pop(), place]
    parts, before = [], 0
    for place in sorted(gone):
        parts.append(text[before:place])
        before = place + 1
    return "".join(parts) + text[before:]


def _opens(text: str, start: int, end: int) -> bool:
    return bool(_BEGINS.match(text, end)) and (start == 0 or text[start - 1] in _BEFORE)
