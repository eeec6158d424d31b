"""From a question to ids and from ids to text: the chat template on the way in, whole characters on the way out.

It knows tokenizers. It does not know the model, the engine or HTTP.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serve.http.pieces import Pieces, special_ids
from serve.http.prompt import Prompt, TemplateRefused

__all__ = ["Decoder", "TemplateRefused", "Text"]


class Text:
    """The tokenizer of a published model. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = _read(folder)
        self._template, self._prompt = self.tokenizer.chat_template, Prompt(self.tokenizer)
        self._special_ids = special_ids(self.tokenizer.backend_tokenizer)

    def prompt_ids(self, messages: list[dict[str, Any]], opened: bool = True, continued: bool = False) -> list[int]:
        """Token ids of a conversation through the chat template, ready for the answer to follow; see `Prompt.ids`.

        Raises:
            TemplateRefused: the template does not take these messages.
        """
        if self.tokenizer.chat_template != self._template:  # whoever holds the tokenizer may give it another one
            self._template, self._prompt = self.tokenizer.chat_template, Prompt(self.tokenizer)
        return self._prompt.ids(messages, opened, continued)

    def decoder(self, stop: list[str], least: int = 0, before: Sequence[int] = ()) -> "Decoder":
        """`before`: the prompt, where the answer goes on in the middle of its last message; see `Pieces`."""
        return Decoder(Pieces(self.tokenizer.backend_tokenizer, self._special_ids, before), stop, least)


def _read(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"found a {type(tokenizer).__name__}, expected a tokenizer.json")
    return tokenizer


class Decoder:
    """Ids to text, one at a time: gives out only whole characters, and nothing that may belong to a stop string.

    The pieces joined are the text of all ids, cut before the stop string that is complete first. A stop string that the
    first `least` ids complete does not count, as in vLLM.
    """

    def __init__(self, pieces: Pieces, stop: list[str], least: int = 0) -> None:
        self._pieces = pieces
        self._stop = stop
        self._text = ""
        self._emitted = 0
        self._least, self._tokens = least, 0
        self._safe = 0
        """Characters that came with the first ids; a stop string has to end behind them."""
        self.stopped = False

    def add(self, id: int) -> str:
        """The text that this id completes, often empty; after a stop string `stopped` is true and nothing follows."""
        self._tokens += 1
        piece = self._pieces.add(id)
        return self._emit(piece, last=False) if piece else ""

    def end(self) -> str:
        """What was held back: the beginning of a stop string that did not come, an incomplete character (U+FFFD)."""
        return self._emit(self._pieces.end(), last=True)

    def _emit(self, piece: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._text += piece
        if self._tokens <= self._least:
            self._safe = len(self._text)
        places = [
            (self._text.find(stop, max(self._emitted, self._safe + 1 - len(stop))), len(stop)) for stop in self._stop
        ]
        found = [(at + length, at) for at, length in places if at >= 0]
        if found:
            self.stopped = True
            _, end = min(found)
        else:
            end = len(self._text) if last else len(self._text) - self._held_length()
        given, self._emitted = self._text[self._emitted : end], max(self._emitted, end)
        return given

    def _held_length(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._text) - self._emitted), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stop):
                return length
        return 0
