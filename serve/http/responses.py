"""The responses of the HTTP interface, as /docs shows them.

It knows JSON. It does not know how answers are generated.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIDENCE = "Probability that the answer is right, as calibrated on the test answers, six decimal places."


class Usage(BaseModel):
    """In tokens; the token that ends the answer counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(BaseModel):
    """In milliseconds since the request arrived."""

    queued_ms: float = Field(description="Until the model began with the request.")
    first_token_ms: float
    total_ms: float


class UnsureAnswer(BaseModel):
    """An answer of which the model is not sure enough."""

    answer: str
    confidence: float = Field(description=CONFIDENCE)


class PredictResponse(BaseModel):
    """The answer, and what gave it.

    Below the least confidence that was published with the model the answer is not known: `answer` is null, and what
    the model said is the only one of the alternatives.
    """

    answer: str | None
    known: bool = Field(description="Whether there is an answer. True of a model that publishes no least confidence.")
    confidence: float | None = Field(description=f"{CONFIDENCE} Null of a model that publishes none.")
    alternatives: list[UnsureAnswer]
    model: str
    revision: str
    finish_reason: Literal["stop", "length"]
    deadline_reached: bool = Field(description="The time limit ended the answer.")
    usage: Usage
    timing: Timing

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "answer": "Eleven players.",
                    "known": True,
                    "confidence": 0.813604,
                    "alternatives": [],
                    "model": "owner/soccer",
                    "revision": "6f1b0ad1a1f4b3e4a5c1f2d3c4b5a69788776655",
                    "finish_reason": "stop",
                    "deadline_reached": False,
                    "usage": {"prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18},
                    "timing": {"queued_ms": 0.4, "first_token_ms": 21.3, "total_ms": 58.9},
                }
            ]
        }
    )


class ChoiceMessage(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: ChoiceMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class GeneratedChoice(Choice):
    """One of the answers, and how sure the model is of it."""

    known: bool
    confidence: float | None


class ChatResponse(BaseModel):
    """OpenAI's chat.completion; added are revision, deadline_reached, timing, and how sure the model is."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[GeneratedChoice]
    usage: Usage
    system_fingerprint: str = Field(description="The model's revision.")
    revision: str
    deadline_reached: bool
    timing: Timing
    known: bool = Field(description="Of the first choice: false if its confidence is below the published one.")
    confidence: float | None = Field(description=f"Of the first choice. {CONFIDENCE} Null of a model without one.")


class Model(BaseModel):
    """The served model, in OpenAI's form."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    revision: str
    max_model_len: int | None = Field(description="Tokens for question and answer together.")


class ModelList(BaseModel):
    """The served model, in OpenAI's form of a list."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(BaseModel):
    """What is wrong, and with which field (`param`)."""

    message: str
    type: str
    param: str | None = None
    code: str


class Error(BaseModel):
    """Every error, on every route: OpenAI's form."""

    error: ErrorDetail


class Health(BaseModel):
    """`status` is "ok", or why requests should go elsewhere."""

    status: str
