"""The page for people at `GET /`, with its headers.

It reads `page.html` once. The file holds one style and one script; their hashes in the Content-Security-Policy allow
the browser these two and nothing else. It does not know what the page asks the server.
"""

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def html(guarded: bool, retriever: bool = False) -> str:
    """Return the page.

    Args:
        guarded: the server needs a key. The page's curl command then sends the one in the environment; the browser has
            asked for the key before it loads the page, and sends it with the page's requests.
        retriever: the server finds published answers, and does not stream them.
    """
    facts = "data-key " * guarded + "data-retriever " * retriever
    return HTML.replace("<html ", f"<html {facts}", 1)


def _hash_of(tag: str) -> str:
    """The source expression of the policy for the page's only element `tag`."""
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
