"""Marks: the texts that a tokenizer takes for control tokens, such as <|endoftext|> or <|im_start|>.

It knows a tokenizer and its chat template. Which tokens are marks cannot be read from one place: the list of special
tokens lacks those of Llama 3 and Phi, which are only flagged as special where tokens were added, and some templates
write added tokens that are not flagged at all. So all three are asked.

Tokens that are not flagged are there to be written by the model as well: <think> and <tool_call> belong to answers.
They are marks only if the template writes them around the turns of a chat, and those of a thought never are, though
some templates write an empty thought before an answer. It does not know what becomes of a row.
"""

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_ANSWER = "kickoff-probe"
_ASKED = [{"role": "user", "content": "kickoff"}]
_CHAT = [*_ASKED, {"role": "assistant", "content": _ANSWER}]
_THOUGHT = re.compile(r"\W*(?:think|thinking|thought|thoughts|reasoning)\W*", re.IGNORECASE)


class Marks:
    """The marks of a tokenizer, and those of them that end an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        written = _rendered(tokenizer, _CHAT)
        around = [written, _rendered(tokenizer, _CHAT * 2), _rendered(tokenizer, _ASKED, add_generation_prompt=True)]
        around.append(_rendered(tokenizer, [{"role": "system", "content": "kickoff"}, *_CHAT]))
        found = {str(token) for token in tokenizer.all_special_tokens}
        for token in tokenizer.added_tokens_decoder.values():
            text = token.content
            by_template = any(text in chat for chat in around) and not text.strip().isalnum()
            if token.special or (by_template and not _THOUGHT.fullmatch(text)):
                found.add(text)
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


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], add_generation_prompt: bool = False
) -> str:
    """A chat as the template writes it; empty if it refuses this one."""
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt))
    except (TemplateError, ValueError, TypeError):
        return ""


def _ends(tokenizer: PreTrainedTokenizerBase, written: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    """The end of a text, and what the template writes behind an answer."""
    after = (
        pattern.match(written.rpartition(_ANSWER)[2].lstrip()) if pattern is not None and _ANSWER in written else None
    )
    ends = [tokenizer.eos_token, after[0] if after else None]
    return tuple(sorted({end for end in ends if isinstance(end, str) and end.strip()}, key=len, reverse=True))
