"""Markdown: any text as text, in a paragraph or a table's cell, never as a tag, a link, a heading or a formula.

It knows the signs of Markdown (CommonMark, GitHub's tables and bare links) and of HTML, not what the text says.
"""

import re

_SIGNS = str.maketrans(
    {sign: "\\" + sign for sign in "\\`*_[]{}#|~$!^"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
)  # fmt: skip
_BARE_LINK = re.compile(r":(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def text(value: object) -> str:
    """In one line, as it reads; a bare web address stays what it is and becomes no link."""
    line = " ".join(str(value).split()).translate(_SIGNS)
    return _BARE_LINK.sub(lambda found: f"&#{ord(found[0])};", line)
