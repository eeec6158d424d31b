"""Sorts the settings of generation_config.json: supported, without effect, or a reason to refuse the model.

Every setting that transformers knows is in one of the tables below; any other is refused by its name, because an answer
that silently differs from the published model would be worse. It does not know files, and it imports neither torch nor
transformers, which take seconds to load.
"""

from collections.abc import Callable
from typing import Any

from serve.context import NAMES

Check = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_ids(value: Any) -> bool:
    return all(_is_count(id) for id in value) and value != [] if isinstance(value, list) else _is_count(value)


SUPPORTED: dict[str, Check] = {
    "do_sample": (lambda value: isinstance(value, bool), "true or false"),
    "temperature": (lambda value: _is_number(value) and 0 <= value < float("inf"), "a number from 0"),
    "top_k": (_is_count, "a whole number from 0"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0 and up to 1"),
    "min_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "repetition_penalty": (lambda value: _is_number(value) and 0 < value < float("inf"), "a number above 0"),
    "no_repeat_ngram_size": (_is_count, "a whole number from 0"),
    "min_new_tokens": (_is_count, "a whole number from 0"),
    "max_new_tokens": (lambda value: _is_count(value, 1), "a whole number from 1"),
    "eos_token_id": (_is_ids, "a token id or a list of them"),
}
"""Supported, if the value passes the check; the text says what is expected."""

NEUTRAL = {
    *("bos_token_id", "pad_token_id", "decoder_start_token_id"),  # the template brings the first, nothing is padded
    *("use_cache", "cache_config", "max_cache_len", "prefill_chunk_size", "low_memory"),
    *("compile_config", "disable_compile", "continuous_batching_config"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    *("renormalize_logits", "remove_invalid_values"),  # the likeliest and the distribution stay what they are
    # guesses that are checked against the model: faster, with the same answers
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
    *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "speculation_type", "use_mtp"),
    *("prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("transformers_version", "_from_model_config", "_commit_hash", "_name_or_path"),
}
"""No answer depends on these: speed, memory, extra outputs of `generate`, and which version wrote the file."""

OFF: dict[str, list[Any]] = {
    **{name: [1] for name in ("num_beams", "num_beam_groups", "num_return_sequences")},
    **{name: [0] for name in ("min_length", "diversity_penalty", "penalty_alpha")},
    **{name: [0] for name in ("encoder_no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff")},
    **{name: [1] for name in ("typical_p", "encoder_repetition_penalty", "length_penalty", "guidance_scale")},
    **{name: [False] for name in ("early_stopping", "token_healing")},
    **{name: [[]] for name in ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "stop_strings")},
    **{name: [[]] for name in ("constraints", "force_words_ids", "sequence_bias")},
    **{name: [] for name in ("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")},
    **{name: [] for name in ("top_h", "watermarking_config", "dola_layers", "assistant_ensemble_weight", "max_time")},
    "cache_implementation": ["dynamic", "static", "hybrid", "sliding_window", "offloaded", "offloaded_static"],
}
"""Not supported; the values, besides null, for which the setting has no effect. A quantized cache changes answers."""


def unsupported_settings(generation: dict[str, Any] | None, model: dict[str, Any]) -> list[str]:
    """List the settings that the server does not support; empty if the model can be served.

    Args:
        generation: content of generation_config.json; None if there is no such file, as transformers then reads the
            settings from config.json.
        model: content of config.json.

    Returns:
        For each setting one text with its value and, if known, what is expected.
    """
    nested = [model.get(name) for name in ("decoder", "generator", "text_config")]
    text: dict[str, Any] = next((config for config in nested if isinstance(config, dict)), {})
    if generation is None:
        known = SUPPORTED.keys() | OFF.keys() | {"max_length"}
        generation = {name: value for name, value in {**text, **model}.items() if name in known}
    context = next((both[name] for both in (text, model) for name in NAMES if _is_count(both.get(name))), None)
    complaints = [_complaint(name, value, context) for name, value in generation.items() if value is not None]
    if generation.get("do_sample") is True and generation.get("temperature") == 0:
        complaints.append("temperature=0 (expected above 0 where do_sample is true)")
    return [complaint for complaint in complaints if complaint]


def _complaint(name: str, value: Any, context: int | None) -> str | None:
    if name in SUPPORTED:
        fits, expected = SUPPORTED[name]
        return None if fits(value) else f"{_show(name, value)} (expected {expected})"
    if name == "max_length":  # of question and answer together
        if context is not None and _is_count(value, context):
            return None  # the context ends an answer before this limit does
        return f"{_show(name, value)} (expected max_new_tokens instead)"
    if name in NEUTRAL or (name in OFF and value in OFF[name]):
        return None
    return _show(name, value) if name in OFF else f"{_show(name, value)} (unknown setting)"


def _show(name: str, value: Any) -> str:
    written = repr(value)
    return f"{name}={written if len(written) <= 60 else written[:60] + '...'}"
