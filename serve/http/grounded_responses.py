"""The responses of a grounded generator, as /docs shows them.

It knows JSON. It does not know how rows are found or answers generated.
"""

from pydantic import BaseModel, ConfigDict, Field

from serve.http.responses import ChatResponse, PredictResponse
from serve.http.retriever_responses import Alternative

KNOWN = (
    "False: no published row is near enough, the model says of itself that it does not know, or its confidence is "
    "below the published one."
)
SOURCES = "The published rows that the answer was made from, the nearest first."


class GroundedPredictResponse(PredictResponse):
    """The answer, what gave it, and the rows that it was made from.

    Where the answer is not known it is null; the nearest rows are named all the same.
    """

    known: bool = Field(description=KNOWN)
    sources: list[Alternative] = Field(description=SOURCES)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "answer": "Eleven players.",
                    "known": True,
                    "confidence": 0.813604,
                    "alternatives": [],
                    "sources": [
                        {
                            "answer": "A soccer team has eleven players.",
                            "score": 0.913542,
                            "confidence": 0.811204,
                            "source": "dataset.json row 12",
                            "question": "How many players are in a soccer team?",
                        }
                    ],
                    "model": "owner/soccer",
                    "revision": "6f1b0ad1a1f4b3e4a5c1f2d3c4b5a69788776655",
                    "finish_reason": "stop",
                    "deadline_reached": False,
                    "usage": {"prompt_tokens": 84, "completion_tokens": 4, "total_tokens": 88},
                    "timing": {"queued_ms": 8.4, "first_token_ms": 39.3, "total_ms": 76.9},
                }
            ]
        }
    )


class GroundedChatResponse(ChatResponse):
    """OpenAI's chat.completion, with revision, timing and what /predict says of the answer added."""

    known: bool = Field(description=KNOWN)
    sources: list[Alternative] = Field(description=SOURCES)


class Grounds(BaseModel):
    """What the last chunk of a streamed answer has beside its reason to end."""

    known: bool
    confidence: float | None
    sources: list[Alternative]
