"""Base: the model to start from, from wherever it is to a folder in the form that is published.

It loads the model once, lets `job.model` judge it (files, weights, causality, template), and completes what a base
may lack (a chat template, a padding token). After it, every later stage loads base and tuned model in the same way,
and a resumed run needs the Hub no more.
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
from job.run import checkpoint, durable, out_of_memory
from job.run.fact_files import Damaged, dump, load
from job.run.facts import BaseFacts
from job.run.messages import one_line

FACTS = "base.json"
log = logging.getLogger(__name__)


def fetch(section: ModelSection, folder: Path, before: str | None = None) -> BaseFacts:
    """Bring the base model into `folder`, which then holds weights, tokenizer, chat template and generation config.

    Args:
        before: hash of the weights that it must have, because a model was trained from them.

    Returns:
        What is known of it.

    Raises:
        ConfigError: there is no such model, or it cannot be fine-tuned for text, or the context is too short.
        DataError: it has other weights than `before`; the folder stays as it was.
        KickoffError: the Hub did not answer; a retry may help.
        OutOfMemory: it does not fit into memory.
    """
    if (folder / FACTS).exists():
        return load(folder / FACTS, BaseFacts)
    with out_of_memory.needed(
        f"while loading {section.base}", "take a smaller model.base, or run on a machine with more memory"
    ):
        if _is_checkpoint(Path(section.base)):
            tokenizer, model, origin = _from_checkpoint(section)
        else:
            tokenizer, model, origin = _from_source(section)
        chosen, context = _judge(section, tokenizer, model)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    fingerprint = _fingerprint(partial)
    if before not in (None, fingerprint):
        shutil.rmtree(partial)
        raise DataError(
            f"output: {folder.parent} was trained from other weights than {section.base} has now, so its base cannot "
            "be made anew; bring them back as they were, or choose another output"
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
    durable.place(partial, folder)
    return facts


def _fingerprint(folder: Path) -> str:
    """Hash of the weights as they are saved, by which a base that is fetched again is known."""
    found = xxhash.xxh3_128()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while part := stream.read(2**24):
                found.update(part)
    return found.hexdigest()


def fetched_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base that `fetch` has brought."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def tokenizer_at_hand(section: ModelSection, fetched: Path) -> PreTrainedTokenizerBase | None:
    """The base's tokenizer as `fetch` leaves it, if it costs no download; else None.

    Args:
        fetched: where `fetch` would put, or has put, the base.
    """
    if (fetched / FACTS).exists():
        return fetched_tokenizer(fetched)
    folder = Path(section.base)
    try:
        if _is_checkpoint(folder):
            folder = _beside(folder)
        elif not folder.is_dir():
            folder = Path(snapshot_download(section.base, revision=section.revision, local_files_only=True))
        found = _load_tokenizer(section, folder)
        template.put_on(section, found)
    except (OSError, ValueError, ConfigError):
        return None
    return found if found.eos_token_id is not None else None


@dataclass(frozen=True)
class _Origin:
    """Where a base is from."""

    base: str
    revision: str | None
    checkpoint: str | None = None
    template_date: str | None = None


def _from_source(section: ModelSection) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, _Origin]:
    needed: list[str] = []

    def admit(folder: Path, names: set[str]) -> list[str]:
        needed[:] = files.admit(section, folder, names)
        return needed

    folder, revision = source.find(section, admit)
    options: dict[str, Any] = {"dtype": "auto", "use_safetensors": True}
    if section.gguf_file is not None:
        # unpacked into plain dense weights, which can be trained and saved
        options = {"dtype": torch.float32, "gguf_file": section.gguf_file}
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        files.require_whole(section.base, folder, needed)
    tokenizer = _load_tokenizer(section, folder)
    model = _load_model(section.base, folder, **options)
    return tokenizer, model, _Origin(section.base, revision)


def _from_checkpoint(section: ModelSection) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, _Origin]:
    """The base of an earlier run with the weights of one of its checkpoints."""
    path = Path(section.base)
    folder = _beside(path)
    try:
        before = load(folder / FACTS, BaseFacts)
    except Damaged as error:
        raise ConfigError(f"model.base: {error}; take a checkpoint of another run") from None
    unused = [name for name in ("revision", "gguf_file") if getattr(section, name) is not None]
    if unused:
        log.info(f"base: a checkpoint brings its own base, {before.base}; model.{', model.'.join(unused)} not used")
    trained = checkpoint.weights(path)
    if trained is None:
        raise ConfigError(f"model.base: the checkpoint {path} is incomplete or damaged; take an older one")
    model = _load_model(section.base, folder, dtype=torch.float32, use_safetensors=True)
    try:
        model.load_state_dict(trained)
    except RuntimeError as error:
        raise ConfigError(f"model.base: the checkpoint {path} does not belong to {folder}: {one_line(error)}") from None
    date = before.template_date if section.chat_template == "base" else None
    return _load_tokenizer(section, folder), model, _Origin(before.base, before.revision, str(path), date)


def _is_checkpoint(path: Path) -> bool:
    return (path / "tensors.pt").is_file() and (path / "state.json").is_file()


def _beside(path: Path) -> Path:
    """The folder with the base of the run that a checkpoint belongs to."""
    folder = path.absolute().parents[1] / "base"
    if not (folder / FACTS).is_file():
        raise ConfigError(
            f"model.base: {path} is a checkpoint of Kickoff without its run: expected its base in {folder}; "
            "name the checkpoint inside its run folder"
        )
    return folder


def _load_tokenizer(section: ModelSection, folder: Path) -> PreTrainedTokenizerBase:
    own_gguf = section.gguf_file is not None and (folder / section.gguf_file).is_file()
    options = {"gguf_file": section.gguf_file} if own_gguf else {}
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, padding_side="left", trust_remote_code=False, **options
        )
    except Exception as error:  # whatever a foreign file makes a library raise
        _reraise_if_ours(error)
        raise ConfigError(
            f"model.base: {section.base} has no tokenizer that can be loaded: {one_line(error)}; expected a "
            "tokenizer.json, which transformers' save_pretrained writes"
        ) from None
    if not found.is_fast:
        raise ConfigError(
            f"model.base: {section.base} has a tokenizer in Python alone ({type(found).__name__}), which cannot be "
            "served; expected a tokenizer.json"
        )
    return found


def _load_model(base: str, folder: Path, **options: Any) -> PreTrainedModel:
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, "trust_remote_code": False}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # whatever a foreign file makes a library raise
        _reraise_if_ours(error)
        raise ConfigError(
            f"model.base: {base} is no causal language model that can be loaded: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from None
    model: PreTrainedModel = loaded[0]
    weights.require_loaded(base, model, loaded[1])
    return model


def _judge(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> tuple[Template, int | None]:
    """Complete tokenizer and model, or refuse them; the template, and the context in tokens."""
    base = section.base
    ids.require_ids(base, model, tokenizer)
    special = set(tokenizer.added_tokens_decoder)
    padding = next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)
    context = probe.require_causal(base, model, padding, special)
    _require_room(section, context)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.base: the tokenizer of {base} has no end-of-text token, so no answer could ever end; take another"
        )
    chosen = template.put_on(section, tokenizer)
    ids.require_written(base, model, tokenizer, template.written(tokenizer))
    _complete(tokenizer, model, section.max_new_tokens)
    probe.require_generation(base, model, special, context)
    return chosen, context


def _complete(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_new_tokens: int) -> None:
    """Give tokenizer and model what the published repository must hold."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: padding is masked by length, never by id
    for config in (model.config, model.config.get_text_config()):
        # old Llama configs say -1 for none, and torch would count it from the end: the last token would not be trained
        if (getattr(config, "pad_token_id", None) or 0) < 0:
            config.pad_token_id = None
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


def _require_room(section: ModelSection, context: int | None) -> None:
    """Rows must fit into the context, and so must a question with the longest answer: generation ends there."""
    if context is None:
        return
    reads = f"{section.base} reads at most {context} tokens"
    wrong = []
    if section.max_length > context:
        wrong.append(
            f"model.max_length: found {section.max_length}, and {reads}; lower model.max_length to {context} or less"
        )
    if section.max_new_tokens >= context:
        wrong.append(
            f"model.max_new_tokens: found {section.max_new_tokens}, and {reads}, with the question; lower "
            f"model.max_new_tokens to {context // 2} or so"
        )
    if wrong:
        raise ConfigError("; ".join(wrong))


def _reraise_if_ours(error: Exception) -> None:
    """A full disk and a full memory are no fault of the base."""
    if isinstance(error, ConfigError) or durable.is_full(error) or out_of_memory.is_out_of_memory(error):
        raise error
