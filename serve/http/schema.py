"""The requests of the HTTP interface, with their limits and examples, as /docs shows them.

It knows JSON. It does not know the model: the routes check what depends on it (its context, its name).
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from serve.http.conversation import Message
from serve.http.fields import IGNORED, MAX_ITEMS, Name, NoList, NoObject, Off, Strict, Text, valid_unicode

MAX_STOP = 16
MAX_CHOICES = 8
MAX_PIECES = 2000
"""Text parts and tool calls of a whole conversation; validating more would delay all other clients."""
MAX_INTEGER = 2**31 - 1


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty or only spaces, expected a question")
    return text


def _not_zero(tokens: int) -> int:
    if tokens == 0:
        raise ValueError("is 0, expected at least 1, or -1 for as many as fit")
    return tokens


Question = Annotated[Text, AfterValidator(_not_blank)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(valid_unicode)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOP, fail_fast=True)]
Tokens = Annotated[int, Field(ge=-1, le=MAX_INTEGER), AfterValidator(_not_zero)]
"""-1, from vLLM's clients, is no limit but the context; a limit that does not fit is lowered to the context."""
LIMIT = "Null or left out: as the model was published. -1: as many as fit."
"""Null is allowed since some clients send it where their user sets no limit."""
Least = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
TopK = Annotated[int, Field(ge=-1, le=MAX_INTEGER, description="0 and -1 are off.")]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, description="0 is greedy.")]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class PredictRequest(Strict):
    """A question, and over the model's published defaults how to answer it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question": "How many players are in a team?", "max_new_tokens": 40}]}
    )

    question: Question = Field(description="Sent alone, in the model's own chat template.")
    max_new_tokens: Tokens | None = Field(None, description=LIMIT)
    temperature: Temperature | None = Field(None)
    top_p: TopP | None = Field(None)
    top_k: TopK | None = Field(None)
    stop: Stop | Stops | None = Field(None, description="The answer ends before any of these texts.")
    seed: Seed | None = Field(None, description="Makes sampling repeatable.")
    stream: bool = Field(False, description="Server-sent events: delta ..., then done (or error).")


class StreamOptions(Strict):
    """What a stream sends beside the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = Field(None, description="Accepted and ignored. vLLM's.")
    include_obfuscation: Off = None


class ResponseFormat(Strict):
    """Only plain text is supported."""

    type: Literal["text"]


class ChatRequest(Strict):
    """OpenAI's chat completions.

    A field that would change the answer and is not supported is refused, unless its value has no effect; so is an
    unknown field.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"messages": [{"role": "user", "content": "How many players are in a team?"}], "max_tokens": 40}
            ]
        },
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    model: Name | None = Field(None, description="The served model's name, or nothing.")
    max_tokens: Tokens | None = Field(None, description=LIMIT)
    max_completion_tokens: Tokens | None = Field(
        None, description="max_tokens by its new name, which takes precedence."
    )
    temperature: Temperature | None = None
    top_p: TopP | None = None
    min_tokens: Least | None = Field(
        None,
        description="Neither an end-of-sequence token nor a stop text ends the answer before so many tokens. vLLM's.",
    )
    ignore_eos: bool | None = Field(
        None,
        description="The answer continues after an end-of-sequence token, up to its limit. vLLM's, for benchmarks.",
    )
    top_k: TopK | None = Field(None, description="Not OpenAI's.")
    stop: Stop | Stops | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Annotated[list[Any], Field(max_length=MAX_ITEMS)] | None = Field(
        None, description="Only with tool_choice none."
    )
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=1, le=1)] | None = None
    add_generation_prompt: bool | None = Field(
        None,
        description="False: the prompt ends with the last message and does not open an assistant turn. Not OpenAI's.",
    )
    continue_final_message: bool | None = Field(
        None, description="The answer continues the last message, which is an assistant's. Not OpenAI's."
    )
    functions: NoList = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=MAX_ITEMS, fail_fast=True)] | None = None
    logit_bias: NoObject = None
    # fields of vLLM, SGLang and llama.cpp, accepted with the values that have no effect
    best_of: Literal[1] | None = None
    use_beam_search: Off = None
    length_penalty: Annotated[float, Field(ge=1, le=1)] | None = None
    stop_token_ids: NoList = None
    bad_words: NoList = None
    include_stop_str_in_output: Off = None
    echo: Off = None
    skip_special_tokens: Literal[True] | None = None
    spaces_between_special_tokens: Literal[True] | None = None
    add_special_tokens: Off = None
    chat_template_kwargs: NoObject = None
    # these do not change an answer
    user: Any = IGNORED
    metadata: Any = IGNORED
    store: Any = IGNORED
    service_tier: Any = IGNORED
    parallel_tool_calls: Any = IGNORED
    reasoning_effort: Any = IGNORED
    verbosity: Any = IGNORED
    safety_identifier: Any = IGNORED
    prompt_cache_key: Any = IGNORED
    prompt_cache_retention: Any = IGNORED
    request_id: Any = IGNORED
    priority: Any = IGNORED
    cache_salt: Any = IGNORED

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, tools: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        if tools and info.data.get("tool_choice") != "none":
            raise ValueError("this server does not call tools; leave them out, or send tool_choice none")
        return tools

    @field_validator("messages", mode="before")
    @classmethod
    def _limit_pieces(cls, messages: Any) -> Any:
        turns = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
        lists = [one.get(name) for one in turns for name in ("content", "tool_calls")]
        count = sum(len(one) for one in lists if isinstance(one, list))
        if count > MAX_PIECES:
            raise ValueError(f"have {count} parts and tool calls together, expected at most {MAX_PIECES}")
        return messages

    @field_validator("messages")
    @classmethod
    def _check_last_message(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role == "user" and not messages[-1].text.strip():
            raise ValueError("the last message is empty or only spaces, expected a question")
        return messages

    @field_validator("continue_final_message")
    @classmethod
    def _check_continued(cls, continued: bool | None, info: ValidationInfo) -> bool | None:
        if not continued or "messages" not in info.data:
            return continued
        if info.data.get("add_generation_prompt"):
            raise ValueError("found with add_generation_prompt, which starts another turn; leave one of them out")
        last = info.data["messages"][-1]
        if last.role != "assistant" or last.content is None or last.tool_calls:
            raise ValueError("the last message is not an assistant's text, expected one for the answer to continue")
        return continued


BODIES: dict[str, type[BaseModel]] = {"/predict": PredictRequest, "/v1/chat/completions": ChatRequest}
"""The body of each route that needs the engine."""
