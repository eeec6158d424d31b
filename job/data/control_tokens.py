"""Control tokens: texts that the tokenizer turns into a token of their own, such as <|endoftext|> or <|im_start|>.

It knows a tokenizer and its chat template. It does not know what becomes of a row that holds one.

No single place lists all control tokens. The special tokens lack those of Llama 3 and Phi, which are flagged as special
only among the added tokens, and some templates write added tokens that carry no flag. So all three are read.

The model may write added tokens without a flag itself: <think> and <tool_call> belong to answers. Such a token counts
only if the template writes it around the turns of a chat. Tokens around a thought never count, although some templates
write an empty thought before an answer.
"""

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_ANSWER = "kickoff-probe"
_QUESTION = [{"role": "user", "content": "kickoff"}]
_CHAT = [*_QUESTION, {"role": "assistant", "content": _ANSWER}]
_THOUGHT = re.compile(r"\W*(?:think|thinking|thought|thoughts|reasoning)\W*", re.IGNORECASE)


class ControlTokens:
    """The control tokens of a tokenizer.

    Attributes:
        ends: those that end an answer, the longest first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        rendered = _render(tokenizer, _CHAT)
        renderings = [
            rendered,
            _render(tokenizer, _CHAT * 2),
            _render(tokenizer, _QUESTION, add_generation_prompt=True),
        ]
        renderings.append(_render(tokenizer, [{"role": "system", "content": "kickoff"}, *_CHAT]))
        texts = {str(token) for token in tokenizer.all_special_tokens}
        for token in tokenizer.added_tokens_decoder.values():
            text = token.content
            by_template = any(text in chat for chat in renderings) and not text.strip().isalnum()
            if token.special or (by_template and not _THOUGHT.fullmatch(text)):
                texts.add(text)
        # the longest first, so that <|end|>x is not read as <|end|>; a token of blanks is ordinary text
        tokens = sorted(filter(str.strip, texts), key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, tokens))) if tokens else None
        self.ends = _end_tokens(tokenizer, rendered, self._pattern)

    def first_in(self, text: str) -> str | None:
        """Find the first control token in a text; None if there is none."""
        texts = self._pattern.search(text) if self._pattern is not None else None
        return texts[0] if texts else None

    def reason_against(self, column: str, text: str) -> str | None:
        """Say why a row with this text in this column cannot be used; None if the text holds no control token."""
        token = self.first_in(text)
        return f"the {column} holds {token}, which the tokenizer would read as a control token" if token else None

    def strip_end(self, answer: str) -> str:
        """Remove the control tokens that end an answer, and the blanks before them."""
        while (bare := answer.rstrip()).endswith(self.ends):
            end = next(end for end in self.ends if bare.endswith(end))
            answer = bare[: -len(end)].rstrip()
        return answer


def _render(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
    """The chat as the template writes it; empty if the template refuses it."""
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt))
    except (TemplateError, ValueError, TypeError):
        return ""


def _end_tokens(tokenizer: PreTrainedTokenizerBase, rendered: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    """The end-of-sequence token, and the token that the template writes after an answer."""
    after = (
        pattern.match(rendered.rpartition(_ANSWER)[2].lstrip()) if pattern is not None and _ANSWER in rendered else None
    )
    ends = [tokenizer.eos_token, after[0] if after else None]
    return tuple(sorted({end for end in ends if isinstance(end, str) and end.strip()}, key=len, reverse=True))
