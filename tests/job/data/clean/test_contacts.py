"""Contacts: mail addresses, links and phone numbers are kept, masked or rejected."""

import pytest
from cleaning import answer, reason


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("urls", "See http://a.org/b?c=d, or https://a.org/(x).", "See [url], or [url])."),
        ("urls", "WWW.example.org: HTTPS", "[url]: HTTPS"),
        ("urls", "見る https://ja.wikipedia.org/wiki/日本。次", "見る [url]。次"),
        ("emails", "Ask ada.l+x@mail.example.org.", "Ask [email]."),
        ("phone_numbers", "Call +41 44 668 18 00 or (650) 253-0000!", "Call [phone] or [phone]!"),
    ],
)
def test_contacts_are_kept_masked_or_rejected(kind: str, before: str, after: str) -> None:
    assert answer(before) == before
    assert answer(before, **{kind: "mask"}) == after
    assert "the answer holds a" in reason("q", before, **{kind: "reject"})


@pytest.mark.parametrize(
    "text",
    [
        "http:// and www. and a.b/c",
        "@ada wrote @property, 3 @ 4",
        "1914-1918, 1939-1945, 2026-11-24 12:30:15",
        "3.14159265358979, 299792458 m/s, ISBN 978-3-16-148410-0",
    ],
)
def test_texts_that_are_not_contacts_stay(text: str) -> None:
    assert answer(text, urls="mask", emails="mask", phone_numbers="mask") == text


def test_phone_numbers_without_a_country_are_those_of_the_region() -> None:
    assert answer("Tel. 044 668 18 00", phone_numbers="mask") == "Tel. 044 668 18 00"
    assert answer("Tel. 044 668 18 00", phone_numbers="mask", phone_region="CH") == "Tel. [phone]"
