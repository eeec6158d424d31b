"""A chat template, rendered so that what the client wrote can be told from what the template wrote.

transformers renders the prompt that counts. This is the same template once more, with stand-ins in the place of the
client's text (see `client_text.py`); whoever uses it has to compare the two.

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
"""Put behind the message that is to be continued, as transformers does; the prompt ends where it stands."""
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
FIELDS = frozenset({
    "role", "content", "name", "tool_calls", "tool_call_id", "id", "type", "function", "arguments",
    "reasoning_content", "reasoning", "thinking",
})  # fmt: skip


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
    ) -> str:
        """The prompt with stand-ins in the place of all that the client wrote."""
        shown = [map_texts(message, stand_ins.text) for message in messages]
        if continued:
            shown[-1]["content"] += stand_ins.text(CONTINUED)
        text = self._template.render(
            messages=shown, tools=None, documents=None, add_generation_prompt=opened, **special
        )
        if not continued:
            return text
        true = stand_ins.reveal(text)
        at = true.rindex(CONTINUED.strip())
        if true.startswith(CONTINUED, at):
            return text[:at]
        return text[: len(true[:at].rstrip())]  # the template strips blanks, so they were none of the message


def map_texts(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The message with all that the client chose changed: texts, and names but for those that every message has."""

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

    found: dict[str, Any] = change_all("", message)
    return found


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
    """Jinja's filter `title`, which looks for the words by a pattern."""
    return text.change_case(do_title) if isinstance(text, ClientText) else do_title(text)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers has it in templates: without escapes for HTML."""
    made: list[ClientText] = []
    escaped = _escape(value, ensure_ascii, made)
    keep = ensure_ascii and not made  # stand-ins are escaped already
    text = json.dumps(escaped, ensure_ascii=keep, indent=indent, separators=separators, sort_keys=sort_keys)
    return made[0].concat([text]) if made else text


def _escape(value: Any, ensure_ascii: bool, made: list[ClientText]) -> Any:
    """The value with the client's texts escaped, in which json.dumps finds nothing more to escape."""
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
    """`{% generation %}` marks the model's own words for training."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's type

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _CodeGenerator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        """`a ~ b`, which Jinja joins by a function of its own."""
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    """As transformers makes it; what joins texts keeps them a client's."""

    code_generator_class = _CodeGenerator
    concat = staticmethod(_concat)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self.filters |= {"tojson": _tojson, "join": _join, "title": _title}
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": lambda format: datetime.now().strftime(format),
        }
