"""Base: fetches the base model and saves it in the run folder, in the form of a published model.

It loads the model once, validates it (files, weights, causality, chat template), and adds what a base may lack (a chat
template, a padding token). Later stages load base and tuned model in the same way, and a resumed run does not need the
Hub for the base. The checks themselves are in the other modules of `job.model`.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from huggingface_hub import snapshot_download
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from job.config.schema import ModelSection
from job.errors import ConfigError, DataError
from job.model import files, ids, probe, source, template, weights
from job.model.template import Template
from job.run import checkpoint, durable, generation, out_of_memory
from job.run.fact_files import Damaged, dump, load
from job.run.facts import BaseFacts
from job.run.messages import one_line

FACTS = "base.json"
log = logging.getLogger(__name__)


def fetch(section: ModelSection, folder: Path, before: str | None = None) -> BaseFacts:
    """Fetch the base model into a folder: weights, tokenizer, chat template and generation config.

    Args:
        section: The config's model section.
        folder: Where to save the base; if it holds one already, only its facts are read.
        before: Hash of the weights that a model was trained from, which the base must have; None for any.

    Returns:
        The facts of the base.

    Raises:
        ConfigError: There is no such model, it cannot be fine-tuned on text, or its context is too short.
        DataError: It has other weights than `before`; the folder is unchanged.
        KickoffError: The Hub did not answer; a retry may help.
        OutOfMemory: The model does not fit into memory.
    """
    if (folder / FACTS).exists():
        return load(folder / FACTS, BaseFacts)
    remedy = "use a smaller model.base, or run on a machine with more memory"
    with out_of_memory.convert_errors(f"while loading {section.base}", remedy):
        if _is_checkpoint(Path(section.base)):
            tokenizer, model, origin = _from_checkpoint(section)
        else:
            tokenizer, model, origin = _from_source(section)
        chosen, context = _validate(section, tokenizer, model)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    fingerprint = hash_weights(partial)
    if before not in (None, fingerprint):
        shutil.rmtree(partial)
        raise DataError(
            f"output: {folder.parent} was trained from other weights than {section.base} has now, so its base cannot "
            "be recreated; restore them, or choose another output"
        )
    facts = BaseFacts(
        origin.base,
        origin.revision,
        origin.checkpoint,
        parameters=model.num_parameters(),
        context=context,
        chat_template=chosen.whose,
        template_date=origin.template_date or chosen.date,
        weights=fingerprint,
    )
    (partial / FACTS).write_text(dump(facts))
    durable.replace(partial, folder)
    return facts


def hash_weights(folder: Path) -> str:
    """Return the hash of the saved weights, by which a base that is fetched again is compared."""
    digest = xxhash.xxh3_128()
    for path in sorted(folder.rglob("*.safetensors")):  # modules of an encoder have folders of their own
        with path.open("rb") as stream:
            while part := stream.read(2**24):
                digest.update(part)
    return digest.hexdigest()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base that `fetch` has saved."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def find_tokenizer(section: ModelSection, fetched: Path) -> PreTrainedTokenizerBase | None:
    """Load the base's tokenizer as `fetch` saves it, without a download.

    Args:
        section: The config's model section.
        fetched: The folder into which `fetch` saves the base.

    Returns:
        The tokenizer; None if it is neither fetched nor in the Hub's cache, or cannot be used.
    """
    if (fetched / FACTS).exists():
        return load_tokenizer(fetched)
    folder = Path(section.base)
    try:
        if _is_checkpoint(folder):
            folder = _base_of_checkpoint(folder)
        elif not folder.is_dir():
            folder = Path(snapshot_download(section.base, revision=section.revision, local_files_only=True))
        tokenizer = _load_checked_tokenizer(section, folder)
        template.install(section, tokenizer)
    except (OSError, ValueError, ConfigError):
        return None
    return tokenizer if tokenizer.eos_token_id is not None else None


@dataclass(frozen=True)
class _Origin:
    """Where a base was loaded from."""

    base: str
    revision: str | None
    checkpoint: str | None = None
    template_date: str | None = None


def _from_source(section: ModelSection) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, _Origin]:
    selected: list[str] = []

    def select(folder: Path, names: set[str]) -> list[str]:
        selected[:] = files.select_weights(section, folder, names)
        return selected

    folder, revision = source.locate(section, select)
    options: dict[str, Any] = {"dtype": "auto", "use_safetensors": True}
    if section.gguf_file is not None:
        # dequantized into plain dense weights, which can be trained and saved
        options = {"dtype": torch.float32, "gguf_file": section.gguf_file}
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        files.require_complete(section.base, folder, selected)
    tokenizer = _load_checked_tokenizer(section, folder)
    model = _load_model(section.base, folder, **options)
    return tokenizer, model, _Origin(section.base, revision)


def _from_checkpoint(section: ModelSection) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, _Origin]:
    """Load the base of an earlier run with the weights of one of its checkpoints."""
    path = Path(section.base)
    folder = _base_of_checkpoint(path)
    try:
        before = load(folder / FACTS, BaseFacts)
    except Damaged as error:
        raise ConfigError(f"model.base: {error}; use a checkpoint of another run") from None
    unused = [name for name in ("revision", "gguf_file") if getattr(section, name) is not None]
    if unused:
        log.info(f"base: a checkpoint has its own base, {before.base}; model.{', model.'.join(unused)} not used")
    trained = checkpoint.load_weights(path)
    if trained is None:
        raise ConfigError(f"model.base: the checkpoint {path} is incomplete or damaged; use an older one")
    model = _load_model(section.base, folder, dtype=torch.float32, use_safetensors=True)
    try:
        model.load_state_dict(trained)
    except RuntimeError as error:
        raise ConfigError(f"model.base: the checkpoint {path} does not belong to {folder}: {one_line(error)}") from None
    date = before.template_date if section.chat_template == "base" else None
    return _load_checked_tokenizer(section, folder), model, _Origin(before.base, before.revision, str(path), date)


def _is_checkpoint(path: Path) -> bool:
    return (path / "tensors.pt").is_file() and (path / "state.json").is_file()


def _base_of_checkpoint(path: Path) -> Path:
    """Return the folder with the base of the run that a checkpoint belongs to."""
    folder = path.absolute().parents[1] / "base"
    if not (folder / FACTS).is_file():
        raise ConfigError(
            f"model.base: {path} is a checkpoint of Kickoff without its run: expected its base in {folder}; "
            "name the checkpoint inside its run folder"
        )
    return folder


def _load_checked_tokenizer(section: ModelSection, folder: Path) -> PreTrainedTokenizerBase:
    own_gguf = section.gguf_file is not None and (folder / section.gguf_file).is_file()
    options = {"gguf_file": section.gguf_file} if own_gguf else {}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, padding_side="left", trust_remote_code=False, **options
        )
    except Exception as error:  # an invalid file may make a library raise anything
        reraise_unrelated(error)
        raise ConfigError(
            f"model.base: {section.base} has no tokenizer that can be loaded: {one_line(error)}; expected a "
            "tokenizer.json, which transformers' save_pretrained writes"
        ) from None
    if not tokenizer.is_fast:
        raise ConfigError(
            f"model.base: {section.base} has only a tokenizer written in Python ({type(tokenizer).__name__}), which "
            "cannot be served; expected a tokenizer.json"
        )
    return tokenizer


def _load_model(base: str, folder: Path, **options: Any) -> PreTrainedModel:
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "trust_remote_code": False}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # an invalid file may make a library raise anything
        reraise_unrelated(error)
        raise ConfigError(
            f"model.base: {base} cannot be loaded as a causal language model: {type(error).__name__}: {one_line(error)}"
        ) from None
    model: PreTrainedModel = loaded[0]
    weights.require_loaded(base, model, loaded[1])
    return model


def _validate(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> tuple[Template, int | None]:
    """Complete tokenizer and model, or refuse them; return the template and the context in tokens."""
    base = section.base
    ids.require_ids(base, model, tokenizer)
    special = set(tokenizer.added_tokens_decoder)
    padding = next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0)
    context = probe.require_causal(base, model, padding, special)
    _require_fit(section, context)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.base: the tokenizer of {base} has no end-of-sequence token, so no answer could ever "
            "end; use another base"
        )
    chosen = template.install(section, tokenizer)
    ids.require_known(base, model, tokenizer, template.render_samples(tokenizer))
    _complete(tokenizer, model, section)
    probe.require_generation(base, model, special, context)
    return chosen, context


def _complete(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, section: ModelSection) -> None:
    """Set the padding token, the stop tokens and the generation config that the published repository must hold."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: padding is masked by length, never by id
    for config in (model.config, model.config.get_text_config()):
        # old Llama configs use -1 for none, which torch counts from the end: the last token would not be trained
        if (getattr(config, "pad_token_id", None) or 0) < 0:
            config.pad_token_id = None
    stops = model.generation_config.eos_token_id if model.generation_config else None
    others = stops if isinstance(stops, list) else [] if stops is None else [stops]
    ends = list(dict.fromkeys([tokenizer.eos_token_id, *others]))
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=section.max_new_tokens,
        do_sample=False,
        **generation.decoding_settings(section),
    )


def _require_fit(section: ModelSection, context: int | None) -> None:
    """Raise ConfigError if a row, or a question with the longest answer, does not fit into the context."""
    if context is None:
        return
    reads = f"{section.base} reads at most {context} tokens"
    problems = []
    if section.max_length > context:
        problems.append(
            f"model.max_length: found {section.max_length}, and {reads}; lower model.max_length to {context} or less"
        )
    if section.max_new_tokens >= context:
        problems.append(
            f"model.max_new_tokens: found {section.max_new_tokens}, and {reads}, with the question; lower "
            f"model.max_new_tokens to {context // 2} or so"
        )
    if problems:
        raise ConfigError("; ".join(problems))


def reraise_unrelated(error: Exception) -> None:
    """Raise an error again that does not concern the base: a full disk, or too little memory."""
    if isinstance(error, ConfigError) or durable.is_disk_full(error) or out_of_memory.is_out_of_memory(error):
        raise error
