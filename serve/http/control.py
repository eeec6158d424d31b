"""Tokenizes a prompt so that only the template can write control tokens.

Control tokens are the special tokens, and those that a template writes around the turns of a chat although they are not
marked special (`[INST]`, `<start_of_turn>` in some tokenizers). Any other added token, such as two line ends, is plain
text; so are the tokens around a thought (`<think>`), since an assistant's message contains them.

It knows the tokenizers library. It does not know templates.
"""

import json
import re
import secrets
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from serve.http import client_text

THOUGHT = re.compile(r"\W*(?:think|thinking|thought|thoughts|reasoning)\W*", re.IGNORECASE)
BORDER = secrets.token_hex()
"""Replaces the template's control tokens in a text whose other control tokens are plain text. Nobody can guess it."""
PIECES = 1024
"""Pieces of template text whose control tokens are cached."""
Span = tuple[int, int, int]
"""A token's id, start and end in a text."""


class Forged(ValueError):
    """The prompt would contain a control token that the template has not written."""


class Control:
    """The control tokens of a tokenizer. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, written: list[str], taken: frozenset[str]) -> None:
        """Find the control tokens.

        Args:
            tokenizer: the model's.
            written: prompts that the template makes of some chats.
            taken: characters that are no stand-ins.
        """
        added = tokenizer.get_added_tokens_decoder()
        content = json.loads(tokenizer.to_str())
        self._tokenizer = tokenizer
        self._tokens = {id: token for id, token in added.items() if _is_control(token, written)}
        self._runs = client_text.client_pattern(taken)
        self._unknown = _unknown(content["model"], tokenizer)
        self._finder = _finder(content)
        ids = {token.content: id for id, token in self._tokens.items()}
        tokens = self._finder.get_added_tokens_decoder().items()
        self._ids = {id: ids[token.content] for id, token in tokens if token.content in ids}
        self._in_piece = lru_cache(PIECES)(self._find_in_piece)  # a template repeats the same few
        self._plain = _plain(content, ids)
        self._border = self._plain.token_to_id(BORDER)

    def ids(self, text: str, shown: str) -> list[int]:
        """Tokenize a prompt; only what the template wrote becomes a control token.

        Args:
            text: the prompt.
            shown: the prompt with stand-ins in place of the client's text.

        Raises:
            Forged: the tokenizer cannot do that.
        """
        encoding = self._encode(text)
        written = self._template_tokens(shown)
        spans = self._find_added(text, encoding)
        if len(spans) == len(written) and all(
            id == own and start <= begin and end <= stop
            for (id, start, stop), (own, begin, end) in zip(spans, written, strict=True)
        ):
            return list(encoding.ids)
        return self._tokenize_around(text, written)

    def sequence(self, text: str) -> list[int]:
        """The ids of the control tokens in a text, whoever wrote them."""
        return [id for id, _, _ in self._find_added(text, self._encode(text))]

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text; control tokens count, whoever wrote them."""
        return list(self._encode(text).ids)

    def _encode(self, text: str) -> Encoding:
        return _encoding(self._tokenizer, text)

    def _find_added(self, text: str, encoding: Encoding) -> list[Span]:
        # not `encoding.offsets`: for a long text the list takes half a second, in which no other thread runs
        span_of = encoding.token_to_chars  # never None for a token of a text
        spans = [(id, *span_of(at)) for at, id in enumerate(encoding.ids) if id in self._tokens]  # type: ignore[misc]
        return [one for one in spans if one[0] != self._unknown or self._is_literal(text, *one)]

    def _is_literal(self, text: str, id: int, start: int, end: int) -> bool:
        return text[start:end].strip() == self._tokens[id].content

    def _template_tokens(self, shown: str) -> list[Span]:
        """Find the control tokens that the template wrote, in each piece between two texts of the client."""
        written, at = [], 0
        for piece in self._runs.split(shown):
            at = shown.index(piece, at)
            written += [(id, at + start, at + end) for id, start, end in self._in_piece(piece)]
            at += len(piece)
        return written

    def _find_in_piece(self, piece: str) -> list[Span]:
        encoding = _encoding(self._finder, piece)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [(self._ids[id], start, end) for id, (start, end) in pairs if id in self._ids]

    def _tokenize_around(self, text: str, written: list[Span]) -> list[int]:
        """Tokenize the text with these control tokens only; in one call, since a token may depend on its neighbours."""
        pieces, at = [], 0
        for id, start, end in written:
            start, end = _with_blanks(text, self._tokens[id], start, end)
            pieces.append(text[at:start])
            at = max(at, end)
        ids: list[int] = _encoding(self._plain, BORDER.join([*pieces, text[at:]])).ids
        own = iter(id for id, _, _ in written)
        wrong = any(id in self._tokens and id != self._unknown for id in ids)
        ids = [next(own, id) if id == self._border else id for id in ids]
        if wrong or next(own, None) is not None or self._border in ids:
            raise Forged("the tokenizer cannot tell the text of a control token from the token; leave that text out")
        return ids


def _encoding(tokenizer: Tokenizer, text: str) -> Encoding:
    """Tokenize a batch of one, which lets other threads run; `encode` holds the interpreter lock."""
    (encoding,) = tokenizer.encode_batch([text], add_special_tokens=False)
    return encoding


def _is_control(token: AddedToken, written: list[str]) -> bool:
    text = token.content
    if not text.strip():
        return False
    by_template = any(text in chat for chat in written) and not text.strip().isalnum()
    return token.special or (by_template and not THOUGHT.fullmatch(text))


def _with_blanks(text: str, token: AddedToken, start: int, end: int) -> tuple[int, int]:
    """Extend a token's span by the blanks that it includes (lstrip, rstrip)."""
    if token.lstrip:
        start = len(text[:start].rstrip())
    if token.rstrip:
        end = len(text) - len(text[end:].lstrip())
    return start, end


def _finder(content: dict[str, Any]) -> Tokenizer:
    """Make a tokenizer that finds the added tokens and makes one token of all that is between two of them."""
    model = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
    nothing = dict.fromkeys(("pre_tokenizer", "post_processor", "decoder", "truncation", "padding"))
    return Tokenizer.from_str(json.dumps({**content, **nothing, "model": model}))


def _plain(content: dict[str, Any], control: Collection[str]) -> Tokenizer:
    """Make a copy of the tokenizer for which the text of a control token is plain text, and `BORDER` a token."""
    names = {token: secrets.token_hex() for token in control}
    model = content["model"]
    if model["type"] == "BPE":  # keep tokens that merges produce: their text is tokenized by merges anyway
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        for part in {part for left, right in pairs for part in (left, right, left + right)} & names.keys():
            del names[part]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        vocabulary = {names.get(piece, piece): id for piece, id in vocabulary.items()}
    else:
        vocabulary = [[names.get(piece, piece), score] for piece, score in vocabulary]
    model = {**model, "vocab": vocabulary}
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    added = [
        {**token, "special": token["content"] in control, "content": names.get(token["content"], token["content"])}
        for token in content["added_tokens"]
    ]
    nothing = dict.fromkeys(("post_processor", "truncation", "padding"))
    plain = Tokenizer.from_str(json.dumps({**content, **nothing, "model": model, "added_tokens": added}))
    plain.encode_special_tokens = True
    plain.add_tokens([AddedToken(BORDER, normalized=False)])
    return plain


def _unknown(model: dict[str, Any], tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token, which any text may become; None if there is none."""
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") is not None else None
