"""From a conversation to the ids of its prompt, through the model's chat template.

The text is the one that transformers makes of these messages. A message may hold the text of a control token, such as
the one that ends a turn: it is about that token, and no order. Only what the template itself writes becomes one.

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
from serve.http.template import Template, map_texts
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
"""Names under which clients send what a model thought; templates know the first, some the second."""
_VISIBLE = re.compile(r"\S")
_ATTEMPTS = 2
"""A template may write the time, which may change between the two renderings."""


class TemplateRefused(ValueError):
    """The model's chat template does not take these messages; the text is the template's own."""


class Prompt:
    """A tokenizer's chat template. Threads may share it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """
        Raises:
            ValueError: there is no one chat template, or it cannot be read.
        """
        self._tokenizer = tokenizer
        self._source = str(tokenizer.get_chat_template())
        self._template = Template(self._source)
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        written = []
        for chat in _PROBES:
            with suppress(Exception):  # a template is a program, and need not take each of these
                written.append(self._text(chat, True, False))
        tokens = tokenizer.added_tokens_decoder.values()
        self._taken = frozenset(self._source).union(*(token.content for token in tokens))
        self._control = Control(backend, written, self._taken)

    @property
    def _special(self) -> dict[str, Any]:
        found: dict[str, Any] = self._tokenizer.special_tokens_map
        return found

    def ids(self, messages: Chat, opened: bool, continued: bool) -> list[int]:
        """The ids of a prompt.

        Args:
            messages: as OpenAI's clients send them; the arguments of tool calls may be JSON in a string.
            opened: the beginning of the answer's turn is part of it.
            continued: the last message's turn is left open.

        Raises:
            TemplateRefused: the template does not take these messages, or it cannot be said what in the prompt is the
                template's.
        """
        chat = [self._normalize(message) for message in messages]
        refused = None
        for shape in _shapes(chat):
            try:
                return self._ids(shape, opened and not continued, continued)
            except TemplateRefused as error:
                refused = refused or error
        raise refused or TemplateRefused("there are no messages")

    def _normalize(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message without what is null, as transformers passes it on; a developer is the system to most models."""
        message = {name: value for name, value in message.items() if value is not None}
        thought = next((message[name] for name in REASONING if name in message), None)
        if thought is not None:
            message = {"thinking": thought, **message, "reasoning_content": thought}
        if message["role"] == "developer" and "developer" not in self._source:
            message["role"] = "system"
        return message

    def _ids(self, chat: Chat, opened: bool, continued: bool) -> list[int]:
        for _ in range(_ATTEMPTS):
            text = self._render(chat, opened, continued)
            try:
                stand_ins = StandIns(self._taken)
                shown = self._template.render(chat, stand_ins, opened, continued, self._special)
            except Exception as error:
                log.debug("the template fails with stand-ins: %s", one_line(error))
                break
            if stand_ins.reveal(shown) == text:
                return self._ids_from_stand_ins(text, shown)
        return self._ids_by_comparison(chat, text, opened, continued)

    def _ids_from_stand_ins(self, text: str, shown: str) -> list[int]:
        try:
            return self._control.ids(text, shown)
        except Forged as error:
            raise TemplateRefused(str(error)) from None

    def _ids_by_comparison(self, chat: Chat, text: str, opened: bool, continued: bool) -> list[int]:
        """For a template that looks at a message in a way that stand-ins do not know: it may write the control tokens
        that it writes for any messages of this shape, and no others."""
        anyone = [map_texts(message, lambda client: _VISIBLE.sub("x", client)) for message in chat]
        try:
            expected = self._control.sequence(self._text(anyone, opened, continued))
        except Exception as error:
            log.debug("the template fails with other messages: %s", one_line(error))
            expected = None
        if self._control.sequence(text) != expected:
            raise TemplateRefused(
                "what it makes of them holds the text of one of the model's tokens, and it cannot be said who wrote "
                "it; leave that text out"
            )
        return self._control.plain_ids(text)

    def _render(self, chat: Chat, opened: bool, continued: bool) -> str:
        try:
            text = self._text(chat, opened, continued)
            text.encode()
        except TemplateError as error:
            raise TemplateRefused(str(error)) from None
        except UnicodeEncodeError:
            raise TemplateRefused("they hold half of a surrogate pair, expected valid Unicode") from None
        except Exception as error:  # a template is a program, and may fail in every way
            if continued and isinstance(error, ValueError):
                raise TemplateRefused("it changes the last one, so that it cannot be continued") from None
            raise TemplateRefused(f"it fails with {type(error).__name__}: {one_line(error)}") from None
        if not text:
            raise TemplateRefused("it makes nothing of them")
        return text

    def _text(self, chat: Chat, opened: bool, continued: bool) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=opened, continue_final_message=continued
            )
        )


def _shapes(chat: Chat) -> Iterator[Chat]:
    """The conversation as transformers documents it, and then as some templates want it.

    The arguments of a tool call are an object, and JSON in a string to the templates that were written for OpenAI's
    form. A turn that calls a tool has no content, and an empty one to those that add it to something.
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
