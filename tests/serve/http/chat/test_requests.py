"""What a chat request may ask for: limits, least lengths, and what is refused by its name."""

from typing import Any

import openai
import pytest
from openai_client import ANSWER, ASKED, by_choice
from served import Served
from transformers import PreTrainedTokenizerBase


def test_the_error_for_a_long_prompt_counts_its_tokens(
    client: openai.OpenAI, model: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    long: Any = [{"role": "user", "content": "plus " * 500}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=long)
    text = str(tokenizer.apply_chat_template(long, add_generation_prompt=True, tokenize=False))
    assert f"resulted in {len(tokenizer(text)['input_ids'])} tokens" in refused.value.message
    assert "maximum context length is 128 tokens" in refused.value.message
    assert refused.value.code == "context_length_exceeded"


def test_another_model_is_not_found(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert "'gpt-4o'" in refused.value.message and repr(model) in refused.value.message
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    "field, value",
    [
        ("tools", [TOOL]),
        ("tool_choice", "required"),
        ("logprobs", True),
        ("top_logprobs", 2),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("logit_bias", {"1": 5}),
        ("n", 0),
        ("n", 9),
        ("max_tokens", 0),
        ("max_completion_tokens", -2),
        ("max_token", 5),
        ("guided_json", {}),
        ("structured_outputs", {"choice": ["a"]}),
        ("stop_token_ids", [1]),
        ("min_tokens", -1),
        ("min_tokens", 3.0),
        ("min_tokens", True),
        ("min_tokens", 13),
        ("min_tokens", 10**9),
        ("ignore_eos", 1),
        ("ignore_eos", "true"),
        ("temperature", 3),
        ("messages", []),
        ("messages", [{"role": "user", "content": " "}]),
        ("messages", [{"role": "tool", "content": None}]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
        ("messages", [{"role": "user", "content": []}]),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_unsupported_fields_that_change_the_answer_are_refused_by_name(
    client: openai.OpenAI, model: str, field: str, value: Any, stream: bool
) -> None:
    options: Any = {"model": model, "messages": ASKED, "stream": stream, "extra_body": {field: value}}
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(**options)
    assert refused.value.param is not None and refused.value.param.split(".")[0] == field
    assert field in refused.value.message
    assert "function-after" not in refused.value.message


def test_fields_that_change_nothing_are_accepted(client: openai.OpenAI, model: str) -> None:
    neutral: Any = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False, "logit_bias": {}}
    neutral |= {"response_format": {"type": "text"}, "user": "ada", "metadata": {"a": "b"}, "store": False}
    neutral |= {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False, "service_tier": "auto"}
    neutral |= {"max_tokens": 10**6, "extra_body": {"top_k": -1, "min_tokens": 0, "ignore_eos": False, "best_of": 1}}
    completion = client.chat.completions.create(model=model, messages=ASKED, **neutral)
    assert completion.choices[0].message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_minus_one_is_no_limit_and_null_is_the_published_one(
    client: openai.OpenAI, model: str, name: str, stream: bool
) -> None:
    """Clients that were given no limit may send null: LangChain's invoke and the AI SDK do."""
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    for limit, expected in (({}, 12), ({name: None}, 12), ({name: -1}, None), ({name: 10**6}, None)):
        options: Any = {"extra_body": {"ignore_eos": True, **limit}, **more}
        made: Any = client.chat.completions.create(model=model, messages=ASKED, **options)
        usage = list(made)[-1].usage if stream else made.usage
        if expected is None:
            assert usage.total_tokens == 128, "the context"
        else:
            assert usage.completion_tokens == expected, limit


@pytest.mark.parametrize("other", [{}, {"max_completion_tokens": None}])
def test_null_in_one_limit_leaves_the_other(client: openai.OpenAI, model: str, other: Any) -> None:
    options: Any = {"extra_body": {"ignore_eos": True, "max_tokens": 5, **other}}
    completion = client.chat.completions.create(model=model, messages=ASKED, **options)
    assert completion.usage is not None and completion.usage.completion_tokens == 5


@pytest.mark.parametrize("least", [0, 6, 7, 10, 12])
def test_an_answer_has_min_tokens_over_http(client: openai.OpenAI, model: str, least: int) -> None:
    """The model ends this answer with its seventh token; the published limit is twelve."""
    options: Any = {"model": model, "messages": ASKED, "extra_body": {"min_tokens": least}}
    whole = client.chat.completions.create(**options)
    *chunks, last = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
    ((text, reason),) = by_choice(chunks).values()
    assert (text, reason) == (whole.choices[0].message.content, whole.choices[0].finish_reason)
    assert whole.usage is not None and last.usage == whole.usage
    tokens = whole.usage.completion_tokens
    assert tokens == 7 if least <= 6 else least <= tokens <= 12
    assert reason == ("length" if tokens == 12 else "stop")
    assert text.startswith(ANSWER)


def test_the_end_of_sequence_can_be_ignored(client: openai.OpenAI, model: str) -> None:
    """It has no text of its own, and the answer goes on behind it."""
    extra: Any = {"ignore_eos": True}
    completion = client.chat.completions.create(model=model, messages=ASKED, max_tokens=30, n=2, extra_body=extra)
    for choice in completion.choices:
        assert choice.finish_reason == "length"
        assert choice.message.content is not None and choice.message.content.startswith(ANSWER)
        assert "<|endoftext|>" not in choice.message.content
    assert completion.usage is not None and completion.usage.completion_tokens == 60
    whole = client.chat.completions.create(model=model, messages=ASKED, extra_body={**extra, "max_tokens": -1})
    assert whole.usage is not None and whole.usage.total_tokens == 128, "the context"


def test_a_stop_string_does_not_count_before_min_tokens(client: openai.OpenAI, model: str) -> None:
    """The answer is "2", " plus", " 2", ..., and so its second " 2" is the third token. vLLM does so."""
    for least, expected in ((0, "2 plus"), (2, "2 plus"), (3, "2 plus 2 is"), (6, ANSWER)):
        options: Any = {"model": model, "messages": ASKED, "stop": [" 2", " 4"], "extra_body": {"min_tokens": least}}
        completion = client.chat.completions.create(**options)
        assert completion.choices[0].message.content == expected
        assert completion.choices[0].finish_reason == "stop"
        assert by_choice(list(client.chat.completions.create(stream=True, **options))) == {0: (expected, "stop")}


@pytest.mark.parametrize("most", [{"max_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 50}, {}])
def test_min_tokens_above_max_tokens_is_refused(client: openai.OpenAI, model: str, most: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model=model, messages=ASKED, extra_body={"min_tokens": 20}, **most)
    assert refused.value.param == "min_tokens"
    assert f"expected at most {5 if most else 12}" in refused.value.message
    assert "send a larger max_tokens" in refused.value.message


def test_min_tokens_above_the_context_is_refused(server: Served, client: openai.OpenAI, model: str) -> None:
    before = server.metric("kickoff_rejected_total", reason="invalid")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model=model, messages=ASKED, max_tokens=500, extra_body={"min_tokens": 127})
    assert "fit after these messages; shorten them" in refused.value.message
    assert server.metric("kickoff_rejected_total", reason="invalid") == before + 1
    assert server.metric("kickoff_waiting") == 0, "its place is free"
