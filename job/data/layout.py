"""Layout: the lines of a text and the blanks in them, seen and unseen.

It knows which blanks carry meaning. Lines, indentation and blanks inside a line do: without them a Python or YAML
answer no longer works, and a table loses its columns. Blanks at the end of a line, a second empty line in a row, and
what stands before and after the text do not.

It knows no language: it does not tell code from prose.
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


def line_breaks(text: str) -> str:
    """Every kind of line break as a newline: Windows', old Macs', form feeds, Unicode's separators.

    The C1 control NEL (U+0085) is left to the caller: it may be one byte of a character that was read wrongly.
    """
    return text if text.isprintable() else _BREAK.sub("\n", text)


def visible(text: str) -> str:
    """The text without what is not seen."""
    return text if text.isprintable() else _INVISIBLE.sub("", line_breaks(text).replace("\x85", "\n"))


def tidied(text: str) -> str:
    """The text without blanks at the end of lines, without a second empty line in a row, without blanks around it.

    The indentation that all lines share goes; what is left of it, also of the first line, stays.
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
