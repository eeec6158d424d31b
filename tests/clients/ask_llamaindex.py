"""LlamaIndex's OpenAILike, its class for servers that speak as OpenAI's does."""

from typing import Any

import asking
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def model(asked: asking.Asked, **more: Any) -> OpenAILike:
    return OpenAILike(
        model=asked["model"],
        api_base=asked["url"],
        api_key="none",
        is_chat_model=True,
        additional_kwargs={"extra_body": asked["extra"]},
        **asked["options"],
        **more,
    )


def chat(asked: asking.Asked) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=asked["question"])]


def answer(asked: asking.Asked) -> dict[str, Any]:
    response = model(asked).chat(chat(asked))
    (choice,), usage = response.raw.choices, response.raw.usage
    return asking.said(response.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens, 1)


def stream(asked: asking.Asked) -> dict[str, Any]:
    options = {"include_usage": True}
    responses = list(model(asked).stream_chat(chat(asked), stream_options=options))
    pieces = sum(bool(response.delta) for response in responses)
    (finish,) = [
        response.raw.choices[0].finish_reason
        for response in responses
        if response.raw.choices and response.raw.choices[0].finish_reason
    ]
    usage = responses[-1].raw.usage
    return asking.said(responses[-1].message.content, finish, usage.prompt_tokens, usage.completion_tokens, pieces)


def now() -> str:
    """The time."""
    return "noon"


def tools(asked: asking.Asked) -> dict[str, Any]:
    able = model(asked, is_function_calling_model=True)
    response = able.chat_with_tools([FunctionTool.from_defaults(now)], user_msg=asked["question"])
    return {"text": response.message.content}


asking.main(answer=answer, stream=stream, tools=tools)
