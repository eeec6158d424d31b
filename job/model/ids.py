"""Ids: checks that the model has an embedding for every token id that a text can become.

A tokenizer may list tokens that its model has no embedding for, such as Gemma 3's `<image_soft_token>` in the text-only
models. That is harmless as long as no text holds them. The module knows the tokenizer and the number of embeddings. It
does not know rows of data.
"""

import logging

import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from job.errors import ConfigError
from job.run.messages import join_names

log = logging.getLogger(__name__)


def require_ids(base: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure that ordinary texts become ids that the model has, and that other texts are recognized.

    An added token without an embedding that looks like a control token is flagged as special: rows that spell it are
    rejected, and a server reads it as plain text.

    Args:
        base: Name of the base, for errors.
        model: The loaded base.
        tokenizer: Its tokenizer, in which tokens may be flagged as special.

    Raises:
        ConfigError: The tokenizer has no vocabulary, or ordinary text, BOS, EOS or padding has no embedding.
    """
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    if not set(vocabulary.values()) - set(added):
        raise ConfigError(
            f"model.base: {base} has no tokenizer: found {len(vocabulary)} special tokens and no vocabulary; expected "
            "tokenizer.json beside the weights"
        )
    rows = count_embeddings(model)
    padding = tokenizer.pad_token_id
    if padding is not None and padding >= rows:
        raise ConfigError(
            f"model.base: {base}: the padding token {tokenizer.pad_token!r} has the id {padding}, outside the model's "
            f"{rows} embeddings; {_resize(rows)}"
        )
    needed = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    outside = sorted((number, token) for token, number in vocabulary.items() if number >= rows)
    missing = [(id_, token) for id_, token in outside if id_ in needed or id_ not in added or _is_text(added[id_])]
    _refuse(base, rows, missing)
    stops = model.generation_config.eos_token_id if model.generation_config else None
    for stop in stops if isinstance(stops, list) else [] if stops is None else [stops]:
        if not 0 <= stop < rows:
            raise ConfigError(
                f"model.base: {base}: the end-of-sequence id {stop} in generation_config.json is outside the model's "
                f"{rows} embeddings; correct eos_token_id there"
            )
    if outside:
        _flag_special(base, rows, tokenizer, [added[number] for number, _ in outside])


def require_known(base: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    """Raise ConfigError if one of these texts, which the chat template wrote, has an id without an embedding."""
    rows = count_embeddings(model)
    numbers = {number for text in texts for number in tokenizer(text, add_special_tokens=False)["input_ids"]}
    tokens = [(number, str(tokenizer.convert_ids_to_tokens(number))) for number in sorted(numbers) if number >= rows]
    _refuse(base, rows, tokens)


def count_embeddings(model: PreTrainedModel) -> int:
    """Return the number of tokens that the model has an embedding and a logit for."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = [weight for layer in layers if isinstance(weight := getattr(layer, "weight", None), torch.Tensor)]
    return min(map(len, tables), default=int(model.config.get_text_config().vocab_size))


def _is_text(token: AddedToken) -> bool:
    """Return whether ordinary text may hold the token: blanks, or a word added to the vocabulary."""
    return not token.content.strip() or (not token.special and token.content.strip().isalnum())


def _flag_special(base: str, rows: int, tokenizer: PreTrainedTokenizerBase, tokens: list[AddedToken]) -> None:
    for token in tokens:
        options = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word")}
        tokenizer.add_tokens([AddedToken(token.content, special=True, normalized=False, **options)])
    names = join_names([token.content for token in tokens])
    log.info(
        f"base: the tokenizer of {base} has tokens that the model's {rows} embeddings lack, and that texts do not "
        f"contain: {names}; rows that contain them are rejected"
    )


def _refuse(base: str, rows: int, tokens: list[tuple[int, str]]) -> None:
    if tokens:
        shown = join_names([f"{token!r} ({number})" for number, token in tokens])
        raise ConfigError(
            f"model.base: {base}: the tokenizer has ids that the model's {rows} embeddings lack: {shown}; "
            f"{_resize(rows)}"
        )


def _resize(rows: int) -> str:
    return (
        "add rows with model.resize_token_embeddings(len(tokenizer)) and save the model again, or use the tokenizer "
        f"that belongs to the {rows} embeddings"
    )
