"""An exception as one line for a log or an answer. It knows nothing of where it is from."""

LONGEST = 200


def one_line(error: BaseException) -> str:
    """The first line of what the exception says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:LONGEST]
