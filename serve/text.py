"""From a question to ids and from ids to text: the chat template on the way in, whole characters on the way out.

It knows tokenizers. It does not know the model, the engine or HTTP.
"""

import uuid
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from serve.http.pieces import Pieces, special_ids


class TemplateRefused(ValueError):
    """The model's chat template does not take these messages; the text is the template's own."""


class Text:
    """The tokenizer of a published model. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        # `split_special_tokens` is state of a tokenizer: with one for both ways, a thread that reads a question as
        # plain text would change how another reads a template
        self.tokenizer, self._plain = _read(folder), _read(folder)
        added = self.tokenizer.added_tokens_decoder.values()
        self._special = {token.content for token in added if token.special and token.content.strip()}
        self._special_ids = special_ids(self.tokenizer.backend_tokenizer)

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation through the chat template, ready for the answer to follow.

        A question may hold the text of a special token, such as the one that ends a text or a turn. It is a question
        about that token, not an order: such a message is tokenized as plain text, apart from what the template writes.
        The template gets a mark in its place. A token that was added without being special, such as a pair of line
        ends or `</think>`, is text like any other: plain text holds it as well, and templates look for it.

        Raises:
            TemplateRefused: the template does not take these messages, or does not leave such a message as it is.
        """
        marks: dict[str, str] = {}
        shown = []
        for message in messages:
            content = message["content"]
            if any(token in content for token in self._special):
                inner, mark = content.strip(), uuid.uuid4().hex
                marks[mark] = inner
                message = {**message, "content": content.replace(inner, mark)}  # the template may strip the blanks
            shown.append(message)
        try:
            text = str(self.tokenizer.apply_chat_template(shown, add_generation_prompt=True, tokenize=False))
        except TemplateError as error:
            raise TemplateRefused(str(error)) from None
        _check_marks(text, list(marks))
        ids: list[int] = []
        for mark, content in marks.items():
            before, _, text = text.partition(mark)
            ids += _ids(self.tokenizer, before) + _ids(self._plain, content, plain=True)
        return ids + _ids(self.tokenizer, text)

    def decoder(self, stop: list[str], least: int = 0) -> "Decoder":
        return Decoder(Pieces(self.tokenizer.backend_tokenizer, self._special_ids), stop, least)


def _read(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"found a {type(tokenizer).__name__}, expected a tokenizer.json")
    return tokenizer


def _check_marks(text: str, marks: list[str]) -> None:
    """Each mark stands once, in the order of the messages; else one turn's text could end up in another's place."""
    places = [text.find(mark) for mark in marks]
    if -1 in places or places != sorted(places) or any(text.count(mark) > 1 for mark in marks):
        raise TemplateRefused(
            "it drops, moves or changes a message that holds the text of one of the model's tokens; leave that text out"
        )


def _ids(tokenizer: PreTrainedTokenizerFast, text: str, plain: bool = False) -> list[int]:
    # the template has written every special token itself
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
    return ids


class Decoder:
    """Ids to text, one at a time: gives out only whole characters, and nothing that may belong to a stop string.

    The pieces joined are the text of all ids, cut before the stop string that is complete first. A stop string that the
    first `least` ids complete does not count, as in vLLM.
    """

    def __init__(self, pieces: Pieces, stop: list[str], least: int = 0) -> None:
        self._pieces = pieces
        self._stop = stop
        self._text = ""
        self._given = 0
        self._least, self._tokens = least, 0
        self._safe = 0
        """Characters that came with the first ids; a stop string has to end behind them."""
        self.stopped = False

    def add(self, id: int) -> str:
        """The text that this id completes, often empty; after a stop string `stopped` is true and nothing follows."""
        self._tokens += 1
        piece = self._pieces.add(id)
        return self._give(piece, last=False) if piece else ""

    def end(self) -> str:
        """What was held back: the beginning of a stop string that did not come, an incomplete character (U+FFFD)."""
        return self._give(self._pieces.end(), last=True)

    def _give(self, piece: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._text += piece
        if self._tokens <= self._least:
            self._safe = len(self._text)
        places = [
            (self._text.find(stop, max(self._given, self._safe + 1 - len(stop))), len(stop)) for stop in self._stop
        ]
        found = [(at + length, at) for at, length in places if at >= 0]
        if found:
            self.stopped = True
            _, end = min(found)
        else:
            end = len(self._text) if last else len(self._text) - self._held()
        given, self._given = self._text[self._given : end], max(self._given, end)
        return given

    def _held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._text) - self._given), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stop):
                return length
        return 0
