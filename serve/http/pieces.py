"""Decodes ids to text one by one; text is returned only when no later id can change it.

Some decoders look at more than one id. A byte-level one shows an incomplete character as U+FFFD; one with byte fallback
decodes a whole run of bytes at once, and a single invalid byte turns the run into U+FFFD; some depend on the id before.

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
"""Once there are more than `WINDOW` ids, only the last `KEPT` are decoded, so that the cost per id is constant.

An incomplete character has at most 3 bytes, and so at most 3 ids. A decoder that starts in the middle of a character is
wrong for the rest of it, again 3 bytes; from then on its text is that of one that started earlier.
"""


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of special tokens, which have no text in an answer."""
    return frozenset(id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special)


class Pieces:
    """An incremental decoder: the pieces joined are the decoding of all ids without special tokens.

    After the ids `before`, they are what the new ids add to their text.
    """

    def __init__(self, tokenizer: Tokenizer, special: frozenset[int], before: Sequence[int] = ()) -> None:
        """Start after `before`.

        Args:
            tokenizer: the model's.
            special: see `special_ids`, which is slow for a tokenizer with thousands of them.
            before: the ids of a text that continues in this one. It ends with a complete character, and its bytes form
                no run with the next ones.
        """
        self._tokenizer = tokenizer
        self._special = special
        shown = (id for id in reversed(before) if self._shows(id) and self._byte(id) is None)
        self._ids = [*islice(shown, KEPT)][::-1]
        self._returned = len(self._decode())
        """Characters of the text of `_ids` that have been returned."""
        self._run: codecs.IncrementalDecoder | None = None
        self._broken = False

    def add(self, id: int) -> str:
        """Add an id and return the text that it completes, often empty."""
        if not self._shows(id):
            return ""
        if (byte := self._byte(id)) is not None:
            return self._add_byte(id, byte)
        self._run, self._broken = None, False
        self._ids.append(id)
        return self._next()

    def end(self) -> str:
        """Return the text held back so far."""
        return self._decode()[self._returned :]

    def _add_byte(self, id: int, byte: bytes) -> str:
        """Add a byte; its text depends on the next one, unless an earlier byte has made the run invalid."""
        if self._broken:
            return UNFINISHED
        self._ids.append(id)
        self._run = self._run or codecs.getincrementaldecoder("utf-8")()
        try:
            self._run.decode(byte)
        except UnicodeDecodeError:
            self._broken = True
            piece, self._returned = self.end(), len(self._decode())
            return piece
        return ""

    def _next(self) -> str:
        text = self._decode()
        end = len(text) - text.endswith(UNFINISHED)
        piece = text[self._returned : end]
        self._returned += len(piece)
        if len(self._ids) > WINDOW:
            del self._ids[:-KEPT]
            self._returned += len(self._decode()) - len(text)
        return piece

    def _shows(self, id: int) -> bool:
        return id not in self._special and self._tokenizer.id_to_token(id) is not None

    def _byte(self, id: int) -> bytes | None:
        """The byte of this id, if the decoder has byte fallback and makes one of it."""
        token = self._tokenizer.id_to_token(id) or ""
        match = BYTE.fullmatch(token)
        if not match or self._tokenizer.decode([id]) == token:
            return None
        return bytes.fromhex(match[1])

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
