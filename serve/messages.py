"""Shows an exception as one line of a log or an answer. It does not know where the exception comes from."""

LONGEST = 200
"""Characters of a line."""


def one_line(error: BaseException) -> str:
    """Return the first line of the exception's text, or its class name if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:LONGEST]
