"""Messages: formats names and library errors for the one line of an error message, for all stages.

The module does not know which message they become part of.
"""


def join_names(names: list[str], most: int = 4) -> str:
    """Return the first `most` names separated by commas, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; its type if it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def one_line(error: Exception, most: int | None = 240) -> str:
    """Return an error's text on one line.

    Args:
        error: Any library's error; one without text is shown by its type.
        most: Characters after which the text is cut at a word; None for no limit.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if most is None or len(text) <= most else text[:most].rsplit(" ", 1)[0] + " ..."
