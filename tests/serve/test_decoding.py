"""Published decoding settings: carried out, without effect, or a refusal that names them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from served import Served, httpx2
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from serve.decoding import NEUTRAL, OFF, SUPPORTED, unsupported_settings
from serve.repository import Decoding, Refused, decoding, find

REFUSED: list[tuple[str, Any]] = [
    ("num_beams", 4),
    ("num_beams", 0),
    ("num_beam_groups", 2),
    ("num_return_sequences", 2),
    ("diversity_penalty", 0.5),
    ("length_penalty", 2.0),
    ("early_stopping", True),
    ("penalty_alpha", 0.6),
    ("min_length", 1),
    ("min_new_tokens", -1),
    ("min_new_tokens", 2.5),
    ("max_length", 64),
    ("max_length", 20),
    ("max_time", 1.0),
    ("stop_strings", ["."]),
    ("stop_strings", "."),
    ("forced_bos_token_id", 0),
    ("forced_bos_token_id", 1),
    ("forced_eos_token_id", 0),
    ("forced_eos_token_id", [1]),
    ("bad_words_ids", [[5]]),
    ("suppress_tokens", [5]),
    ("begin_suppress_tokens", [5]),
    ("sequence_bias", [[[5], -1.0]]),
    ("force_words_ids", [[5]]),
    ("exponential_decay_length_penalty", [5, 1.1]),
    ("encoder_repetition_penalty", 1.2),
    ("encoder_no_repeat_ngram_size", 2),
    ("top_h", 0.4),
    ("typical_p", 0.9),
    ("epsilon_cutoff", 3e-4),
    ("eta_cutoff", 3e-4),
    ("guidance_scale", 1.5),
    ("watermarking_config", {"bias": 2.5}),
    ("dola_layers", "low"),
    ("token_healing", True),
    ("assistant_ensemble_weight", 0.5),
    ("cache_implementation", "quantized"),
    ("a_setting_of_next_year", 3),
    ("temprature", 0.5),
    ("temperature", -1),
    ("temperature", "hot"),
    ("temperature", float("nan")),
    ("top_k", -5),
    ("top_k", 2.5),
    ("top_p", 0),
    ("top_p", 1.5),
    ("min_p", 2),
    ("do_sample", "yes"),
    ("repetition_penalty", 0),
    ("no_repeat_ngram_size", "2"),
    ("max_new_tokens", 0),
    ("max_new_tokens", "12"),
    ("eos_token_id", -1),
    ("eos_token_id", []),
    ("eos_token_id", "<end>"),
]
ACCEPTED: list[dict[str, Any]] = [
    {"num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "length_penalty": 1.0, "early_stopping": False},
    {"min_new_tokens": None, "forced_bos_token_id": None, "top_h": None, "max_length": None, "a_new_one": None},
    {"min_new_tokens": 5, "max_new_tokens": 3},  # as much as there may be
    {"min_length": 0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "bad_words_ids": []},
    {"cache_implementation": "hybrid", "use_cache": True, "compile_config": {"mode": "default"}},
    {"max_length": 128},  # the context, which ends an answer anyway
    {"max_length": 4096, "max_new_tokens": None},
    {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 2},
    {"do_sample": False, "temperature": 0, "top_k": 0},
    {"eos_token_id": [0, 3], "pad_token_id": 0, "bos_token_id": 0, "transformers_version": "4.30.0"},
    {"prompt_lookup_num_tokens": 10, "num_assistant_tokens": 5, "output_scores": True, "renormalize_logits": True},
]


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "model"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{name}={value}" for name, value in REFUSED])
def test_an_unsupported_setting_is_refused_by_name(name: str, value: object, folder: Path) -> None:
    edit(folder / "generation_config.json", **{name: value})
    with pytest.raises(Refused, match=re.escape(f"generation_config.json asks for {name}=")) as refused:
        find(str(folder), None)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("settings", ACCEPTED, ids=str)
def test_supported_settings_and_those_without_effect_are_served(settings: dict[str, Any], folder: Path) -> None:
    edit(folder / "generation_config.json", **settings)
    assert find(str(folder), None).folder == folder


def test_sampling_at_temperature_0_is_refused_as_transformers_does(folder: Path) -> None:
    edit(folder / "generation_config.json", do_sample=True, temperature=0.0)
    with pytest.raises(Refused, match="temperature=0 .expected above 0 where do_sample is true"):
        find(str(folder), None)


def test_all_unsupported_settings_are_named_at_once(folder: Path) -> None:
    edit(folder / "generation_config.json", num_beams=4, top_h=0.5, top_p=3)
    with pytest.raises(Refused, match=r"num_beams=4, top_h=0\.5, top_p=3 \(expected"):
        find(str(folder), None)


def test_every_setting_of_transformers_is_classified() -> None:
    known = set(vars(GenerationConfig())) | set(GenerationConfig._get_default_generation_params())
    assert known - SUPPORTED.keys() - OFF.keys() - NEUTRAL == {"max_length"}
    assert not SUPPORTED.keys() & OFF.keys()
    assert not NEUTRAL & (SUPPORTED.keys() | OFF.keys())


def test_transformers_own_defaults_are_served() -> None:
    defaults = {**GenerationConfig._get_default_generation_params(), "max_length": None}
    assert unsupported_settings(defaults, {"n_positions": 1024}) == []
    assert unsupported_settings(GenerationConfig().to_dict(), {"n_positions": 1024}) == []


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "in text_config"])
def test_without_generation_config_the_settings_of_config_json_count(folder: Path, nested: bool) -> None:
    (folder / "generation_config.json").unlink()
    path = folder / "config.json"
    edit(path, eos_token_id=0)
    assert find(str(folder), None).folder == folder
    edit(path, **({"text_config": {"num_beams": 4}} if nested else {"num_beams": 4}))
    with pytest.raises(Refused, match=r"config.json asks for num_beams=4"):
        find(str(folder), None)


def test_a_published_min_p_is_applied(folder: Path) -> None:
    """Of 1: only the likeliest token is left, whatever the temperature."""
    edit(folder / "generation_config.json", do_sample=True, temperature=5.0, top_k=0, min_p=1.0)
    assert decoding(folder) == Decoding(12, 5.0, 1.0, 0, 1.0)
    with Served(folder) as server:
        asked = {"question": "What is 3 plus 3?", "seed": 1}
        assert httpx2.post(f"{server.url}/predict", json=asked, timeout=30).json()["answer"] == "3 plus 3 is 6."


@pytest.mark.parametrize("least, most", [(10, 12), (12, 12), (20, 12), (3, 12)])
def test_a_published_min_new_tokens_is_applied_as_in_generate(folder: Path, least: int, most: int) -> None:
    """The model ends this answer after seven tokens."""
    edit(folder / "generation_config.json", min_new_tokens=least, max_new_tokens=most)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "What is 3 plus 3?"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    prompt = torch.tensor([tokenizer(text)["input_ids"]])
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt))[0, prompt.shape[1] :]
    with Served(folder, "--dtype", "float32") as server:
        answer = httpx2.post(f"{server.url}/predict", json={"question": "What is 3 plus 3?"}, timeout=30).json()
        assert answer["answer"] == tokenizer.decode(made, skip_special_tokens=True)
        assert answer["usage"]["completion_tokens"] == len(made) == (7 if least == 3 else 12)
        short = httpx2.post(
            f"{server.url}/predict", json={"question": "What is 3 plus 3?", "max_new_tokens": 2}, timeout=30
        ).json()
        assert (short["usage"]["completion_tokens"], short["finish_reason"]) == (2, "length")
        zero = {"messages": chat, "min_tokens": 0}
        asked = httpx2.post(f"{server.url}/v1/chat/completions", json=zero, timeout=30).json()
        assert asked["usage"]["completion_tokens"] == 7
