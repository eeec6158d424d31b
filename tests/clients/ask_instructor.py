"""instructor over OpenAI's client: plain text, and an object in each of its ways to ask for one."""

from typing import Any

import asking
import instructor
import openai
from pydantic import BaseModel


class Person(BaseModel):
    name: str


def ask(asked: asking.Asked, mode: instructor.Mode, **more: Any) -> Any:
    options = dict(asked["options"])
    retries = {"max_retries": options.pop("max_retries")} if "max_retries" in options else {}
    client = instructor.from_openai(openai.OpenAI(base_url=asked["url"], api_key="none", **retries), mode=mode)
    messages: Any = [{"role": "user", "content": asked["question"]}]
    return client.chat.completions.create(
        model=asked["model"], messages=messages, extra_body=asked["extra"], **options, **more
    )


def answer(asked: asking.Asked) -> dict[str, Any]:
    completion = ask(asked, instructor.Mode.JSON, response_model=None)
    (choice,), usage = completion.choices, completion.usage
    return asking.said(choice.message.content, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens, 1)


def stream(asked: asking.Asked) -> dict[str, Any]:
    more = {"response_model": None, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = ask(asked, instructor.Mode.JSON, **more)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    finish = chunks[-1].choices[0].finish_reason
    return asking.said("".join(pieces), finish, last.usage.prompt_tokens, last.usage.completion_tokens, len(pieces))


def tools(asked: asking.Asked) -> dict[str, Any]:
    return {"text": repr(ask(asked, instructor.Mode.TOOLS, response_model=Person))}


def structured(asked: asking.Asked) -> dict[str, Any]:
    return {"text": repr(ask(asked, instructor.Mode.JSON, response_model=Person))}


def schema(asked: asking.Asked) -> dict[str, Any]:
    return {"text": repr(ask(asked, instructor.Mode.JSON_SCHEMA, response_model=Person))}


asking.main(answer=answer, stream=stream, tools=tools, structured=structured, schema=schema)
