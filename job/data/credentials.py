"""Credentials: secrets in a text, which are strings that look like an API key, a token or a private key.

It knows the formats that their issuers publish, each with its own prefix or structure. It does not guess by entropy or
by names such as `password =`, since both reject ordinary text about programming; so it does not find passwords.
"""

import re

from job.data.layout import remove_invisible

# each with the issuer's page that documents the format
_FORMS = {
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html; the manuals' own example is none
    "AWS access key": r"(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z2-7]{16}(?![A-Z0-9])",
    # github.blog/engineering/behind-githubs-new-authentication-token-formats
    "GitHub token": r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    # docs.gitlab.com/security/tokens
    "GitLab token": r"gl(?:pat|dt|rt|ptt|cbt)-[\w-]{20,}",
    # huggingface.co/docs/hub/security-tokens
    "Hugging Face token": r"hf_[A-Za-z]{34}(?![A-Za-z])",
    # platform.openai.com and platform.claude.com, as their consoles show them
    "OpenAI key": r"sk-[\w-]*T3BlbkFJ[\w-]{20,}",
    "Anthropic key": r"sk-ant-[a-z]+\d\d-[\w-]{40,}",
    # docs.cloud.google.com/docs/authentication/api-keys
    "Google API key": r"AIza[\w-]{35}(?![\w-])",
    # docs.slack.dev/authentication/tokens
    "Slack token": r"xox[abeoprs]-(?:\d+-)+[A-Za-z0-9]{10,}",
    # docs.stripe.com/keys; sk_test_ keys stand in its manuals
    "Stripe key": r"[rs]k_live_[A-Za-z0-9]{24,}",
    # docs.npmjs.com/about-access-tokens, docs.pypi.org/api/secrets
    "npm token": r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])",
    "PyPI token": r"pypi-AgEIcHlwaS5vcmc[\w-]{50,}",
    # www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys, www.twilio.com/docs/iam/api-keys
    "SendGrid key": r"SG\.[\w-]{22}\.[\w-]{43}",
    "Twilio key": r"SK[0-9a-f]{32}(?![0-9a-z])",
    # core.telegram.org/bots/api
    "Telegram bot token": r"\d{8,10}:AA[\w-]{33}(?![\w-])",
    # RFC 7519: two parts of JSON, which begins with {", and a signature
    "JSON Web Token": r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
    # RFC 7468; a header alone is text about keys
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n)[^-]*[A-Za-z0-9+/=]{32}[^-]*",
}
_SECRET = re.compile(
    "|".join(rf"(?P<f{number}>(?<![A-Za-z0-9_])(?:{form}))" for number, form in enumerate(_FORMS.values())), re.ASCII
)
_UNBROKEN = re.compile(r"[!-~]{20}")
"""Every secret holds twenty characters without a blank, and few texts do: a cheap test before the long pattern."""


def find_secret(text: str) -> str | None:
    """Find the first secret in a text.

    Returns:
        Its kind, such as "GitHub token"; None if there is no secret.
    """
    match = _SECRET.search(text) if _UNBROKEN.search(text) else None
    return list(_FORMS)[int(str(match.lastgroup)[1:])] if match else None


def redact(text: str) -> str:
    """Replace every secret in a text with [secret]."""
    return _SECRET.sub("[secret]", text)


def redact_value(value: object) -> object:
    """Replace every secret in a value of a row, at any depth, also one that invisible characters break up.

    Args:
        value: as JSON has it; keys and items of objects and lists are redacted too.
    """
    if isinstance(value, str):
        return (
            redact(value)
            if find_secret(value) or not find_secret(remove_invisible(value))
            else redact(remove_invisible(value))
        )
    if isinstance(value, dict):
        return {redact_value(key): redact_value(item) for key, item in value.items()}
    return [redact_value(item) for item in value] if isinstance(value, list) else value
