"""Makes the prompt of a conversation with the model's chat template, and tokenizes it.

The text is exactly the one that transformers makes. A message may contain the text of a control token, such as the one
that ends a turn; it stays plain text, and only what the template itself writes becomes a control token.

It knows transformers' tokenizers. It does not know HTTP or the model.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from serve.http.client_text import StandIns
from serve.http.control import Control, Forged
from serve.http.template import Documents, Template, map_texts
from serve.messages import one_line

log = logging.getLogger(__name__)
Chat = list[dict[str, Any]]
_SYSTEM, _USER = {"role": "system", "content": "kickoff"}, {"role": "user", "content": "kickoff"}
_ASSISTANT, _TOOL = {"role": "assistant", "content": "kickoff"}, {"role": "tool", "content": "kickoff"}
_PROBES: list[Chat] = [
    [_USER],
    [_SYSTEM, _USER],
    [_USER, _ASSISTANT, _USER],
    [_SYSTEM, _USER, _ASSISTANT, _USER],
    [_USER, _ASSISTANT, _TOOL],
]
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients send a model's reasoning; templates know the first, some of them the second."""
_VISIBLE = re.compile(r"\S")
_ATTEMPTS = 2
"""A template may write the time, which may change between two renderings."""


class TemplateRefused(ValueError):
    """The model's chat template refuses these messages; the text is the template's own."""


class Prompt:
    """A tokenizer's chat template. Threads may share it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Compile the template and find the control tokens.

        Args:
            tokenizer: the model's, with its template; truncation and padding are switched off.

        Raises:
            ValueError: there is not exactly one chat template, or it cannot be parsed.
        """
        self._tokenizer = tokenizer
        self._source = str(tokenizer.get_chat_template())
        self._template = Template(self._source)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        written = []
        for chat in _PROBES:
            with suppress(Exception):  # a template is a program and may refuse any of these
                written.append(self._text(chat, True, False))
        tokens = tokenizer.added_tokens_decoder.values()
        self._taken = frozenset(self._source).union(*(token.content for token in tokens))
        self._control = Control(backend, written, self._taken)

    @property
    def _special(self) -> dict[str, Any]:
        tokens: dict[str, Any] = self._tokenizer.special_tokens_map
        return tokens

    def ids(self, messages: Chat, opened: bool, continued: bool, documents: Documents = None) -> list[int]:
        """Return the ids of the prompt.

        Args:
            messages: as OpenAI's clients send them; the arguments of tool calls may be a string of JSON.
            opened: end with the beginning of the assistant's turn (add_generation_prompt).
            continued: leave the last message's turn open (continue_final_message).
            documents: retrieved rows, for a grounded model.

        Raises:
            TemplateRefused: the template refuses these messages, or it cannot be told which part of the prompt the
                template has written.
        """
        chat = [self._normalize(message) for message in messages]
        refused = None
        for shape in _shapes(chat):
            try:
                return self._ids(shape, opened and not continued, continued, documents)
            except TemplateRefused as error:
                refused = refused or error
        raise refused or TemplateRefused("there are no messages")

    def _normalize(self, message: dict[str, Any]) -> dict[str, Any]:
        """Remove nulls, unify the names of the reasoning; make a developer the system if the template knows none."""
        message = {name: value for name, value in message.items() if value is not None}
        thought = next((message[name] for name in REASONING if name in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        if message["role"] == "developer" and "developer" not in self._source:
            message["role"] = "system"
        return message

    def _ids(self, chat: Chat, opened: bool, continued: bool, documents: Documents) -> list[int]:
        for _ in range(_ATTEMPTS):
            text = self._render(chat, opened, continued, documents)
            try:
                stand_ins = StandIns(self._taken)
                shown = self._template.render(chat, stand_ins, opened, continued, self._special, documents)
            except Exception as error:
                log.debug("the template fails with stand-ins: %s", one_line(error))
                break
            if stand_ins.reveal(shown) == text:
                return self._ids_from_stand_ins(text, shown)
        return self._ids_by_comparison(chat, text, opened, continued, documents)

    def _ids_from_stand_ins(self, text: str, shown: str) -> list[int]:
        try:
            return self._control.ids(text, shown)
        except Forged as error:
            raise TemplateRefused(str(error)) from None

    def _ids_by_comparison(
        self, chat: Chat, text: str, opened: bool, continued: bool, documents: Documents
    ) -> list[int]:
        """Tokenize for a template that stand-ins do not work with.

        It may write only the control tokens that it writes for any messages of this shape.
        """
        anyone, rows = ([map_texts(one, _veil) for one in texts] for texts in (chat, documents or []))
        try:
            expected = self._control.sequence(self._text(anyone, opened, continued, rows or None))
        except Exception as error:
            log.debug("the template fails with other messages: %s", one_line(error))
            expected = None
        if self._control.sequence(text) != expected:
            raise TemplateRefused(
                "its output contains the text of a control token, and it is unclear who wrote it; leave that text out"
            )
        return self._control.plain_ids(text)

    def _render(self, chat: Chat, opened: bool, continued: bool, documents: Documents) -> str:
        try:
            text = self._text(chat, opened, continued, documents)
            text.encode()
        except TemplateError as error:
            raise TemplateRefused(str(error)) from None
        except UnicodeEncodeError:
            raise TemplateRefused("its output contains half of a surrogate pair, expected valid Unicode") from None
        except Exception as error:  # a template is a program and may raise anything
            if continued and isinstance(error, ValueError):
                raise TemplateRefused("it changes the last message, so it cannot be continued") from None
            raise TemplateRefused(f"it fails with {type(error).__name__}: {one_line(error)}") from None
        if not text:
            raise TemplateRefused("its output is empty")
        return text

    def _text(self, chat: Chat, opened: bool, continued: bool, documents: Documents = None) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                chat,
                documents=documents,
                tokenize=False,
                add_generation_prompt=opened,
                continue_final_message=continued,
            )
        )


def _veil(text: str) -> str:
    return _VISIBLE.sub("x", text)


def _shapes(chat: Chat) -> Iterator[Chat]:
    """Yield the conversation as transformers documents it, and then in the forms that some templates need.

    The arguments of a tool call are an object, or a string of JSON for templates written for OpenAI's format. A turn
    that calls a tool has no content, or an empty one for templates that concatenate it.
    """
    objects = [_with_calls(message, _object) for message in chat]
    yield objects
    if any("tool_calls" in message for message in chat):
        yield [{"content": "", **message} for message in objects]
        yield [{"content": "", **_with_calls(message, _string)} for message in chat]


def _with_calls(message: dict[str, Any], arguments: Callable[[Any], Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return {"content": "", **message}
    functions = [{**call["function"], "arguments": arguments(call["function"]["arguments"])} for call in calls]
    return {**message, "tool_calls": [{**call, "function": one} for call, one in zip(calls, functions, strict=True)]}


def _object(arguments: Any) -> Any:
    return (json.loads(arguments) if arguments.strip() else {}) if isinstance(arguments, str) else arguments


def _string(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
