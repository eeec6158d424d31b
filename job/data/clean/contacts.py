"""Contacts: where a text holds a web address, an e-mail address or a phone number.

It knows how they look. It does not know what becomes of them: clean masks them, rules rejects their rows.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from job.config.schema import CleanSection

# RFC 3986's characters, and letters of any script; what ends a sentence does not end an address
_URL = re.compile(
    r"(?:(?:https?|ftp)://|(?<![\w.@])www\.)[\w\-.~:/?#\[\]@!$&'()*+,;=%]*[\w/#&=%+-]",
    re.IGNORECASE,
)
# the possessive quantifiers and the look-behind keep the search linear in a long text without blanks
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@(?:[\w-]++\.)+[^\W\d_]{2,}")
_DIGIT = re.compile(r"\d")
_SHORTEST_NUMBER = 7

Spans = list[tuple[int, int]]
Find = Callable[[str], Spans]


def finders(section: CleanSection, action: Literal["mask", "reject"]) -> Iterator[tuple[str, str, Find]]:
    """What the config wants masked or rejected: its name, the mask in its place, and the function that finds it.

    The masks are lower-case and in square brackets, so that no other step of clean changes them.
    """
    for chosen, name, mask, find in (
        (section.urls, "a web address", "[url]", urls),
        (section.emails, "an e-mail address", "[email]", emails),
        (section.phone_numbers, "a phone number", "[phone]", partial(phone_numbers, region=section.phone_region)),
    ):
        if chosen == action:
            yield name, mask, find


def mask_all(text: str, mask: str, find: Find) -> str:
    """The text with `mask` in place of all that is found."""
    for start, end in reversed(find(text)):
        text = text[:start] + mask + text[end:]
    return text


def urls(text: str) -> Spans:
    return [found.span() for found in _URL.finditer(text)] if "://" in text or "www." in text.lower() else []


def emails(text: str) -> Spans:
    return [found.span() for found in _EMAIL.finditer(text)] if "@" in text else []


def phone_numbers(text: str, region: str) -> Spans:
    """Numbers that exist, by Google's libphonenumber: international ones, and those of the region."""
    if sum(1 for _ in _DIGIT.finditer(text)) < _SHORTEST_NUMBER:
        return []
    from phonenumbers import PhoneNumberMatcher

    return [(found.start, found.end) for found in PhoneNumberMatcher(text, region)]
