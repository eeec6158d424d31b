"""The requests that a retriever takes, with their limits and examples, as /docs shows them.

It knows JSON. It does not know the model: the routes check what depends on it (its context, its name, its width).
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from serve.http.conversation import Message
from serve.http.fields import IGNORED, Name, Off, Strict, Text
from serve.http.schema import LIMIT, ChatRequest, Question, Tokens

MAX_TEXTS = 256
"""Texts of one request for embeddings."""
MOST_ANSWERS = 20
ANSWERS = 3
NO_MEANING = "Taken; it changes nothing, since an answer's text is a published one."
Number = Annotated[float, Field(allow_inf_nan=False)]


def _one(count: int) -> int:
    if count != 1:
        raise ValueError(f"found {count}, expected 1: a retriever gives one answer")
    return count


One = Annotated[int, AfterValidator(_one), WithJsonSchema({"type": "integer", "const": 1})]


class RetrieverPredictRequest(Strict):
    """A question."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question": "How many players are in a team?", "top_k": 3}]}
    )

    question: Question = Field(description="Encoded with the model's own prompt for questions.")
    top_k: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = Field(
        ANSWERS, description="Distinct answers to look at: the answer and its alternatives together."
    )


class AskedChatRequest(ChatRequest):
    """OpenAI's chat completions for a model that looks up the last message of a user."""

    @field_validator("messages")
    @classmethod
    def _check_question(cls, messages: list[Message]) -> list[Message]:
        last = next((message for message in reversed(messages) if message.role == "user"), None)
        if last is None:
            raise ValueError("there is no message of a user, expected a question")
        if not last.text.strip():
            raise ValueError("the user's last message is empty or only spaces, expected a question")
        return messages

    @property
    def question(self) -> str:
        """The text of the user's last message."""
        return next(message.text for message in reversed(self.messages) if message.role == "user")


class RetrieverChatRequest(AskedChatRequest):
    """OpenAI's chat completions: the last message of a user is the question; earlier ones do not count.

    Sampling settings are taken, since they cannot change a published text. A field that asks for something else than
    that text is refused, unless its value has no effect; so is an unknown field.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "How many players are in a team?"}]}]}
    )

    max_tokens: Tokens | None = Field(None, description=f"The text is cut after so many tokens. {LIMIT}")
    temperature: Number | None = Field(None, description=NO_MEANING)
    top_p: Number | None = Field(None, description=NO_MEANING)
    top_k: int | None = Field(None, description=NO_MEANING)
    min_p: Number | None = Field(None, description=NO_MEANING)
    seed: int | None = Field(None, description=NO_MEANING)
    presence_penalty: Number | None = Field(None, description=NO_MEANING)
    frequency_penalty: Number | None = Field(None, description=NO_MEANING)
    repetition_penalty: Number | None = Field(None, description=NO_MEANING)
    n: One | None = Field(None, description="1: a retriever gives one answer.")
    min_tokens: Annotated[int, Field(ge=0, le=0)] | None = Field(None, description="An answer cannot be made longer.")
    ignore_eos: Off = Field(None, description="An answer cannot be made longer.")
    continue_final_message: Off = Field(None, description="A retriever does not continue texts.")
    add_generation_prompt: Literal[True] | None = Field(None, description="There is no prompt.")


def _no_token_ids(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, int | list) and not isinstance(first, bool):
        raise ValueError("found token ids, expected a text or a list of texts")
    return value


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("is empty, expected a text")
    return text


EmbeddedText = Annotated[Text, AfterValidator(_not_empty)]


class EmbeddingsRequest(Strict):
    """OpenAI's embeddings, with `input_type` added."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["How many players are in a team?"]}]})

    input: EmbeddedText | Annotated[list[EmbeddedText], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
    model: Name | None = Field(None, description="The served model's name, or nothing.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: little-endian float32. Null or left out: float."
    )
    input_type: Literal["query", "document"] | None = Field(
        None, description="Which of the model's prompts the texts get; left out: query. Not OpenAI's."
    )
    dimensions: int | None = Field(None, description="The model's own width, or nothing: vectors are not shortened.")
    user: Any = IGNORED

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_ids(cls, value: Any) -> Any:
        return _no_token_ids(value)

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


BODIES: dict[str, type[BaseModel]] = {
    "/predict": RetrieverPredictRequest,
    "/v1/chat/completions": RetrieverChatRequest,
    "/v1/embeddings": EmbeddingsRequest,
}
"""The body of each route, for the suggestion of a field's name."""
