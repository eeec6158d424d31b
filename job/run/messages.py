"""Messages: what goes into the one line of an error, whichever stage writes it.

It knows names and errors of libraries. It does not know what is said of them.
"""


def listed(names: list[str], most: int = 4) -> str:
    """The first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def one_line(error: Exception, most: int | None = 240) -> str:
    """What an error of a library says, in one line of at most `most` characters; None: the whole of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None or len(text) <= most else text[:most].rsplit(" ", 1)[0] + " ..."
