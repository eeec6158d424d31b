"""Word lists: constants that list words are written as one text, with blanks between them."""


def word_set(text: str) -> frozenset[str]:
    """Split a text at its blanks.

    Args:
        text: words with blanks or line breaks between them.

    Returns:
        The words, each once.
    """
    return frozenset(text.split())
