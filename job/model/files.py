"""Files: checks by a base's files, before anything is loaded, whether it can be fine-tuned here.

It knows the layouts that people publish: adapters, pickles, GGUF, quantized weights, encoder-decoders. It loads no
weights; `probe` checks the loaded model.
"""

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from job.config.schema import ModelSection
from job.errors import ConfigError
from job.run.messages import join_names, one_line

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_CONVERT = (
    'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "[K.from_pretrained('{base}').save_pretrained('converted') for K in (M, T)]\""
)
_MERGE = (
    "python -c \"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{base}').merge_and_unload()"
    ".save_pretrained('merged')\""
)
_CONFIG_AND_WEIGHTS = ["config.json", "*.safetensors weights"]
_OTHER_MODALITIES = ("vision_config", "audio_config")


def select_weights(section: ModelSection, folder: Path, names: set[str]) -> list[str]:
    """Select the files that hold the weights.

    Args:
        section: The config's model section.
        folder: Holds at least the small files (JSON) of the base.
        names: All files of the base, also those that are not downloaded yet.

    Returns:
        Names of the safetensors files, or of the GGUF file.

    Raises:
        ConfigError: The base is not a decoder in plain safetensors; the text says what it is and what to do.
    """
    base = section.base
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if section.gguf_file is not None:
        if section.gguf_file not in names:
            found = f"; it holds {join_names(ggufs)}" if ggufs else " and no other GGUF file"
            raise ConfigError(f"model.gguf_file: {base} holds no file {section.gguf_file!r}{found}")
        return [section.gguf_file]
    _refuse_other_kinds(base, folder, names, ggufs)
    config = _load_config(base, folder)
    _refuse_kind(base, config.model_type, config)
    return _weights(base, folder, names)


def select_encoder(section: ModelSection, folder: Path, names: set[str]) -> list[str]:
    """Select the files that hold the weights of an encoder; arguments, result and errors as of `select_weights`."""
    base = section.base
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if _is_checkpoint(names):
        raise ConfigError(
            f"model.base: {base} is a checkpoint of Kickoff, and a retriever starts from a whole model; use the folder "
            "`model` of its run"
        )
    _refuse_other_kinds(base, folder, names, ggufs)
    config = _load_config(base, folder)
    is_masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not is_masked:
        raise ConfigError(
            f"model.base: {base} is a causal language model ({config.model_type}), and model.kind is retriever; use an "
            "encoder, such as sentence-transformers/all-MiniLM-L6-v2"
        )
    modules = _read_modules(base, folder) if "modules.json" in names else []
    return [*_weights(base, folder, names), *_module_weights(base, modules, names)]


def _is_checkpoint(names: set[str]) -> bool:
    return {"tensors.pt", "state.json"} <= names


def _read_modules(base: str, folder: Path) -> list[str]:
    """List the folders of an encoder's modules; refuse those loaded from elsewhere, since their code would run here."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        types, paths = ([str(module[key]) for module in modules] for key in ("type", "path"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"model.base: {base}: modules.json cannot be read: {one_line(error)}") from None
    foreign = [name for name in types if not name.startswith("sentence_transformers.")]
    if foreign:
        raise ConfigError(
            f"model.base: {base} needs code of its own ({', '.join(foreign)} in modules.json), which is not run here; "
            "use an encoder of sentence-transformers' own modules"
        )
    return paths


def _module_weights(base: str, modules: list[str], names: set[str]) -> list[str]:
    """Select the weights of modules behind the transformer, such as a dense layer; most modules have none."""
    pickled = [f"{path}/pytorch_model.bin" for path in modules if path and f"{path}/{WEIGHTS}" not in names]
    pickled = [name for name in pickled if name in names]
    if pickled:
        raise ConfigError(
            f"model.base: {base} holds {join_names(pickled)}, which may run code when loaded; use a base whose modules "
            "have safetensors weights"
        )
    return [f"{path}/{WEIGHTS}" for path in modules if path and f"{path}/{WEIGHTS}" in names]


def require_complete(base: str, folder: Path, weights: list[str]) -> None:
    """Raise ConfigError if a weights file is truncated, by its header, or is not a safetensors file."""
    for name in weights:
        path = folder / name
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            with path.open("rb") as file:
                pointer = file.read(64).startswith(b"version https://git-lfs")
            remedy = "it is a Git LFS pointer: run `git lfs pull` there" if pointer else "download it again"
            raise ConfigError(f"model.base: {base}: {name} is cut off or damaged ({error}); {remedy}") from None


def _refuse_other_kinds(base: str, folder: Path, names: set[str], ggufs: list[str]) -> None:
    if "adapter_config.json" in names:
        adapter = _json(base, folder / "adapter_config.json")
        original = adapter.get("base_model_name_or_path") or "a model that it does not name"
        kind = {"LORA": "a LoRA adapter"}.get(str(adapter.get("peft_type")), "an adapter")
        raise ConfigError(
            f"model.base: {base} is {kind} of {original}: merge it first, with {_MERGE.format(base=base)}, copy the "
            "tokenizer's files there and set model.base=merged; if its weights are merged already, remove "
            "adapter_config.json"
        )
    if "base/base.json" in names and "config.json" not in names:
        raise ConfigError(
            f"model.base: {base} is a run folder of Kickoff; use {base}/model, or a checkpoint, "
            f"{base}/checkpoints/step-..."
        )
    if "config.json" not in names:
        if ggufs:
            raise ConfigError(f"model.base: {base} holds GGUF files; set model.gguf_file to one of {join_names(ggufs)}")
        lacks = ["config.json"] if any(name.endswith(".safetensors") for name in names) else _CONFIG_AND_WEIGHTS
        kind = ", but a diffusion model" if "model_index.json" in names else ""
        raise ConfigError(
            f"model.base: {base} holds no {' and no '.join(lacks)}{kind}; expected a folder or repository as "
            f"transformers' save_pretrained writes it, found {join_names(sorted(names)) or 'no file'}"
        )


def _load_config(base: str, folder: Path) -> PretrainedConfig:
    """Load config.json, or raise ConfigError if it is of no plain model of transformers."""
    raw = _json(base, folder / "config.json")
    kind = raw.get("model_type")
    inner = raw.get("text_config")
    quantized = raw.get("quantization_config") or (isinstance(inner, dict) and inner.get("quantization_config"))
    if quantized:
        method = quantized.get("quant_method", "of an unknown method") if isinstance(quantized, dict) else quantized
        raise ConfigError(
            f"model.base: {base} is quantized ({method}), and such weights cannot be fine-tuned; use the model that "
            "it was made from"
        )
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise ConfigError(
                f"model.base: {base} needs custom code (auto_map in config.json), which is not run here; use a "
                "model that transformers knows"
            )
        raise ConfigError(
            f"model.base: {base} has the model_type {kind!r}, which transformers {transformers.__version__} does not "
            "know; expected one that it knows; a newer transformers may know this one"
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # an invalid config may make transformers raise anything
        raise ConfigError(f"model.base: {base}: config.json cannot be used: {one_line(error)}") from None
    return config


def _refuse_kind(base: str, kind: str, config: PretrainedConfig) -> None:
    if config.is_encoder_decoder:
        raise ConfigError(
            f"model.base: {base} is an encoder-decoder ({kind}), which is not supported yet; use a decoder, such as "
            "distilbert/distilgpt2"
        )
    if any(getattr(config, modality, None) is not None for modality in _OTHER_MODALITIES):
        raise ConfigError(
            f"model.base: {base} also takes images or sound ({kind}), which is not supported; use a model for text "
            "alone"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"model.base: {base} is not a causal language model ({kind}); use a decoder, such as distilbert/distilgpt2"
        )
    vocabulary, padding = getattr(config, "vocab_size", None), getattr(config, "pad_token_id", None)
    if isinstance(vocabulary, int) and isinstance(padding, int) and padding >= vocabulary:
        raise ConfigError(
            f"model.base: {base}: the padding id {padding} in config.json is outside the vocabulary of {vocabulary}; "
            "correct pad_token_id there"
        )


def _weights(base: str, folder: Path, names: set[str]) -> list[str]:
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        shards = _json(base, folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ConfigError(f"model.base: {base}: {INDEX} lists no weight files; download it again")
        wanted = sorted({str(name) for name in shards.values()})
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ConfigError(
                f"model.base: {base} lacks {join_names(missing)} of the {len(wanted)} weight files that {INDEX} lists; "
                "download all of them again"
            )
        return wanted
    others = sorted(name for name in names if name.endswith((".safetensors", ".gguf")))
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")))
    if others:
        raise ConfigError(f"model.base: {base} holds no {WEIGHTS}, only {join_names(others)}; {_other_weights(others)}")
    if pickled:
        raise ConfigError(
            f"model.base: {base} holds no *.safetensors weights, only {join_names(pickled)}, which may run code when "
            f"loaded; convert it with {_CONVERT.format(base=base)} and set model.base=converted, or on the Hub use a "
            "revision with safetensors (often model.revision=refs/pr/1)"
        )
    raise ConfigError(f"model.base: {base} holds no *.safetensors weights; found {join_names(sorted(names))}")


def _other_weights(others: list[str]) -> str:
    gguf = next((name for name in others if name.endswith(".gguf")), None)
    if gguf is not None:
        return f"set model.gguf_file={gguf}"
    return f"expected {WEIGHTS}, or {INDEX} beside its parts, as transformers' save_pretrained writes them"


def _json(base: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.base: {base}: {path.name} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"model.base: {base}: {path.name} holds no JSON object; download it again")
    return content
