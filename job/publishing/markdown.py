"""Markdown: escapes text so that it never becomes a tag, a link, a heading or a formula.

It knows the syntax of Markdown (CommonMark, GitHub's tables and autolinks) and of HTML, not what the text says.
"""

import re

_SIGNS = str.maketrans(
    {sign: "\\" + sign for sign in "\\`*_[]{}#|~$!^"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
)  # fmt: skip
_AUTOLINK = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def text(value: object) -> str:
    """Escape a value as one line of text, for a paragraph or a table cell; web addresses do not become links."""
    line = " ".join(str(value).split()).translate(_SIGNS)
    return _AUTOLINK.sub(lambda match: f"&#{ord(match[0])};", line)
