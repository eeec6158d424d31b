"""Encoder base: fetches the base of a retriever and saves it in the run folder, as sentence-transformers does.

Any encoder of the Hub will do: one of sentence-transformers with its own pooling and prompts, or a plain BERT, RoBERTa
or ELECTRA, whose token vectors are then averaged. It knows files and the library. It does not know rows.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from job.config.schema import ModelSection, RetrieverSection
from job.data.pairs import read_prompts
from job.errors import ConfigError, DataError
from job.model import base, files, source, weights
from job.model.encoder import load_encoder
from job.run import durable, out_of_memory
from job.run.fact_files import dump, load
from job.run.facts import BaseFacts
from job.run.messages import one_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SAMPLES = ["How many players has a team?", "Eleven players are on the field, and one of them is the goalkeeper."]
_ALIKE = 0.999
"""Least cosine of a text's vectors, alone and beside a longer one: rounding takes 1e-6 of it, a padding that is read
far more."""
_COUNT_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")
"""Model types whose first position is not 0."""


def fetch(section: ModelSection, retriever: RetrieverSection, folder: Path, before: str | None = None) -> BaseFacts:
    """Fetch the base encoder into a folder.

    Args:
        section: The config's model section.
        retriever: The config's retriever section, with the prompts.
        folder: Where to save the base; if it holds one already, only its facts are read.
        before: Hash of the weights that a model was trained from, which the base must have; None for any.

    Returns:
        The facts of the base.

    Raises:
        ConfigError: There is no such encoder, it cannot be used, or it reads fewer tokens than model.max_length.
        DataError: It has other weights than `before`; the folder is unchanged.
        KickoffError: The Hub did not answer; a retry may help.
        OutOfMemory: The encoder does not fit into memory.
    """
    if (folder / base.FACTS).exists():
        return load(folder / base.FACTS, BaseFacts)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    remedy = "use a smaller model.base, or run on a machine with more memory"
    with out_of_memory.convert_errors(f"while loading {section.base}", remedy):
        found, revision = source.locate(section, lambda local, names: files.select_encoder(section, local, names))
        encoder = _load(section.base, found)
        context = _require_context(section, found)
        _require_vectors(section.base, encoder)
    encoder.max_seq_length = section.max_length
    prompts = read_prompts(retriever, found)
    encoder.prompts = {"query": prompts.query, "document": prompts.document}
    encoder.default_prompt_name = None
    encoder.save(str(partial), create_model_card=False)
    fingerprint = base.hash_weights(partial)
    if before not in (None, fingerprint):
        shutil.rmtree(partial)
        raise DataError(
            f"output: {folder.parent} was trained from other weights than {section.base} has now, so its base cannot "
            "be made again; restore them, or choose another output"
        )
    parameters = sum(weight.numel() for weight in encoder.parameters())
    facts = BaseFacts(section.base, revision, None, parameters, context, "", None, fingerprint)
    (partial / base.FACTS).write_text(dump(facts))
    durable.replace(partial, folder)
    return facts


def find_tokenizer(section: ModelSection, fetched: Path) -> PreTrainedTokenizerBase | None:
    """Load the encoder's tokenizer without a download; None if the encoder is not here yet."""
    folder = fetched if (fetched / base.FACTS).exists() else Path(section.base)
    if not folder.is_dir():
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError):
        return None
    return tokenizer


def _load(name: str, folder: Path) -> "SentenceTransformer":
    try:
        model, info = AutoModel.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
        # the pooler of BERT is not part of a sentence's vector
        info["missing_keys"] = {key for key in info["missing_keys"] if not key.startswith("pooler.")}
        weights.require_loaded(name, model, info)
        del model
        encoder = load_encoder(folder)
    except Exception as error:  # an invalid file may make a library raise anything
        base.reraise_unrelated(error)
        raise ConfigError(
            f"model.base: {name} is no encoder that sentence-transformers can load: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from None
    if not getattr(encoder.tokenizer, "is_fast", False):
        raise ConfigError(
            f"model.base: {name} has a tokenizer in Python alone ({type(encoder.tokenizer).__name__}), which cannot be "
            "served; expected a tokenizer.json"
        )
    if set(encoder.tokenizer.get_vocab()) <= set(encoder.tokenizer.all_special_tokens):
        raise ConfigError(
            f"model.base: {name} has a tokenizer that knows no words; expected a tokenizer.json with its vocabulary"
        )
    return encoder


def _require_context(section: ModelSection, folder: Path) -> int | None:
    """Raise ConfigError if the encoder reads fewer tokens than model.max_length; return how many it reads."""
    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or getattr(config, "position_embedding_type", "absolute") != "absolute":
        return None
    # these count positions from behind the padding id
    offset = config.pad_token_id + 1 if config.model_type in _COUNT_BEHIND_PADDING else 0
    context = positions - offset
    if section.max_length > context:
        raise ConfigError(
            f"model.max_length: found {section.max_length}, and {section.base} reads at most {context} tokens; lower "
            f"model.max_length to {context} or less"
        )
    return context


def _require_vectors(name: str, encoder: "SentenceTransformer") -> None:
    """Raise ConfigError if a text's vector is not finite, is that of any other text, or depends on its neighbours."""
    together = encoder.encode(_SAMPLES, convert_to_tensor=True, normalize_embeddings=True)
    alone = encoder.encode(_SAMPLES[:1], convert_to_tensor=True, normalize_embeddings=True)
    if not torch.isfinite(together).all():
        raise ConfigError(f"model.base: {name} gives vectors that are NaN or infinite; use another base")
    if float(together[0] @ together[1]) > _ALIKE:
        raise ConfigError(f"model.base: {name} gives every text the same vector; use another base")
    if float(together[0] @ alone[0]) < _ALIKE:
        raise ConfigError(
            f"model.base: {name} gives a text another vector beside a longer one, so its padding is not masked; use "
            "another base"
        )
