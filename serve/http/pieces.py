"""Ids to text as they come: a piece is given out only when no later id can change it.

Some decoders look at more than one id. A byte-level one shows an incomplete character as U+FFFD; one with byte fallback
reads a whole run of bytes at once, and a single bad byte turns the run into U+FFFD; some look at what stands before.

It knows the tokenizers library. It does not know stop strings or HTTP.
"""

import re

from tokenizers import Tokenizer

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
UNFINISHED = "\ufffd"


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that have no text in an answer."""
    return frozenset(id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special)


class Pieces:
    """The pieces joined are `decode` of all ids without special tokens."""

    def __init__(self, tokenizer: Tokenizer, special: frozenset[int]) -> None:
        """`special`: see `special_ids`; they are asked for once, as some tokenizers have thousands."""
        self._tokenizer = tokenizer
        self._special = special
        self._ids: list[int] = []
        self._before = 0
        """Where the ids of the last piece begin: a decoder may treat the first id it sees otherwise."""
        self._given = 0
        self._length = 0

    def add(self, id: int) -> str:
        """The text that this id completes, often empty."""
        if id in self._special or self._tokenizer.id_to_token(id) is None:
            return ""
        self._ids.append(id)
        if BYTE.fullmatch(self._tokenizer.id_to_token(id) or ""):
            return ""  # the next byte decides what this one is
        known = self._decode(self._ids[self._before : self._given])
        text = self._decode(self._ids[self._before :])
        if text.endswith(UNFINISHED) or not text.startswith(known):
            return ""
        self._before, self._given = self._given, len(self._ids)
        self._length += len(text) - len(known)
        return text[len(known) :]

    def end(self) -> str:
        """What was held back."""
        return self._decode(self._ids)[self._length :]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
