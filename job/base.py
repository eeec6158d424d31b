"""Base: the model to start from, from wherever it is to a folder in the form that is published.

It knows the Hub, local folders and GGUF files, and what a base may lack (a chat template, a padding token). After
it, every later stage loads base and tuned model in the same way, and a resumed run needs the Hub no more.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from job import durable
from job.config import ModelSection
from job.errors import ConfigError, KickoffError

_TEMPLATE = Path(__file__).parent / "templates" / "chat_template.jinja"
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def fetch(section: ModelSection, folder: Path) -> dict[str, Any]:
    """Bring the base model into `folder`, which then holds weights, tokenizer, chat template and generation config.

    Returns:
        What the card says of it: id, revision, parameters, whose chat template, context length.

    Raises:
        ConfigError: there is no such model, or it cannot be fine-tuned for text, or the context is too short.
        KickoffError: the Hub did not answer; a retry may help.
    """
    facts_file = folder / "base.json"
    if facts_file.exists():
        return dict(json.loads(facts_file.read_text()))
    source, revision = resolve(section)
    tokenizer, model = _load(section, source)
    own_template = bool(tokenizer.chat_template)
    _complete(tokenizer, model, section.max_new_tokens)
    facts = {
        "base": section.base,
        "revision": revision,
        "parameters": model.num_parameters(),
        "chat_template": "the base model's own" if own_template else "Kickoff's",
        "context": _context(model, section),
    }
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / facts_file.name).write_text(json.dumps(facts, indent=2))
    durable.place(partial, folder)
    return facts


def tokenizer(section: ModelSection) -> PreTrainedTokenizerBase | None:
    """The base's tokenizer as `fetch` would leave it, if it can be had without a download; else None."""
    source = Path(section.base)
    try:
        if not source.is_dir():
            source = Path(snapshot_download(section.base, revision=section.revision, local_files_only=True))
        options = {"gguf_file": section.gguf_file} if section.gguf_file is not None else {}
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    except (OSError, ValueError, KeyError):
        return None
    if not found.chat_template:
        found.chat_template = _TEMPLATE.read_text()
    return found if found.eos_token_id is not None else None


def resolve(section: ModelSection) -> tuple[str, str | None]:
    """The local folder that holds the base's files, downloaded if need be, and its commit if it is on the Hub."""
    local = Path(section.base)
    if local.is_dir():
        return str(local), None
    try:
        sha = HfApi().model_info(section.base, revision=section.revision).sha
        return snapshot_download(section.base, revision=sha, allow_patterns=_patterns(section)), sha
    except (RepositoryNotFoundError, HFValidationError):
        raise ConfigError(
            f"model.base: found {section.base!r}, which is no folder here and no model on the Hub that HF_TOKEN may "
            "read; check the name (owner/name) and the token"
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(f"model.revision: {section.base} has no revision {section.revision!r}") from None
    except (httpx2.HTTPError, OSError) as error:
        if durable.is_full(error):
            raise
        raise KickoffError(
            f"the Hub did not give the base model {section.base}: {error}; run the same command again"
        ) from None


def _patterns(section: ModelSection) -> list[str]:
    return [*_PATTERNS, section.gguf_file] if section.gguf_file else _PATTERNS


def _load(section: ModelSection, source: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    options: dict[str, Any] = {}
    if section.gguf_file is not None:
        if not (Path(source) / section.gguf_file).is_file():
            raise ConfigError(f"model.gguf_file: {section.base} holds no file {section.gguf_file!r}")
        options["gguf_file"] = section.gguf_file
    elif not list(Path(source).glob("*.safetensors")):
        raise ConfigError(
            f"model.base: {section.base} holds no *.safetensors weights; convert it, or set model.gguf_file"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
        if section.gguf_file is not None:
            # unpacked into plain dense weights, which can be trained and saved
            options["quantization_config"] = GgufConfig(dequantize=True)
            return tokenizer, AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
        return tokenizer, AutoModelForCausalLM.from_pretrained(source, dtype="auto", use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"model.base: {section.base} is no causal language model that can be loaded: {error}"
        ) from None


def _complete(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_new_tokens: int) -> None:
    """Give tokenizer and model what the published repository must hold."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "model.base: its tokenizer has no end-of-text token, so no answer could ever end; take another"
        )
    if not tokenizer.chat_template:
        tokenizer.chat_template = _TEMPLATE.read_text()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: padding is masked by length, never by id
    stops = model.generation_config.eos_token_id if model.generation_config else None
    others = stops if isinstance(stops, list) else [] if stops is None else [stops]
    ends = list(dict.fromkeys([tokenizer.eos_token_id, *others]))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )


def _context(model: PreTrainedModel, section: ModelSection) -> int | None:
    config = model.config.get_text_config()
    context: int | None = getattr(config, "max_position_embeddings", None)
    if context is not None and section.max_length > context:
        raise ConfigError(
            f"model.max_length: found {section.max_length}, and {section.base} reads at most {context} tokens; lower it"
        )
    return context
