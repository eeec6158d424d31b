"""Client text that a chat template can process like any string, but that stays distinguishable from the template's own.

Each character of the client is replaced by a stand-in, a private-use character that nothing else uses. Whatever the
template does with the text, each character of the result shows whether the template or the client wrote it. A
`ClientText` holds the stand-ins and answers the template's questions as the original text would: whether it contains
`</think>`, where to split it, whether it is blank.

It knows strings. It does not know templates or tokenizers.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE), *range(0xE000, 0xF900))
PRIVATE = re.compile("[\U000f0000-\U0010ffff\ue000-\uf8ff]")
QUERIES = ("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "isspace", "isdigit", "isalpha",
         "isalnum", "isupper", "islower", "istitle", "isdecimal", "isnumeric", "isidentifier", "isprintable",
         "isascii", "__contains__", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__")  # fmt: skip
"""Methods of str that return a number or a boolean."""
CASING = ("upper", "lower", "title", "capitalize", "casefold", "swapcase")
"""Methods of str that change the case."""


def client_pattern(taken: frozenset[str]) -> re.Pattern[str]:
    """Compile the pattern that finds the client's text in the output of a template, for `StandIns(taken)`."""
    own = "".join(character for character in sorted(taken) if PRIVATE.match(character))
    return re.compile(f"(?:{f'(?![{own}])' if own else ''}{PRIVATE.pattern})+")


class Exhausted(ValueError):
    """The text has more different characters than there are stand-ins."""


class StandIns:
    """The stand-ins of one conversation."""

    def __init__(self, taken: frozenset[str]) -> None:
        """Start without any stand-in.

        Args:
            taken: characters of the template and of the tokenizer's own tokens, which are no stand-ins.
        """
        self._free = iter(STAND_INS)
        self._taken = taken
        self._known: set[str] = set()
        self._of: dict[int, int] = {}
        self._true: dict[int, int] = {}

    def text(self, true: str) -> "ClientText":
        """Wrap a client's text for the template."""
        return ClientText(self.hide(true), true, self)

    def hide(self, true: str) -> str:
        """Replace each character by its stand-in.

        Raises:
            Exhausted: there are not enough stand-ins.
        """
        for character in set(true) - self._known:
            stand_in = next((one for one in self._free if chr(one) not in self._taken), None)
            if stand_in is None:
                raise Exhausted("the messages hold too many different characters; send fewer of them")
            self._known.add(character)
            self._of[ord(character)], self._true[stand_in] = stand_in, ord(character)
        return true.translate(self._of)

    def reveal(self, text: str) -> str:
        """Replace the stand-ins in `text` by the original characters."""
        if isinstance(text, ClientText):
            return text._true
        return text if text.isascii() else str.translate(text, self._true)

    def any_in(self, text: str) -> bool:
        """Whether any character of `text` is a stand-in."""
        return not text.isascii() and any(ord(character) in self._true for character in text)

    def concat(self, parts: Iterable[str]) -> "ClientText":
        """Join the parts, some of which may be a client's."""
        parts = list(parts)
        return ClientText("".join(parts), "".join(map(self.reveal, parts)), self)


class ClientText(str):
    """A string of stand-ins, and of the template's characters joined to them, that behaves like the original text."""

    _true: str
    _stand_ins: StandIns

    def __new__(cls, hidden: str, true: str, stand_ins: StandIns) -> "ClientText":
        text = super().__new__(cls, hidden)
        text._true, text._stand_ins = true, stand_ins
        return text

    def __str__(self) -> str:
        return self  # str() would give up the class

    def __hash__(self) -> int:
        return hash(self._true)

    def __getitem__(self, where: SupportsIndex | slice) -> "ClientText":
        return ClientText(super().__getitem__(where), self._true[where], self._stand_ins)

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def __add__(self, other: str) -> "ClientText":
        return self.concat([self, other]) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> "ClientText":
        return self.concat([other, self]) if isinstance(other, str) else NotImplemented

    def strip(self, chars: str | None = None, /) -> "ClientText":
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> "ClientText":
        return self[len(self) - len(self._true.lstrip(self._reveal(chars))) :]

    def rstrip(self, chars: str | None = None, /) -> "ClientText":
        return self[: len(self._true.rstrip(self._reveal(chars)))]

    def removeprefix(self, prefix: str, /) -> "ClientText":
        return self[len(self) - len(self._true.removeprefix(self._reveal(prefix))) :]

    def removesuffix(self, suffix: str, /) -> "ClientText":
        return self[: len(self._true.removesuffix(self._reveal(suffix)))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._slice_parts(self._true.split(self._reveal(sep), maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._slice_parts(self._true.rsplit(self._reveal(sep), maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines = self._slice_parts(self._true.splitlines(keepends=True), None)
        lengths = map(len, self._true.splitlines(keepends))
        return [line[:length] for line, length in zip(lines, lengths, strict=True)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        at = self._true.find(self._reveal(sep))
        return self._three_parts(at, len(sep)) if at >= 0 else (self, self[:0], self[:0])

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        at = self._true.rfind(self._reveal(sep))
        return self._three_parts(at, len(sep)) if at >= 0 else (self[:0], self[:0], self)

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> "ClientText":
        if not old:
            return self.concat([str.replace(self, old, new, count)])
        parts: list[str] = []
        for part in self.split(old, count):
            parts += [part, new]
        return self.concat(parts[:-1])

    def each(self, change: Callable[[str], str]) -> "ClientText":
        """Replace each character by one or more; those of the client stay the client's."""
        return self._replace_each(map(change, self._true))

    def change_case(self, change: Callable[[str], str]) -> "ClientText":
        """Apply a method that changes the case, whose result may depend on neighbouring letters."""
        true = change(self._true)
        return (
            self._replace_each(true) if len(true) == len(self) else self.each(change)
        )  # a sharp s becomes two letters

    def concat(self, parts: Iterable[str]) -> "ClientText":
        """Join the parts, as `StandIns.concat`."""
        return self._stand_ins.concat(parts)

    def _replace_each(self, changed: Iterable[str]) -> "ClientText":
        stand_ins = self._stand_ins
        return stand_ins.concat(
            stand_ins.hide(new) if stand_ins.any_in(old) else new
            for new, old in zip(changed, str.__iter__(self), strict=True)
        )

    def _reveal(self, asked: Any) -> Any:
        """Replace the stand-ins in an argument: a string, a tuple of strings, or None."""
        if isinstance(asked, tuple):
            return tuple(map(self._reveal, asked))
        return self._stand_ins.reveal(asked) if isinstance(asked, str) else asked

    def _slice_parts(self, parts: list[str], sep: str | None) -> list[str]:
        """Cut this text where the original is cut into `parts`, in order."""
        pieces: list[str] = []
        at = 0
        for part in parts:
            at = self._true.index(part, at)
            pieces.append(self[at : at + len(part)])
            at += len(part) + len(sep or "")
        return pieces

    def _three_parts(self, at: int, length: int) -> tuple[str, str, str]:
        return self[:at], self[at : at + length], self[at + length :]


def _query_method(name: str) -> Callable[..., Any]:
    ask = getattr(str, name)
    return lambda text, *asked: ask(text._true, *map(text._reveal, asked))


def _case_method(name: str) -> Callable[[ClientText], ClientText]:
    change = getattr(str, name)
    return lambda text: text.change_case(change)


for _name in QUERIES:
    setattr(ClientText, _name, _query_method(_name))
for _name in CASING:
    setattr(ClientText, _name, _case_method(_name))
