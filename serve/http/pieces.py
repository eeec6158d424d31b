"""Ids to text as they come: a piece is given out only when no later id can change it.

Some decoders look at more than one id. A byte-level one shows an incomplete character as U+FFFD; one with byte fallback
reads a whole run of bytes at once, and a single bad byte turns the run into U+FFFD; some look at what stands before.

It knows the tokenizers library. It does not know stop strings or HTTP.
"""

import codecs
import re
from collections.abc import Sequence
from itertools import islice

from tokenizers import Tokenizer

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
UNFINISHED = "\ufffd"
WINDOW, KEPT = 16, 8
"""Of more ids than the first, the last that are the second stay: what an answer costs grows with its length alone.

An incomplete character has at most 3 bytes, and so at most 3 ids. A decoder that begins in the middle of a character
is wrong for its rest, of 3 bytes again; then it reads as one that began before.
"""


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that have no text in an answer."""
    return frozenset(id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special)


class Pieces:
    """The pieces joined are `decode` of all ids without special tokens; behind `before`, what they add to its text."""

    def __init__(self, tokenizer: Tokenizer, special: frozenset[int], before: Sequence[int] = ()) -> None:
        """
        Args:
            special: see `special_ids`; they are asked for once, as some tokenizers have thousands.
            before: the ids of a text that goes on in this one. Its last bytes are whole characters, and make no run
                with the next ones.
        """
        self._tokenizer = tokenizer
        self._special = special
        shown = (id for id in reversed(before) if self._shows(id) and self._byte(id) is None)
        self._ids = [*islice(shown, KEPT)][::-1]
        self._given = len(self._decode())
        """Characters of the text of `_ids` that were given out."""
        self._run: codecs.IncrementalDecoder | None = None
        self._broken = False

    def add(self, id: int) -> str:
        """The text that this id completes, often empty."""
        if not self._shows(id):
            return ""
        if (byte := self._byte(id)) is not None:
            return self._add_byte(id, byte)
        self._run, self._broken = None, False
        self._ids.append(id)
        return self._next()

    def end(self) -> str:
        """What was held back."""
        return self._decode()[self._given :]

    def _add_byte(self, id: int, byte: bytes) -> str:
        """The next byte decides what this one is, but where an earlier one has spoilt the run."""
        if self._broken:
            return UNFINISHED
        self._ids.append(id)
        self._run = self._run or codecs.getincrementaldecoder("utf-8")()
        try:
            self._run.decode(byte)
        except UnicodeDecodeError:
            self._broken = True
            piece, self._given = self.end(), len(self._decode())
            return piece
        return ""

    def _next(self) -> str:
        text = self._decode()
        end = len(text) - text.endswith(UNFINISHED)
        piece = text[self._given : end]
        self._given += len(piece)
        if len(self._ids) > WINDOW:
            del self._ids[:-KEPT]
            self._given += len(self._decode()) - len(text)
        return piece

    def _shows(self, id: int) -> bool:
        return id not in self._special and self._tokenizer.id_to_token(id) is not None

    def _byte(self, id: int) -> bytes | None:
        """What this id stands for where the decoder makes a byte of it."""
        token = self._tokenizer.id_to_token(id) or ""
        found = BYTE.fullmatch(token)
        if not found or self._tokenizer.decode([id]) == token:
            return None
        return bytes.fromhex(found[1])

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
