"""LiteLLM's completion, with the server as an OpenAI-like provider."""

from typing import Any

import asking
import litellm

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def ask(asked: asking.Asked, **more: Any) -> Any:
    return litellm.completion(
        model=f"openai/{asked['model']}",
        api_base=asked["url"],
        api_key="none",
        messages=[{"role": "user", "content": asked["question"]}],
        extra_body=asked["extra"],
        **asked["options"],
        **more,
    )


def answer(asked: asking.Asked) -> dict[str, Any]:
    completion = ask(asked)
    (choice,), usage = completion.choices, completion.usage
    return asking.said(choice.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens, 1)


def stream(asked: asking.Asked) -> dict[str, Any]:
    chunks = list(ask(asked, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    (finish,) = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    usage = chunks[-1].usage
    return asking.said("".join(pieces), finish, usage.prompt_tokens, usage.completion_tokens, len(pieces))


def tools(asked: asking.Asked) -> dict[str, Any]:
    return {"text": ask(asked, tools=[TOOL]).choices[0].message.content}


def structured(asked: asking.Asked) -> dict[str, Any]:
    return {"text": ask(asked, response_format={"type": "json_object"}).choices[0].message.content}


asking.main(answer=answer, stream=stream, tools=tools, structured=structured)
