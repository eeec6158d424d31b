"""Converts a conversation to ids through the chat template, and ids to text in whole characters.

It knows tokenizers. It does not know the model, the engine or HTTP.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serve.http.pieces import Pieces, special_ids
from serve.http.prompt import Prompt, TemplateRefused
from serve.http.template import Documents

__all__ = ["Decoder", "TemplateRefused", "Text"]


class Text:
    """The tokenizer of a published model. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = _read(folder)
        self._template, self._prompt = self.tokenizer.chat_template, Prompt(self.tokenizer)
        self._special_ids = special_ids(self.tokenizer.backend_tokenizer)

    def prompt_ids(
        self,
        messages: list[dict[str, Any]],
        opened: bool = True,
        continued: bool = False,
        documents: Documents = None,
    ) -> list[int]:
        """Return the token ids of a conversation's prompt; see `Prompt.ids`.

        Raises:
            TemplateRefused: the template refuses these messages.
        """
        if self.tokenizer.chat_template != self._template:  # the owner of the tokenizer may replace it
            self._template, self._prompt = self.tokenizer.chat_template, Prompt(self.tokenizer)
        return self._prompt.ids(messages, opened, continued, documents)

    def decoder(self, stop: list[str], least: int = 0, before: Sequence[int] = ()) -> "Decoder":
        """Make a decoder for one answer.

        Args:
            stop: stop strings.
            least: ids that must come before a stop string counts.
            before: the prompt's ids if the answer continues its last message; see `Pieces`.
        """
        return Decoder(Pieces(self.tokenizer.backend_tokenizer, self._special_ids, before), stop, least)


def _read(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"found a {type(tokenizer).__name__}, expected a tokenizer.json")
    return tokenizer


class Decoder:
    """Decodes ids one at a time: returns only whole characters, and nothing that may belong to a stop string.

    The pieces joined are the text of all ids, cut before the first stop string that is complete. A stop string that
    the first `least` ids complete does not count, as in vLLM.
    """

    def __init__(self, pieces: Pieces, stop: list[str], least: int = 0) -> None:
        self._pieces = pieces
        self._stop = stop
        self._text = ""
        self._emitted = 0
        self._least, self._tokens = least, 0
        self._safe = 0
        """Characters of the first `least` ids; a stop string must end after them."""
        self.stopped = False

    def add(self, id: int) -> str:
        """Return the text that this id completes, often empty; after a stop string `stopped` is true."""
        self._tokens += 1
        piece = self._pieces.add(id)
        return self._emit(piece, last=False) if piece else ""

    def end(self) -> str:
        """Return the text held back: the beginning of a stop string, or an incomplete character (U+FFFD)."""
        return self._emit(self._pieces.end(), last=True)

    def _emit(self, piece: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._text += piece
        if self._tokens <= self._least:
            self._safe = len(self._text)
        starts = [
            (self._text.find(stop, max(self._emitted, self._safe + 1 - len(stop))), len(stop)) for stop in self._stop
        ]
        matches = [(start + length, start) for start, length in starts if start >= 0]
        if matches:
            self.stopped = True
            _, end = min(matches)
        else:
            end = len(self._text) if last else len(self._text) - self._held_length()
        piece, self._emitted = self._text[self._emitted : end], max(self._emitted, end)
        return piece

    def _held_length(self) -> int:
        """The number of characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._text) - self._emitted), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stop):
                return length
        return 0
