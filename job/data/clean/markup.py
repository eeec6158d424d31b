"""Markup: from HTML to the text that a browser would show.

Paragraphs, headings, list items, table rows and <br> become lines, the cells of a row are divided by tabs, and <pre>
and <code> keep their lines and their indentation. Text outside of all block elements keeps its lines as well.

"<" is an ordinary character in texts about code and mathematics: `a < b`, `List<String>`, `#include <map>` and
`cp <source> <target>` are no HTML. So only the elements of HTML count, written as they must be, and one that has to be
closed counts only if it is. It does not know CSS or scripts, and reads each text alone.

The standard library's html.parser reads as HTML whatever looks like a tag (`a<b and c>d`), and differs between
versions in what it drops at the end of a text; so the tags are found here.
"""

import html
import re
from dataclasses import dataclass, field
from html.entities import html5


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_PARAGRAPHS = _names("p h1 h2 h3 h4 h5 h6 ul ol dl table pre blockquote")
_LINES = _names(
    "address article aside body caption center dd details dialog dir div dt fieldset figcaption figure footer form "
    "head header hgroup hr html legend li main menu nav option section summary tbody tfoot thead title tr"
)
_CELLS = frozenset({"td", "th"})
_VERBATIM = _names("pre code samp kbd textarea listing xmp")
_DROPPED = frozenset({"script", "style", "template"})
_ALONE = frozenset({"br", "hr", "wbr"})
# never closed, and without attributes a word in angle brackets: `cp <source> <target>`
_NEVER_CLOSED = _names("img input area base col embed link meta param source track")
_CLOSED_OR_NOT = _names("p li dt dd td th tr thead tbody tfoot option body html head")
_INLINE = _names(
    "a abbr acronym audio b bdi bdo big button canvas cite colgroup data datalist del dfn em font i iframe ins label "
    "map mark math meter noscript object optgroup output picture progress q rp rt ruby s select slot small span strike "
    "strong sub sup svg time tt u var video"
)
# what need not be closed ends with what it stands in
_END_WITH = {
    **dict.fromkeys(("ul", "ol", "dl"), ("li", "dt", "dd", "p")),
    "table": ("td", "th", "tr", "thead", "tbody", "tfoot", "p"),
    **dict.fromkeys(("div", "body", "html", "section", "article", "blockquote"), ("p",)),
}
_KNOWN = _PARAGRAPHS | _LINES | _CELLS | _VERBATIM | _DROPPED | _ALONE | _NEVER_CLOSED | _INLINE
_VALUELESS = r"(?:allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|download|"
_VALUELESS += (
    r"hidden|ismap|loop|multiple|muted|nohref|noshade|novalidate|nowrap|open|readonly|required|reversed|selected)"
)
_ATTRIBUTE = rf"\s+(?:[a-zA-Z_@:][\w:.@-]*\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+)|{_VALUELESS}(?=[\s/>]))"
_MARKUP = re.compile(
    rf"<!--|<!doctype[^<>]*>|<\?xml[^<>]*\?>|<(/?)([a-zA-Z][a-zA-Z0-9]*)((?:{_ATTRIBUTE})*)\s*/?>",
    re.DOTALL | re.IGNORECASE,
)
_CLOSING = re.compile(r"</([a-zA-Z][a-zA-Z0-9]*)\s*>")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_POWER = re.compile(r"\s*[-+\u2212\u2013]?(?:\d[\d.,/]*|[nmkxyz])\s*</sup", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")
_EMPTY_LINES = re.compile(r"\A\s*\n")
_ONE_BLANK = re.compile(r"\A (?=\S)")


@dataclass(frozen=True)
class _Tag:
    """A tag of a text, or (with no name) a comment."""

    start: int
    end: int
    name: str = ""
    closes: bool = False


def plain(text: str) -> str:
    """The text without markup; entities such as &amp; are decoded."""
    if "<" not in text and "&" not in text:
        return text
    tags = _tags(text)
    return _Page(text, tags).text() if tags else _decoded(text)


def example(text: str) -> str | None:
    """The first piece of HTML in a text, to be shown; None if it holds none. An end tag alone is not enough."""
    opening = [tag for tag in _tags(text) if tag.name and not tag.closes] if "<" in text else []
    if opening:
        return text[opening[0].start : opening[0].end]
    entity = next((found[0] for found in _ENTITY.finditer(text) if _decoded(found[0]) != found[0]), None)
    return entity if "&" in text else None


def _tags(text: str) -> list[_Tag]:
    """What is markup in a text."""
    last_end = {found[1].lower(): found.start() for found in _CLOSING.finditer(text)}
    last_comment = text.rfind("-->")  # a search for each of many that are not closed would take minutes
    found: list[_Tag] = []
    place = 0
    while match := _MARKUP.search(text, place):
        place = match.end()
        name = (match[2] or "").lower()
        if match[0] == "<!--":
            if place <= last_comment:
                place = text.index("-->", place) + 3
                found.append(_Tag(match.start(), place))
        elif not name:
            found.append(_Tag(match.start(), match.end()))
        elif name in _KNOWN and (match[1] or _opens(match, name, last_end.get(name, -1))):
            found.append(_Tag(match.start(), match.end(), name, bool(match[1])))
    return found


def _opens(match: re.Match[str], name: str, last_end: int) -> bool:
    if name in _ALONE or last_end > match.start():
        return True
    if name in _NEVER_CLOSED:
        return bool(match[3])
    before = match.string[match.start() - 1 : match.start()]
    generic = match[2].isupper() and (before.isalnum() or before == "_")  # Stack<P>
    return name in _CLOSED_OR_NOT and not generic


@dataclass
class _Page:
    """Goes through a text tag by tag."""

    source: str
    tags: list[_Tag]
    out: list[str] = field(default_factory=list)
    breaks: int = 0
    """Newlines that are wanted before the next text."""
    open: dict[str, int] = field(default_factory=dict)
    """How many elements of each name are open; only those that are closed later on."""
    rows: list[int] = field(default_factory=lambda: [0])
    """Of each open table, the innermost last, the cells of its row that have begun; 0 outside of a row."""
    blank: bool = False
    """Whether a blank is wanted before the next text: in a cell, where a row shall stay one line."""
    lists: int = 0

    def text(self) -> str:
        closed = {tag.name for tag in self.tags if tag.closes}
        place = 0
        for tag in self.tags:
            self._write(self.source[place : tag.start])
            place = tag.end
            if not tag.name and not self._is_in(_VERBATIM) and self.source[tag.start - 1 : tag.start] == " ":
                place += self.source.startswith(" ", place)  # a comment between blanks leaves one
            if tag.name in _DROPPED or (tag.name and not self._is_in(_DROPPED)):
                self._count(tag, closed)
                self._divide(tag)
        self._write(self.source[place:])
        return "".join(self.out)

    def _is_in(self, names: frozenset[str]) -> bool:
        return any(self.open.get(name, 0) > 0 for name in names)

    def _count(self, tag: _Tag, closed: set[str]) -> None:
        if tag.name in closed:
            before = 0 if tag.name == "p" else self.open.get(tag.name, 0)  # paragraphs do not nest
            self.open[tag.name] = max(0, before - 1) if tag.closes else before + 1
        if tag.closes:
            self.open |= dict.fromkeys(_END_WITH.get(tag.name, ()), 0)

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
        elif tag.name == "sup" and not tag.closes and _POWER.match(self.source, tag.end):
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
        if not text or self._is_in(_DROPPED):
            return
        verbatim = self._is_in(_VERBATIM)
        if not verbatim and (self.breaks or self._is_in(_PARAGRAPHS | _LINES | _CELLS)):
            text = self._flowing(text)
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
        self.out.append(_decoded(text))

    def _flowing(self, text: str) -> str:
        """Text as a browser shows it: blanks and line breaks are one blank, and none at the start of a line.

        Outside of all blocks, lines and their indentation are the writer's and stay.
        """
        if not self._is_in(_PARAGRAPHS | _LINES | _CELLS):
            return _ONE_BLANK.sub("", _EMPTY_LINES.sub("", text))
        flowing = _BLANKS.sub(" ", text)
        at_start = self.breaks or not self.out or self.out[-1][-1:] in " \n\t"
        return flowing.lstrip() if at_start else flowing


def _decoded(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(found: re.Match[str]) -> str:
    """An entity's character; a name that HTML does not know stays as it is."""
    name = found[0][1:]
    character = html.unescape(found[0]) if name.startswith("#") else html5.get(name, found[0])
    return " " if character == "\xa0" else character
