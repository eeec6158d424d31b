"""Credentials: strings that look like an API key, a token or a private key.

It knows the forms that their issuers publish, each with a prefix or a structure of its own. It does not guess by
entropy or by names such as `password =`, which reject ordinary text about programming; a password is not found.
"""

import re

from job.data.layout import visible

# each with the page of the issuer that gives the form
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
_LONG = re.compile(r"[!-~]{20}")
"""All of them hold twenty characters without a blank, which few texts do."""


def secret_in(text: str) -> str | None:
    """The kind of the first secret in the text."""
    found = _SECRET.search(text) if _LONG.search(text) else None
    return list(_FORMS)[int(str(found.lastgroup)[1:])] if found else None


def without_secrets(text: str) -> str:
    return _SECRET.sub("[secret]", text)


def masked(value: object) -> object:
    """A value of a row, however deep it is nested, with every secret blotted out, also one with unseen characters."""
    if isinstance(value, str):
        return (
            without_secrets(value)
            if secret_in(value) or not secret_in(visible(value))
            else without_secrets(visible(value))
        )
    if isinstance(value, dict):
        return {masked(key): masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value
