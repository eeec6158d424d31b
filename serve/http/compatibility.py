"""Checks at the start that the tokenizer, its chat template and the model belong together.

A tokenizer of another model loads without an error. It is recognized by ids that the model does not know, and by
end-of-sequence tokens that only one side has. Two tokenizers of the same size and with the same end-of-sequence token
cannot be told apart.

It knows tokenizers and their files. Of the model it knows only how many ids it has.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.utils import logging as transformers_logging

from serve.http.pieces import special_ids
from serve.http.text import Text
from serve.messages import one_line

QUESTIONS = ("What is DNS?", "How high is Mount Everest?")
TEMPLATE_REMEDY = 'publish one that takes [{"role": "user", "content": "..."}]'
TOKENIZER_REMEDY = "publish the model and its tokenizer together, as transformers' save_pretrained writes them"


def load(folder: Path, ends: list[int]) -> Text:
    """Load the tokenizer in `folder` and check its template and its end-of-sequence token.

    Args:
        folder: the published model.
        ends: token ids, one of which ends each of the model's answers.

    Raises:
        ValueError: it does not fit the model; the text says why, in one line.
    """
    transformers_logging.set_verbosity_error()  # our own error is one line
    try:
        text = Text(folder)
    except TemplateError as error:
        raise ValueError(
            f"its chat template does not accept a question ({one_line(error)[:80]}); {TEMPLATE_REMEDY}"
        ) from error
    except Exception as error:  # damaged files raise errors of many classes
        if not (folder / "tokenizer.json").exists():  # files of sentencepiece and tiktoken need further libraries
            raise ValueError(f"its tokenizer cannot be loaded without a tokenizer.json; {TOKENIZER_REMEDY}") from error
        raise ValueError(f"its tokenizer cannot be loaded ({one_line(error)[:80]}); {TOKENIZER_REMEDY}") from error
    _check_template(text)
    _check_eos(text, folder, ends)
    return text


def check_documents(text: Text) -> None:
    """Check that the chat template of a grounded generator writes retrieved rows into the prompt.

    Raises:
        ValueError: it does not.
    """
    chat = [{"role": "user", "content": QUESTIONS[0]}]
    try:
        one, other = (text.prompt_ids(chat, documents=[{"title": title, "text": "Yes."}]) for title in QUESTIONS)
    except Exception as error:  # a template is a program and may raise anything
        raise ValueError(f"its chat template does not accept retrieved rows ({one_line(error)[:80]})") from error
    if one == other:
        raise ValueError("its chat template leaves retrieved rows out; publish one that writes `documents`")


def check_ids(text: Text, vocabulary: int) -> None:
    """Check the tokenizer's ids.

    Args:
        text: the tokenizer.
        vocabulary: the number of ids that the model knows.

    Raises:
        ValueError: a question can have ids that are not below `vocabulary`.
    """
    backend = text.tokenizer.backend_tokenizer
    special = special_ids(backend)  # no question contains them; the template may
    ids = [id for id in backend.get_vocab().values() if id not in special]
    if (largest := max([*ids, *_ask(text, QUESTIONS[0])])) >= vocabulary:
        raise ValueError(
            f"its tokenizer has the token id {largest} ({backend.id_to_token(largest)!r}), and the model knows those "
            f"below {vocabulary}; {TOKENIZER_REMEDY}"
        )


def _check_template(text: Text) -> None:
    try:
        one, other = (_ask(text, question) for question in QUESTIONS)
    except Exception as error:  # a template is a program and may raise anything
        raise ValueError(
            f"its chat template does not accept a question ({one_line(error)[:80]}); {TEMPLATE_REMEDY}"
        ) from error
    if one == other:
        raise ValueError("its chat template leaves the question out; publish one that writes each message's content")


def _ask(text: Text, question: str) -> list[int]:
    return text.prompt_ids([{"role": "user", "content": question}])


def _check_eos(text: Text, folder: Path, ends: list[int]) -> None:
    if all(text.tokenizer.backend_tokenizer.id_to_token(id) is None for id in ends):
        named = ", ".join(map(str, ends))
        raise ValueError(
            f"its answers end with the token id {named}, which its tokenizer does not have; {TOKENIZER_REMEDY}"
        )
    mark, path = text.tokenizer.eos_token, folder / "tokenizer.json"
    if mark is not None and path.exists() and str(mark) not in _tokens(json.loads(path.read_text())):
        # transformers then gives it an id of its own, which the model has never seen
        raise ValueError(
            f"tokenizer.json lacks {mark}, which tokenizer_config.json names as the end of a text; {TOKENIZER_REMEDY}"
        )


def _tokens(file: dict[str, Any]) -> set[str]:
    """All tokens of a tokenizer.json; its vocabulary maps tokens to ids, or lists tokens with their scores."""
    vocabulary = file["model"]["vocab"]
    tokens = vocabulary if isinstance(vocabulary, dict) else [token for token, _ in vocabulary]
    return {*tokens, *(token["content"] for token in file.get("added_tokens", []))}
