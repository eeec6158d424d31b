"""Renders a chat template so that the client's text can be told from the template's own.

transformers renders the prompt that is used. This module renders the same template with stand-ins in place of the
client's text (see `client_text.py`); the caller must check that the two agree.

It knows Jinja. It does not know tokenizers.
"""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import do_title
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from serve.http.client_text import ClientText, StandIns

CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "
"""Appended to the message that is to be continued, as in transformers; the prompt is cut there."""
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
FIELDS = frozenset({
    "role", "content", "name", "tool_calls", "tool_call_id", "id", "type", "function", "arguments",
    "reasoning_content", "reasoning", "thinking", "title", "text",
})  # fmt: skip
Documents = list[dict[str, Any]] | None
"""Retrieved rows as transformers' templates take them, {"title", "text"}; None for a model that is not grounded."""


class Template:
    """A compiled chat template. Threads may share it."""

    def __init__(self, source: str) -> None:
        self._template = _Environment().from_string(source)

    def render(
        self,
        messages: list[dict[str, Any]],
        stand_ins: StandIns,
        opened: bool,
        continued: bool,
        special: dict[str, Any],
        documents: Documents = None,
    ) -> str:
        """Render the prompt with stand-ins in place of the client's text.

        Args:
            messages: the conversation.
            stand_ins: of this conversation.
            opened: the template's add_generation_prompt.
            continued: leave the last message open.
            special: the tokenizer's special tokens, by the names that templates use.
            documents: retrieved rows. Their texts are treated as a client's: they write no control token either.
        """
        shown = [map_texts(message, stand_ins.text) for message in messages]
        if continued:
            shown[-1]["content"] += stand_ins.text(CONTINUED)
        rows = documents and [map_texts(row, stand_ins.text) for row in documents]
        text = self._template.render(
            messages=shown, tools=None, documents=rows, add_generation_prompt=opened, **special
        )
        if not continued:
            return text
        true = stand_ins.reveal(text)
        at = true.rindex(CONTINUED.strip())
        if true.startswith(CONTINUED, at):
            return text[:at]
        return text[: len(true[:at].rstrip())]  # the template strips blanks, so they are not part of the message


def map_texts(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Apply `change` to all that the client chose: texts, and names other than those that every message has."""

    def change_all(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value if name in ("role", "type") and value in ROLES else change(value)
        if isinstance(value, list):
            return [change_all(name, item) for item in value]
        if isinstance(value, dict):
            return {
                inner if inner in FIELDS else change(inner): change_all(inner, item) for inner, item in value.items()
            }
        return value

    mapped: dict[str, Any] = change_all("", message)
    return mapped


def _concat(parts: Iterable[str]) -> str:
    parts = list(parts)
    client = next((part for part in parts if isinstance(part, ClientText)), None)
    return "".join(parts) if client is None else client.concat(parts)


def _join(values: Iterable[Any], d: str = "") -> str:
    """Jinja's filter `join`."""
    parts: list[str] = []
    for value in values:
        parts += [d, str(value)]
    return _concat(parts[1:])


def _title(text: Any) -> str:
    """Jinja's filter `title`, which finds the words with a regular expression."""
    return text.change_case(do_title) if isinstance(text, ClientText) else do_title(text)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """The filter `tojson` as in transformers: without HTML escapes."""
    made: list[ClientText] = []
    escaped = _escape(value, ensure_ascii, made)
    keep = ensure_ascii and not made  # stand-ins are escaped already
    text = json.dumps(escaped, ensure_ascii=keep, indent=indent, separators=separators, sort_keys=sort_keys)
    return made[0].concat([text]) if made else text


def _escape(value: Any, ensure_ascii: bool, made: list[ClientText]) -> Any:
    """Escape the client's texts in the value, so that json.dumps escapes nothing more in them."""
    if isinstance(value, ClientText):
        made.append(value.each(lambda character: json.dumps(character, ensure_ascii=ensure_ascii)[1:-1]))
        return str.__str__(made[-1])
    if isinstance(value, list | tuple):
        return [_escape(item, ensure_ascii, made) for item in value]
    if isinstance(value, dict):
        return {_escape(name, ensure_ascii, made): _escape(item, ensure_ascii, made) for name, item in value.items()}
    return value


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(str.__str__(message))


class _Generation(Extension):
    """The tag `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's type

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _CodeGenerator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """Compile `a ~ b` to a call of the environment's `concat`."""
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of transformers; whatever joins strings here keeps a client's text distinguishable."""

    code_generator_class = _CodeGenerator
    concat = staticmethod(_concat)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self.filters |= {"tojson": _tojson, "join": _join, "title": _title}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda format: datetime.now().strftime(format),
        }
