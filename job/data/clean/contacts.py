"""Contacts: finds web addresses, e-mail addresses and phone numbers in a text, and masks them.

It knows what they look like. It does not know what becomes of them: `clean` masks them, `rules` rejects their rows.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from job.config.schema import CleanSection

# the characters of RFC 3986, and letters of any script; the punctuation that ends a sentence does not belong to it
_URL = re.compile(
    r"(?:(?:https?|ftp)://|(?<![\w.@])www\.)[\w\-.~:/?#\[\]@!$&'()*+,;=%]*[\w/#&=%+-]",
    re.IGNORECASE,
)
# possessive quantifiers and the look-behind keep the search linear in a long text without blanks
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@(?:[\w-]++\.)+[^\W\d_]{2,}")
_DIGIT = re.compile(r"\d")
_MIN_PHONE_DIGITS = 7

Spans = list[tuple[int, int]]
"""Start and end of each match, in characters."""
Find = Callable[[str], Spans]


def finders(section: CleanSection, action: Literal["mask", "reject"]) -> Iterator[tuple[str, str, Find]]:
    """List the kinds of contacts that the config masks or rejects.

    The masks are in lower case and square brackets, so that no other step of clean changes them.

    Args:
        section: the config's section clean.
        action: the setting to look for.

    Yields:
        The kind's name for a reason, its mask, and the function that finds it.
    """
    for setting, name, mask, find in (
        (section.urls, "a web address", "[url]", find_urls),
        (section.emails, "an e-mail address", "[email]", find_emails),
        (section.phone_numbers, "a phone number", "[phone]", partial(find_phone_numbers, region=section.phone_region)),
    ):
        if setting == action:
            yield name, mask, find


def mask_all(text: str, mask: str, find: Find) -> str:
    """Replace everything that `find` finds in a text by `mask`."""
    for start, end in reversed(find(text)):
        text = text[:start] + mask + text[end:]
    return text


def find_urls(text: str) -> Spans:
    """Find web addresses: those with http, https or ftp, and those that begin with www."""
    return [match.span() for match in _URL.finditer(text)] if "://" in text or "www." in text.lower() else []


def find_emails(text: str) -> Spans:
    """Find e-mail addresses."""
    return [match.span() for match in _EMAIL.finditer(text)] if "@" in text else []


def find_phone_numbers(text: str, region: str) -> Spans:
    """Find valid phone numbers, by Google's libphonenumber.

    Args:
        text: to search.
        region: country of numbers without a country code, in two capitals.
    """
    if sum(1 for _ in _DIGIT.finditer(text)) < _MIN_PHONE_DIGITS:
        return []
    from phonenumbers import PhoneNumberMatcher

    return [(match.start, match.end) for match in PhoneNumberMatcher(text, region)]
