"""LangChain's ChatOpenAI, as its documentation points it at a server of one's own."""

from typing import Any

import asking
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str


def chat(asked: asking.Asked) -> ChatOpenAI:
    options: Any = asked["options"]
    return ChatOpenAI(
        base_url=asked["url"], api_key="none", model=asked["model"], extra_body=asked["extra"] or None, **options
    )


def answer(asked: asking.Asked) -> dict[str, Any]:
    message = chat(asked).invoke(asked["question"])
    usage = message.usage_metadata
    return asking.said(
        message.content, message.response_metadata["finish_reason"], usage["input_tokens"], usage["output_tokens"], 1
    )


def stream(asked: asking.Asked) -> dict[str, Any]:
    whole, pieces = None, 0
    for chunk in chat(asked).stream(asked["question"], stream_usage=True):
        whole = chunk if whole is None else whole + chunk
        pieces += bool(chunk.content)
    usage = whole.usage_metadata
    finish = whole.response_metadata["finish_reason"]
    return asking.said(whole.content, finish, usage["input_tokens"], usage["output_tokens"], pieces)


def tools(asked: asking.Asked) -> dict[str, Any]:
    message = chat(asked).bind_tools([Person]).invoke(asked["question"])
    return {"text": message.content}


def structured(asked: asking.Asked) -> dict[str, Any]:
    return {"text": repr(chat(asked).with_structured_output(Person).invoke(asked["question"]))}


asking.main(answer=answer, stream=stream, tools=tools, structured=structured)
