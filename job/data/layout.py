"""Layout: line breaks, blanks and invisible characters of a text.

It knows which blanks carry meaning. Line breaks, indentation and blanks inside a line do: without them a Python or YAML
answer no longer works, and a table loses its columns. Blanks at the end of a line, repeated empty lines, and blanks
around the text do not.

It knows no language, and does not tell code from prose.
"""

import os
import re

# control characters but tab, newline and NEL, and zero-width space, word joiner and byte-order mark; the zero-width
# joiners stay, for emoji and Indic and Arabic script need them
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff]")
_BREAK = re.compile(r"\r\n?|[\x0b\x0c\u2028\u2029]")
_MORE_EMPTY_LINES = re.compile(r"\n{3,}")
# the completions of an old format each begin with one blank, which is no indentation
_ONE_BLANK = re.compile(r" (?=\w.)")


def unify_line_breaks(text: str) -> str:
    r"""Turn every kind of line break into \n: those of Windows and old Macs, form feeds, Unicode's separators.

    The C1 control NEL (U+0085) stays: it may be one byte of a character that was decoded wrongly.
    """
    return text if text.isprintable() else _BREAK.sub("\n", text)


def remove_invisible(text: str) -> str:
    r"""Remove control characters and zero-width blanks, and turn every line break, NEL too, into \n."""
    return text if text.isprintable() else _INVISIBLE.sub("", unify_line_breaks(text).replace("\x85", "\n"))


def trim(text: str) -> str:
    """Remove blanks at the end of lines and around the text, and all but one of several empty lines.

    Indentation shared by all lines is removed; the rest of it stays, on the first line too.
    """
    if text.isprintable():  # one line, and no blank in it but the plain one
        return text.strip()
    lines = _MORE_EMPTY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip("\n").split("\n")
    filled = [line for line in lines if line]
    shared = os.path.commonprefix([_indentation(line) for line in filled])
    lines = [line[len(shared) :] for line in lines]
    if _ONE_BLANK.match(lines[0]) and not any(_indentation(line) == " " for line in lines[1:]):
        lines[0] = lines[0][1:]
    return "\n".join(lines)


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
