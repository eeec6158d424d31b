"""The responses of a retriever, as /docs shows them.

It knows JSON. It does not know how answers are found.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.http.responses import Choice

SCORE = "Cosine similarity to the answer or its question, six decimal places."
CONFIDENCE = "Cosine similarity to question and answer as one text, six decimal places."


class TextUsage(BaseModel):
    """In tokens of the encoder's tokenizer: the question with its prompt, and the answer's text."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SearchTiming(BaseModel):
    """In milliseconds since the request arrived."""

    queued_ms: float = Field(description="Until the engine began with the request.")
    total_ms: float


class Alternative(BaseModel):
    """Another answer, and the row that it comes from."""

    answer: str
    score: float = Field(description=SCORE)
    confidence: float = Field(description=CONFIDENCE)
    source: str = Field(description="Where the row stands in the data.")
    question: str | None = Field(description="The row's question, if it is indexed.")


class RetrieverPredictResponse(BaseModel):
    """The answer, the row that it comes from, and the next best distinct answers.

    Below the threshold of the model the answer is not known: `answer`, `source` and `question` are null, and the best
    answer is the first of the alternatives.
    """

    answer: str | None
    known: bool
    score: float = Field(description=f"{SCORE} Of the best answer, also if it is not known.")
    confidence: float = Field(description=f"{CONFIDENCE} Below the model's threshold the answer is not known.")
    source: str | None = Field(description="Where the row stands in the data.")
    question: str | None = Field(description="The row's question, if it is indexed.")
    alternatives: list[Alternative]
    model: str
    revision: str
    usage: TextUsage
    timing: SearchTiming

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "answer": "Eleven players.",
                    "known": True,
                    "score": 0.913542,
                    "confidence": 0.811204,
                    "source": "dataset.json row 12",
                    "question": "How many players are in a soccer team?",
                    "alternatives": [
                        {
                            "answer": "Three.",
                            "score": 0.41207,
                            "confidence": 0.390411,
                            "source": "dataset.json row 40",
                            "question": None,
                        }
                    ],
                    "model": "owner/soccer",
                    "revision": "6f1b0ad1a1f4b3e4a5c1f2d3c4b5a69788776655",
                    "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
                    "timing": {"queued_ms": 0.4, "total_ms": 6.9},
                }
            ]
        }
    )


class RetrieverChatResponse(BaseModel):
    """OpenAI's chat.completion, with revision, timing and what /predict says of the answer added."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: TextUsage
    system_fingerprint: str = Field(description="The model's revision.")
    revision: str
    timing: SearchTiming
    known: bool = Field(description="False: the content is the model's answer to what it does not know.")
    score: float = Field(description=SCORE)
    confidence: float = Field(description=CONFIDENCE)
    source: str | None


class Embedding(BaseModel):
    """A text's vector, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class EmbeddingsUsage(BaseModel):
    """In tokens, prompts included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's list of embeddings, with revision added."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    revision: str
