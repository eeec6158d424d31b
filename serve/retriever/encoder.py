"""Loads a published encoder with sentence-transformers and encodes texts with it, in float32.

It knows sentence-transformers. It does not know answers, searches or requests.
"""

import logging
import threading
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from serve.retriever.packing import pack
from serve.retriever.request import Side

SIDES: dict[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The names under which sentence-transformers looks for the prompt of a query and of a document."""
PROBE = ("What is DNS?", "a")
"""Texts whose vectors are compared with packed and with plain weights."""
GROUP = 16
"""Texts of a forward pass on a CPU. sentence-transformers sorts a batch by length, so that short texts are not padded
to the longest of it."""
NOT_CARRIED_OUT = ("query_expansion", "query_length", "document_length")
"""Settings of a Transformer module that change how many tokens a text has."""


class Encoder:
    """A loaded encoder. Not thread-safe.

    Attributes:
        prompts: what stands before a text of each side.
        limit: the most tokens of a text with its prompt and the special tokens.
        tokenizer: cuts nothing and pads nothing; gives the tokens that the encoder sees.
    """

    def __init__(self, folder: Path, device: str) -> None:
        """Load the encoder.

        Args:
            folder: the published model.
            device: "cpu", "cuda:0", ...

        Raises:
            OSError: the files cannot be read.
            ValueError: it is no text encoder, or needs something that the server does not carry out.
        """
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        tqdm.set_lock(threading.RLock())  # its own is a semaphore that stays behind when the engine is killed
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
        self._model.eval().requires_grad_(False)
        self.device = self._model.device
        first = _first(self._model)
        self.limit = _limit(first)
        self.tokenizer = _whole(first)
        self.prompts: dict[Side, str] = {side: _prompt(self._model, side) for side in SIDES}
        _check_ids(first, self.tokenizer)
        if self.device.type == "cpu":
            pack(first.model, lambda: self.encode(list(PROBE), "query"))

    def length(self, text: str, side: Side) -> int:
        """Count the tokens of a text with its prompt and the special tokens."""
        return len(self.tokenizer.encode(self.prompts[side] + text).ids)

    @torch.inference_mode()
    def encode(self, texts: list[str], side: Side) -> torch.Tensor:
        """Encode texts, on a CPU in groups of similar length.

        Args:
            texts: none is longer than `limit`; sentence-transformers would cut it.
            side: which prompt they get.

        Returns:
            float32 (texts, width), of length 1, on the encoder's device.
        """
        call = self._model.encode_query if side == "query" else self._model.encode_document
        group = GROUP if self.device.type == "cpu" else len(texts)
        vectors = call(
            texts, batch_size=group, show_progress_bar=False, convert_to_tensor=True, normalize_embeddings=True
        )
        return vectors.float()

    @torch.inference_mode()
    def counted_lengths(self, texts: list[str], side: Side) -> list[int]:
        """Count the tokens that sentence-transformers makes of texts, to compare with `length`."""
        features = self._model.preprocess(texts, prompt=self.prompts[side], task=side)
        return [int(count) for count in features["attention_mask"].sum(1)]


def _prompt(model: SentenceTransformer, side: Side) -> str:
    """The prompt that sentence-transformers takes for this side."""
    names = [*SIDES[side], *([model.default_prompt_name] if model.default_prompt_name else [])]
    return next((model.prompts[name] or "" for name in names if name in model.prompts), "")


def _first(model: SentenceTransformer) -> Transformer:
    first: Any = model[0]
    if not isinstance(first, Transformer):
        raise ValueError(f"its first module is a {type(first).__name__}, expected a Transformer")
    if not isinstance(first.tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"its tokenizer is a {type(first.tokenizer).__name__}, expected one with a tokenizer.json")
    if set(first.modality_config) != {"text"}:
        raise ValueError(f"it takes {', '.join(map(str, first.modality_config))}, expected text alone")
    if set_ := [name for name in NOT_CARRIED_OUT if getattr(first, name) is not None]:
        raise ValueError(f"sentence_bert_config.json sets {', '.join(set_)}, which this server does not carry out")
    return cast(Transformer, first)


def _limit(first: Transformer) -> int:
    limit = first.max_seq_length
    positions = getattr(first.config, "max_position_embeddings", None)
    bounds = [bound for bound in (limit, positions) if isinstance(bound, int) and bound > 0]
    if not bounds:
        raise ValueError("it names no max_seq_length; set it in sentence_bert_config.json")
    return min(bounds)


def _whole(first: Transformer) -> Tokenizer:
    """Copy the tokenizer without truncation and padding."""
    fast = cast(PreTrainedTokenizerFast, first.tokenizer)
    tokenizer: Tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_ids(first: Transformer, tokenizer: Tokenizer) -> None:
    """Check that the encoder has an embedding for each token: another one would end the process."""
    known = int(cast(Any, first.model.get_input_embeddings()).num_embeddings)
    largest = max(tokenizer.get_vocab().values())
    if largest >= known:
        raise ValueError(
            f"its tokenizer has the token id {largest}, and the encoder knows those below {known}; publish the two "
            "together"
        )
