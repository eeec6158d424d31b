"""Page: the page for a person at `GET /`, and the headers it has to go out with.

It reads `page.html` once and knows that the file holds one style and one script: their hashes in the
Content-Security-Policy let the browser run these two and nothing else. It does not know what the page asks the
server, nor who serves it.
"""

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def html(guarded: bool) -> str:
    """The page; of a `guarded` server its curl command sends the key that is in the environment.

    The browser itself has asked for the key when it was sent here, and sends it with what the page asks.
    """
    return HTML.replace("<html ", "<html data-key ", 1) if guarded else HTML


def _hash_of(tag: str) -> str:
    """The source expression that allows the page's only element of this kind."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
    if len(contents) != 1:
        raise ValueError(f"page.html has {len(contents)} <{tag}> elements; expected one, without attributes")
    digest = hashlib.sha256(contents[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash_of('style')}; script-src {_hash_of('script')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
