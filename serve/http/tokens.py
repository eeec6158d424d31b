"""Counts and cuts text in the tokens of a retriever's encoder.

It knows the tokenizer that the engine has left (`retriever/handover.py`). It does not know the encoder or HTTP, and it
imports neither torch nor transformers.
"""

from pathlib import Path

from tokenizers import Encoding

from serve.retriever import handover
from serve.retriever.request import Side


class Tokens:
    """The encoder's tokenizer and its prompts. Threads may share it."""

    def __init__(self, socket: Path) -> None:
        """Load what an engine has left beside `socket`."""
        self._prompts, self._tokenizer = handover.read(socket)

    def length(self, text: str, side: Side) -> int:
        """Count the tokens that the encoder sees: with the prompt of this side and the special tokens."""
        return len(self._encode(self._prompts[side] + text, special=True).ids)

    def lengths(self, texts: list[str], side: Side) -> list[int]:
        """Count the tokens of each text; see `length`."""
        return [self.length(text, side) for text in texts]

    def count(self, text: str) -> int:
        """Count the tokens of an answer."""
        return len(self._encode(text, special=False).ids)

    def cut(self, text: str, most: int) -> str:
        """Return the beginning of a text that has at most `most` tokens."""
        encoding = self._encode(text, special=False)
        if len(encoding.ids) <= most:
            return text
        span = encoding.token_to_chars(most - 1)
        return text[: span[1]] if span else ""

    def _encode(self, text: str, special: bool) -> Encoding:
        """Tokenize a batch of one, which lets other threads run; `encode` holds the interpreter lock."""
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=special)
        return encoding
