"""The key that clients must send: one that they cannot send is refused at the start, and any other opens."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from checkout import ROOT
from served import Served


def start(folder: Path, key: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serve", str(folder)], cwd=ROOT,
        env={**os.environb, b"KICKOFF_API_KEY": key}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"a-long-secret\n", "found a line end at its end"),
        (b"a-long-secret\r\n", "found a line end at its end"),
        (b"\na-long-secret", "found a line end at its beginning"),
        (b"a-long-secret ", "found a blank at its end"),
        (b"\ta-long-secret", "found a blank at its beginning"),
        ("a-long-secret\xa0".encode(), "found a blank at its end"),
        (b"          ", "found a blank at its end"),
        (b"short\n", "found a line end at its end"),
        (b"a-long\nsecret", "found a character that no header can contain, number 7 of 13"),
        (b"a-long\x7fsecret", "found a character that no header can contain, number 7 of 13"),
        ("a-long-sécret-€".encode(), "found a character that no header can contain, number 15 of 15"),
        ("\ufeffa-long-secret".encode(), "found a character that no header can contain, number 1 of 14"),
        (b"a-long-secret\xff", "found a character that no header can contain, number 14 of 14"),
        (b"short", "found 5 characters, expected at least 8"),
        (b"", "found 0 characters, expected at least 8"),
    ],
    ids=repr,
)
def test_a_key_that_no_client_can_send_is_refused_at_the_start(published: Path, key: bytes, says: str) -> None:
    ended = start(published, key)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: KICKOFF_API_KEY: {says}")
    assert "secret" not in line and "short" not in line, "nobody reads the key in a log"
    if "line end" in says:
        assert "printf %s" in line


def test_a_non_ascii_key_is_accepted_in_either_encoding(published: Path) -> None:
    key = "ein Schlüssel: a=b"
    with Served(published, KICKOFF_API_KEY=key) as server:
        for written in (key.encode(), key.encode("latin-1")):
            basic = b"Basic " + base64.b64encode(b"ada:" + written)
            for header in (
                {b"Authorization": b"Bearer " + written},
                {b"X-API-Key": written},
                {b"Authorization": basic},
            ):
                assert httpx2.get(f"{server.url}/v1/models", headers=header, timeout=60).status_code == 200
        for wrong in (key.encode("utf-16"), b"ein Schl", b"x", b"ein Schl?ssel: a=b"):
            headers = {b"Authorization": b"Bearer " + wrong.replace(b"\n", b"").replace(b"\0", b"")}
            assert httpx2.get(f"{server.url}/v1/models", headers=headers, timeout=60).status_code == 401
