"""Credentials: what looks like a key and what does not, and that no copy of one is left."""

import json

import datasets
import pytest

from job.config.schema import CleanSection
from job.data.clean.clean import clean
from job.data.credentials import find_secret, redact

LONG = "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3hI5jK7lM9nO1pQ3"
# prefix and body apart, or this file would look like a leak to others' scanners
SECRETS = {
    "AWS access key": ("AKIA", "Q3EGZDX5TJN2MPLE"),
    "GitHub token": ("ghp_", LONG[:36]),
    "GitLab token": ("glpat-", LONG[:20]),
    "Hugging Face token": ("hf_", "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"),
    "OpenAI key": ("sk-proj-", LONG[:30] + "T3Blbk" + "FJ" + LONG[:30]),
    "Anthropic key": ("sk-ant-", "api03-" + LONG + "-AA"),
    "Google API key": ("AIza", LONG[:35]),
    "Slack token": ("xoxb-", "123456789012-1234567890123-" + LONG[:24]),
    "Stripe key": ("sk_live_", LONG[:24]),
    "npm token": ("npm_", LONG[:36]),
    "PyPI token": ("pypi-", "AgEIcHlwaS5vcmc" + LONG),
    "SendGrid key": ("SG.", LONG[:22] + "." + LONG[:43]),
    "Twilio key": ("SK", "0123456789abcdef0123456789abcdef"),
    "Telegram bot token": ("110201543:", "AA" + LONG[:33]),
    "JSON Web Token": ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LONG[:43]),
    "private key": ("-----BEGIN RSA PRIVATE", " KEY-----\nMIIE" + LONG + "\n" + LONG),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_and_fully_redacted(kind: str) -> None:
    prefix, body = SECRETS[kind]
    assert find_secret(f"It is {prefix}{body}, take it.") == kind
    assert find_secret(f"key={prefix}{body}") == kind
    left = redact(f"It is {prefix}{body}")
    assert left == "It is [secret]"
    assert find_secret(f"x{prefix}{body}") is None or kind in ("private key", "Telegram bot token")


@pytest.mark.parametrize(
    "text",
    [
        "What does AKIA at the start of an AWS key mean?",
        "AKIA" + "IOSFODNN7EXAMPLE is the manual's example.",
        "The UUID 123e4567-e89b-12d3-a456-426614174000",
        "commit 4212dc8f5e3b2a1c0d9e8f7a6b5c4d3e2f1a0b9c, md5 d41d8cd98f00b204e9800998ecf8427e",
        "A key begins with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----.",
        "A certificate: -----BEGIN CERTIFICATE-----\nMIIE" + LONG,
        "export HF_TOKEN=hf_...; OPENAI_API_KEY=sk-...",
        "password = os.environ['PASSWORD']; Authorization: Bearer YOUR_API_KEY",
        "postgresql://user:password@host:5432/database",
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
        "3.14159265358979323846264338327950288419716939937510",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
        "sk_test_" + LONG[:24],
    ],
)
def test_texts_that_are_not_secrets_are_kept(text: str) -> None:
    assert find_secret(text) is None


@pytest.mark.parametrize("switches", [{}, {"lowercase": True}, {"urls": "mask"}, {"stem": True}])
def test_a_row_with_a_secret_is_always_rejected_without_the_secret(
    switches: dict[str, str],
) -> None:
    key = "".join(SECRETS["AWS access key"])
    hidden = key[:6] + "\u200b" + key[6:]
    texts = [f"Mine is {key}.", f"https://a.org/?key={key}", f"It is {hidden}."]
    columns = {"question": ["q?"] * 3, "answer": texts, "where": ["1", "2", "3"]}
    text = datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    rows, rejected = clean(CleanSection(**switches), datasets.Dataset.from_dict(columns, features=text))
    assert [row.where for row in rejected] == ["1", "2", "3"]
    assert {row.reason for row in rejected} == {"the row contains what looks like a secret: AWS access key"}
    assert rejected[0].shown == ("q?", "Mine is [secret].")
    left = json.dumps([*map(vars, rejected), *rows])
    assert key not in left and hidden not in left
