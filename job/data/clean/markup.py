"""Markup: turns HTML into the text that a browser would show.

Paragraphs, headings, list items, table rows and <br> become lines, tabs separate the cells of a row, and <pre> and
<code> keep their lines and indentation. Text outside all block elements keeps its lines too.

"<" is an ordinary character in texts about code and mathematics: `a < b`, `List<String>`, `#include <map>` and
`cp <source> <target>` are not HTML. So only valid tags of HTML elements count, and an element that needs an end tag
counts only if it has one. It does not know CSS or scripts, and reads each text alone.

The standard library's html.parser takes whatever looks like a tag for HTML (`a<b and c>d`), and its versions differ in
what they drop at the end of a text; so this module finds the tags itself.
"""

import html
import re
from dataclasses import dataclass, field
from html.entities import html5

from job.data.word_list import word_set

_PARAGRAPHS = word_set("p h1 h2 h3 h4 h5 h6 ul ol dl table pre blockquote")
_LINES = word_set(
    "address article aside body caption center dd details dialog dir div dt fieldset figcaption figure footer form "
    "head header hgroup hr html legend li main menu nav option section summary tbody tfoot thead title tr"
)
_CELLS = frozenset({"td", "th"})
_VERBATIM = word_set("pre code samp kbd textarea listing xmp")
_INVISIBLE = frozenset({"script", "style", "template"})
_VOID = frozenset({"br", "hr", "wbr"})
# void elements too, but without attributes they are words in angle brackets: `cp <source> <target>`
_VOID_WITH_ATTRIBUTES = word_set("img input area base col embed link meta param source track")
_OPTIONAL_END = word_set("p li dt dd td th tr thead tbody tfoot option body html head")
_INLINE = word_set(
    "a abbr acronym audio b bdi bdo big button canvas cite colgroup data datalist del dfn em font i iframe ins label "
    "map mark math meter noscript object optgroup output picture progress q rp rt ruby s select slot small span strike "
    "strong sub sup svg time tt u var video"
)
# elements without an end tag end with the element around them
_ENDS_WITH_PARENT = {
    **dict.fromkeys(("ul", "ol", "dl"), ("li", "dt", "dd", "p")),
    "table": ("td", "th", "tr", "thead", "tbody", "tfoot", "p"),
    **dict.fromkeys(("div", "body", "html", "section", "article", "blockquote"), ("p",)),
}
_ELEMENTS = _PARAGRAPHS | _LINES | _CELLS | _VERBATIM | _INVISIBLE | _VOID | _VOID_WITH_ATTRIBUTES | _INLINE
_BOOLEAN_ATTRIBUTE = (
    r"(?:allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|download|"
)
_BOOLEAN_ATTRIBUTE += (
    r"hidden|ismap|loop|multiple|muted|nohref|noshade|novalidate|nowrap|open|readonly|required|reversed|selected)"
)
_ATTRIBUTE = rf"\s+(?:[a-zA-Z_@:][\w:.@-]*\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+)|{_BOOLEAN_ATTRIBUTE}(?=[\s/>]))"
_MARKUP = re.compile(
    rf"<!--|<!doctype[^<>]*>|<\?xml[^<>]*\?>|<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:{_ATTRIBUTE})*)\s*/?>",
    re.DOTALL | re.IGNORECASE,
)
_CLOSING = re.compile(r"</([a-zA-Z][a-zA-Z0-9]*)\s*>")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_EXPONENT = re.compile(r"\s*[-+\u2212\u2013]?(?:\d[\d.,/]*|[nmkxyz])\s*</sup", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")
_EMPTY_LINES = re.compile(r"\A\s*\n")
_ONE_BLANK = re.compile(r"\A (?=\S)")


@dataclass(frozen=True)
class _Tag:
    """A tag in a text; without a name it is a comment or a declaration."""

    start: int
    end: int
    name: str = ""
    closes: bool = False


def plain_text(text: str) -> str:
    """Remove the markup from a text, and decode entities such as &amp;."""
    if "<" not in text and "&" not in text:
        return text
    tags = _tags(text)
    return _Page(text, tags).text() if tags else _decode_entities(text)


def example(text: str) -> str | None:
    """Find the first tag or entity in a text, to show it; None if there is none. An end tag alone does not count."""
    opening = [tag for tag in _tags(text) if tag.name and not tag.closes] if "<" in text else []
    if opening:
        return text[opening[0].start : opening[0].end]
    entity = next((match[0] for match in _ENTITY.finditer(text) if _decode_entities(match[0]) != match[0]), None)
    return entity if "&" in text else None


def _tags(text: str) -> list[_Tag]:
    """The tags and comments of a text."""
    last_end = {tags[1].lower(): tags.start() for tags in _CLOSING.finditer(text)}
    last_comment = text.rfind("-->")  # searching for the end of each of many open comments would take minutes
    tags: list[_Tag] = []
    position = 0
    while match := _MARKUP.search(text, position):
        position = match.end()
        name = (match[2] or "").lower()
        if match[0] == "<!--":
            if position <= last_comment:
                position = text.index("-->", position) + 3
                tags.append(_Tag(match.start(), position))
        elif not name:
            tags.append(_Tag(match.start(), match.end()))
        elif name in _ELEMENTS and (match[1] or _is_element(match, name, last_end.get(name, -1))):
            tags.append(_Tag(match.start(), match.end(), name, bool(match[1])))
    return tags


def _is_element(match: re.Match[str], name: str, last_end: int) -> bool:
    if name in _VOID or last_end > match.start():
        return True
    if name in _VOID_WITH_ATTRIBUTES:
        return bool(match[3])
    before = match.string[match.start() - 1 : match.start()]
    generic = match[2].isupper() and (before.isalnum() or before == "_")  # Stack<P>
    return name in _OPTIONAL_END and not generic


@dataclass
class _Page:
    """Builds the plain text of a page, tag by tag."""

    source: str
    tags: list[_Tag]
    out: list[str] = field(default_factory=list)
    breaks: int = 0
    """Newlines to write before the next text."""
    open: dict[str, int] = field(default_factory=dict)
    """Number of open elements by name; only elements with an end tag count."""
    rows: list[int] = field(default_factory=lambda: [0])
    """For each open table, the innermost last, the cells so far in its row; 0 outside a row."""
    blank: bool = False
    """Whether to write a blank before the next text: in a cell, since a row stays on one line."""
    lists: int = 0

    def text(self) -> str:
        closed = {tag.name for tag in self.tags if tag.closes}
        position = 0
        for tag in self.tags:
            self._write(self.source[position : tag.start])
            position = tag.end
            if not tag.name and not self._is_in(_VERBATIM) and self.source[tag.start - 1 : tag.start] == " ":
                position += self.source.startswith(" ", position)  # a comment between blanks leaves one
            if tag.name in _INVISIBLE or (tag.name and not self._is_in(_INVISIBLE)):
                self._count(tag, closed)
                self._divide(tag)
        self._write(self.source[position:])
        return "".join(self.out)

    def _is_in(self, names: frozenset[str]) -> bool:
        return any(self.open.get(name, 0) > 0 for name in names)

    def _count(self, tag: _Tag, closed: set[str]) -> None:
        if tag.name in closed:
            before = 0 if tag.name == "p" else self.open.get(tag.name, 0)  # paragraphs do not nest
            self.open[tag.name] = max(0, before - 1) if tag.closes else before + 1
        if tag.closes:
            self.open |= dict.fromkeys(_ENDS_WITH_PARENT.get(tag.name, ()), 0)

    def _divide(self, tag: _Tag) -> None:
        if tag.name == "table":
            self.rows = self.rows[:-1] or [0] if tag.closes else [*self.rows, 0]
        elif tag.name == "tr":
            self.rows[-1] = 0
        if tag.name in _CELLS:
            self._cell(tag)
        elif tag.name == "br" or tag.name in _PARAGRAPHS | _LINES:
            if self.rows[-1]:
                self.blank = True
            else:
                self.breaks = min(2, self.breaks + 1) if tag.name == "br" else max(self.breaks, self._lines(tag))
        elif tag.name == "sup" and not tag.closes and _EXPONENT.match(self.source, tag.end):
            self.out.append("^")  # 10 to the power of 6 is not 106

    def _lines(self, tag: _Tag) -> int:
        """2 where an empty line divides; a list in a list has none around it."""
        inner = False
        if tag.name in ("ul", "ol"):
            self.lists = max(0, self.lists - 1) if tag.closes else self.lists + 1
            inner = self.lists > (0 if tag.closes else 1)
        return 2 if tag.name in _PARAGRAPHS and not inner else 1

    def _cell(self, tag: _Tag) -> None:
        if not tag.closes:
            if self.rows[-1]:
                self._end_line()
                self.out.append("\t")
            self.rows[-1] += 1
        self.blank = False

    def _end_line(self) -> None:
        """Drop the blanks that the text ends with."""
        while self.out and not self.out[-1].strip(" \n"):
            self.out.pop()
        if self.out:
            self.out[-1] = self.out[-1].rstrip(" \n")

    def _write(self, text: str) -> None:
        if not text or self._is_in(_INVISIBLE):
            return
        verbatim = self._is_in(_VERBATIM)
        if not verbatim and (self.breaks or self._is_in(_PARAGRAPHS | _LINES | _CELLS)):
            text = self._collapse_blanks(text)
        if not text or (self.breaks and not text.strip()):
            return
        if self.breaks:
            self._end_line()
            if self.out:
                self.out.append("\n" * self.breaks)
            text = text.removeprefix("\n") if verbatim else text
        elif self.blank and text.strip() and self.out and self.out[-1][-1:] not in " \t":
            self.out.append(" ")
        self.breaks, self.blank = 0, self.blank and not text.strip()
        self.out.append(_decode_entities(text))

    def _collapse_blanks(self, text: str) -> str:
        """Collapse blanks and line breaks into one blank, and into none at the start of a line, as a browser does.

        Outside all block elements, lines and indentation stay.
        """
        if not self._is_in(_PARAGRAPHS | _LINES | _CELLS):
            return _ONE_BLANK.sub("", _EMPTY_LINES.sub("", text))
        collapsed = _BLANKS.sub(" ", text)
        at_start = self.breaks or not self.out or self.out[-1][-1:] in " \n\t"
        return collapsed.lstrip() if at_start else collapsed


def _decode_entities(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    """The character of an entity; an unknown name stays as it is."""
    name = entity[0][1:]
    character = html.unescape(entity[0]) if name.startswith("#") else html5.get(name, entity[0])
    return " " if character == "\xa0" else character
