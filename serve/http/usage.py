"""The tokens and the time that answers took, for the responses that name them."""

from serve.http import responses
from serve.http.answer import Answer


def usage_of(answers: list[Answer]) -> responses.Usage:
    """The tokens of the prompt and of its answers."""
    prompt, completion = len(answers[0].prompt), sum(answer.tokens for answer in answers)
    return responses.Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def timing_of(answers: list[Answer]) -> responses.Timing:
    """The times of the first answer to start and the last to end."""
    arrived, ended = answers[0].arrived, max(answer.ended for answer in answers)
    started = min((answer.started for answer in answers if answer.started is not None), default=ended)
    first = min((answer.first_token for answer in answers if answer.first_token is not None), default=ended)
    queued, first_token, total = (round((at - arrived) * 1000, 2) for at in (started, first, ended))
    return responses.Timing(queued_ms=max(0.0, queued), first_token_ms=first_token, total_ms=total)
