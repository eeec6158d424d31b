"""Marks: the texts that a tokenizer takes for control tokens, such as <|endoftext|> or <|im_start|>.

It knows a tokenizer and its chat template. Which tokens are marks cannot be read from one place: the list of special
tokens lacks those of Llama 3 and Phi, which are only flagged as special where tokens were added, and some templates
write added tokens that are not flagged at all. So all three are asked. It does not know what becomes of a row.
"""

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_ANSWER = "kickoff-probe"
_CHAT = [{"role": "user", "content": "kickoff"}, {"role": "assistant", "content": _ANSWER}]


class Marks:
    """The marks of a tokenizer, and those of them that end an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        written = _rendered(tokenizer)
        template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
        found = {str(token) for token in tokenizer.all_special_tokens}
        for token in tokenizer.added_tokens_decoder.values():
            by_template = token.content in written or token.content in template
            if token.special or (by_template and not token.content.strip().isalnum()):
                found.add(token.content)
        # the longest first: of <|end|> and <|end|>x the text is the longer one; blanks are no marks, whatever they are
        known = sorted(filter(str.strip, found), key=lambda mark: (-len(mark), mark))
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None
        self.ends = _ends(tokenizer, written, self._pattern)

    def in_text(self, text: str) -> str | None:
        """The first mark in the text."""
        found = self._pattern.search(text) if self._pattern is not None else None
        return found[0] if found else None

    def without_end(self, answer: str) -> str:
        """The answer without the marks of its end behind it, and without the blanks before these."""
        while (bare := answer.rstrip()).endswith(self.ends):
            end = next(end for end in self.ends if bare.endswith(end))
            answer = bare[: -len(end)].rstrip()
        return answer


def _rendered(tokenizer: PreTrainedTokenizerBase) -> str:
    """A question and an answer as the template writes them; empty if it refuses this pair."""
    try:
        return str(tokenizer.apply_chat_template(_CHAT, tokenize=False))
    except (TemplateError, ValueError, TypeError):
        return ""


def _ends(tokenizer: PreTrainedTokenizerBase, written: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    """The end of a text, and what the template writes behind an answer."""
    after = (
        pattern.match(written.rpartition(_ANSWER)[2].lstrip()) if pattern is not None and _ANSWER in written else None
    )
    ends = [tokenizer.eos_token, after[0] if after else None]
    return tuple(sorted({end for end in ends if isinstance(end, str) and end.strip()}, key=len, reverse=True))
