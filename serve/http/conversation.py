"""The messages of a chat request: OpenAI's format, with what other clients and chat templates add to it.

It knows JSON. It does not know templates or the rest of a request.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from serve.http.fields import IGNORED, MAX_ITEMS, Off, Open, Strict, Text, check_depth

MAX_CALLS = 128
"""Tool calls in one turn."""


class TextPart(Strict):
    """A part of a message; of the kinds that OpenAI's clients can send, text alone is known."""

    type: Literal["text"]
    text: Text
    # clients of some servers send these beside a text; they do not change it
    cache_control: Any = IGNORED
    annotations: Any = IGNORED
    citations: Any = IGNORED
    id: Any = IGNORED
    index: Any = IGNORED


class FunctionCall(Open):
    """What an assistant called."""

    name: Text
    arguments: Text | dict[Any, Any] = Field(description="A JSON object, in a string as OpenAI has it, or as it is.")

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(arguments, str) and arguments.strip():
            try:
                value = json.loads(arguments)
            except RecursionError:
                raise ValueError("are nested too deeply, expected an object such as {}") from None
            except ValueError as error:
                reason = str(error).partition(";")[
                    0
                ]  # for a number with too many digits the rest names a setting of Python
                raise ValueError(f"are not JSON ({reason}), expected an object such as {{}}") from None
            if not isinstance(value, dict):
                raise ValueError("are JSON, but not an object; expected an object such as {}")
            check_depth(value)
        return arguments

    @property
    def for_template(self) -> dict[str, Any]:
        """The call as chat templates expect it."""
        return self.without_nulls(name=self.name, arguments=self.arguments)


class ToolCall(Open):
    """A call of a tool in an assistant's turn."""

    id: Text | None = None
    type: Literal["function"] = "function"
    function: FunctionCall

    @property
    def for_template(self) -> dict[str, Any]:
        """The tool call as chat templates expect it."""
        return self.without_nulls(id=self.id, type=self.type, function=self.function.for_template)


class Message(Open):
    """One turn of a conversation. The chat template gets all of it; it shows the fields that it knows."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="A developer counts as the system for a model whose chat template has no developers."
    )
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)] | None = Field(
        None, validate_default=True, description="Null or left out in an assistant message that called a tool."
    )
    name: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = Field(None, description="The assistant's reasoning. Not OpenAI's.")
    # other servers' names for continue_final_message, and other kinds of content
    prefix: Off = Field(None, description="Refused: send continue_final_message.")
    partial: Off = Field(None, description="Refused: send continue_final_message.")
    function_call: None = Field(None, description="Refused: send tool_calls.")
    audio: None = Field(None, description="Refused: only text is supported.")

    @field_validator("content")
    @classmethod
    def _check_content(cls, content: Any, info: ValidationInfo) -> Any:
        if content is None and info.data.get("role", "assistant") != "assistant":
            raise ValueError("is missing or null, expected a text or a list of text parts")
        return content

    @field_validator("tool_calls")
    @classmethod
    def _check_calls(cls, calls: list[ToolCall] | None, info: ValidationInfo) -> list[ToolCall] | None:
        if calls and info.data.get("role", "assistant") != "assistant":
            raise ValueError(f"found in a {info.data['role']} message, expected in an assistant message")
        return calls

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @property
    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: content as one string, and no nulls."""
        calls = [call.for_template for call in self.tool_calls or []] or None
        return self.without_nulls(
            role=self.role,
            content=self.text if self.content is not None or not calls else None,
            name=self.name,
            tool_calls=calls,
            tool_call_id=self.tool_call_id,
            reasoning_content=self.reasoning_content,
        )
