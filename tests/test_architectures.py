"""Tiny random models of many architectures: each is answered as transformers' own `generate` does, or refused.

Each model is loaded as the server loads it, and asked alone and in company, with prompts across the edges of the
cache's blocks, of the model's windows and of the pieces of a prompt. There is no third way.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from serve.engine import attention
from serve.engine.engine import Engine
from serve.engine.model import load
from serve.engine.request import Request

VOCABULARY = 96
LENGTHS = [1, 5, 30, 63, 64, 70, 103]
NEW = 6
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
FALCON = {name: value for name, value in SIZES.items() if name != "head_dim"}
ONE_HEAD_EACH = {"num_key_value_heads": 4}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MLA = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "moe_intermediate_size": 24, "head_dim": 8,
}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 120,
            "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT),
    "gpt2 with scaling by layer": ("gpt2", GPT | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neo": ("gpt_neo", {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 9,
        "max_position_embeddings": 160, "attention_types": [[["global", "local"], 1]],
    }),
    "gpt_neox": ("gpt_neox", SIZES),
    "gptj": ("gptj", GPT | {"rotary_dim": 4}),
    "codegen": ("codegen", GPT | {"rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", GPT),
    "llama": ("llama", SIZES),
    "llama 3 rope": ("llama", SIZES | {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}),
    "llama yarn": ("llama", SIZES | {"rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 40}}),
    "llama dynamic rope": ("llama", SIZES | {"rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 120}}),
    "mistral, window 8": ("mistral", SIZES | {"sliding_window": 8}),
    "mistral, window 64": ("mistral", SIZES | {"sliding_window": 64}),
    "mistral, window 100": ("mistral", SIZES | {"sliding_window": 100}),
    "mistral, no window": ("mistral", SIZES | {"sliding_window": None}),
    "mixtral": ("mixtral", SIZES | EXPERTS),
    "qwen2": ("qwen2", SIZES),
    "qwen2, some layers with a window": ("qwen2", SIZES | {
        "use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    "qwen2_moe": ("qwen2_moe", SIZES | EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3": ("qwen3", SIZES),
    "qwen3_moe": ("qwen3_moe", SIZES | EXPERTS),
    "gemma": ("gemma", SIZES),
    "gemma2": ("gemma2", SIZES | {"sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("gemma3_text", SIZES | {
        "sliding_window": 16, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi": ("phi", SIZES | ONE_HEAD_EACH),
    "phi3": ("phi3", SIZES),
    "phi3, window 10": ("phi3", SIZES | {"sliding_window": 10}),
    "phi3 longrope": ("phi3", SIZES | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 120}),
    "phimoe": ("phimoe", SIZES | EXPERTS),
    "falcon, alibi": ("falcon", FALCON | {"alibi": True, "multi_query": False}),
    "falcon, multi-query": ("falcon", FALCON | {"alibi": False, "multi_query": True}),
    "falcon, new decoder": ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "bloom": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {
        "vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 160}),
    "opt": ("opt", SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "openai-gpt": ("openai-gpt", GPT),
    "starcoder2": ("starcoder2", SIZES | {"sliding_window": 30}),
    "stablelm": ("stablelm", SIZES),
    "cohere": ("cohere", SIZES),
    "cohere2": ("cohere2", SIZES | {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}),
    "olmo": ("olmo", SIZES),
    "olmo2": ("olmo2", SIZES),
    "olmo3": ("olmo3", SIZES | {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}),
    "olmoe": ("olmoe", SIZES | EXPERTS),
    "granite": ("granite", SIZES | {"attention_multiplier": 0.3, "residual_multiplier": 0.8}),
    "granitemoe": ("granitemoe", SIZES | EXPERTS),
    "persimmon": ("persimmon", SIZES | ONE_HEAD_EACH),
    "xglm": ("xglm", {
        "vocab_size": VOCABULARY, "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4,
        "max_position_embeddings": 160}),
    "biogpt": ("biogpt", SIZES),
    "deepseek_v2": ("deepseek_v2", SIZES | MLA | ONE_HEAD_EACH | {"topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", SIZES | MLA | ONE_HEAD_EACH),
    "llama4_text": ("llama4_text", SIZES | {
        "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 24, "num_hidden_layers": 4}),
    "llama4_text without temperature": ("llama4_text", SIZES | {
        "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 24, "num_hidden_layers": 4,
        "attn_temperature_tuning": False}),
    "llama4_text, temperature from afar": ("llama4_text", SIZES | {
        "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": 24, "num_hidden_layers": 4,
        "no_rope_layers": [1, 0, 1, 0], "floor_scale": 130, "attn_scale": 2.0}),
    "gpt_oss": ("gpt_oss", SIZES | EXPERTS | {"sliding_window": 12, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0}}),
    "smollm3": ("smollm3", SIZES | {"no_rope_layers": [1, 0]}),
    "helium": ("helium", SIZES),
    "glm": ("glm", SIZES),
    "glm4": ("glm4", SIZES),
    "ernie4_5": ("ernie4_5", SIZES),
    "exaone4": ("exaone4", SIZES | {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", SIZES),
    "nemotron": ("nemotron", SIZES),
    "seed_oss": ("seed_oss", SIZES),
    "arcee": ("arcee", SIZES),
    "apertus": ("apertus", SIZES),
    "lfm2": ("lfm2", SIZES | {"layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}),
    "mamba2": ("mamba2", {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8}),
    "jamba": ("jamba", SIZES | EXPERTS | {"use_mamba_kernels": False}),
    "recurrent_gemma": ("recurrent_gemma", SIZES | {"num_hidden_layers": 3, "attention_window_size": 16}),
    "rwkv": ("rwkv", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 160}),
    "bert that decodes": ("bert", SIZES | {"is_decoder": True}),
    "bert that encodes": ("bert", SIZES),
    "roberta that decodes": ("roberta", SIZES | {"is_decoder": True, "pad_token_id": 1, "bos_token_id": 0}),
    "ctrl": ("ctrl", GPT | {"dff": 48}),
    "xlnet": ("xlnet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    "bart's decoder": ("bart", {
        "vocab_size": VOCABULARY, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48, "max_position_embeddings": 160}),
}  # fmt: skip

OWN = "its attention is custom code"
APART = {
    "gpt_neo": OWN, "gptj": OWN, "codegen": OWN, "falcon, alibi": OWN, "falcon, multi-query": OWN,
    "falcon, new decoder": OWN, "bloom": OWN, "mpt": OWN, "xglm": OWN, "gpt_oss": "s_aux", "gemma2": "softcap",
    "bart's decoder": "sees later tokens", "llama4_text": "the cache's length",
    "llama4_text, temperature from afar": "the cache's length",
}  # fmt: skip
"""Models that are served by the slow path, and the reason that the log gives."""
NO_CACHE = r"found \w+, which has no attention keys and values; .*"
STATE = r"found layers of kind LinearAttentionLayer, expected attention layers only; .*"
REFUSED = {
    "openai-gpt": NO_CACHE, "xlnet": NO_CACHE, "mamba": NO_CACHE, "mamba2": NO_CACHE, "rwkv": NO_CACHE,
    "lfm2": STATE, "jamba": STATE, "recurrent_gemma": STATE,
    "bert that encodes": r"the engine does not answer as .* generate does \(.* later tokens;.*\); publish .*",
}  # fmt: skip
"""Models that are refused, and the line that says so."""


def build(kind: str, settings: dict[str, Any], folder: Path) -> PreTrainedModel:
    """A random model whose layers weigh more than at its birth, so that what they do shows in the tokens."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    plain.generation_config = GenerationConfig(pad_token_id=0)
    return plain


def generated(plain: PreTrainedModel, request: Request) -> list[int]:
    ids = torch.tensor([request.prompt])
    output = plain.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_new_tokens, do_sample=False
    )  # fmt: skip
    return [int(token) for token in output[0, ids.shape[1] :]]


def answers(engine: Engine, requests: list[Request]) -> dict[str, list[int]]:
    made: dict[str, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        for token in engine.step():
            made[token.id].append(token.token)
    assert engine.failures() == []
    return made


def requests(context: int) -> list[Request]:
    torch.manual_seed(1)
    lengths = [length for length in LENGTHS if length + NEW <= context]
    return [
        Request(str(length), torch.randint(3, VOCABULARY, (length,)).tolist(), 2 * NEW if length < 9 else NEW)
        for length in lengths
    ]


def path_of(model: PreTrainedModel) -> str:
    return "batched" if model.config.get_text_config()._attn_implementation == attention.NAME else "single"


@pytest.mark.parametrize("name", MODELS)
def test_answers_equal_those_of_generate_or_the_model_is_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = build(*MODELS[name], tmp_path)
    own = plain.config.get_text_config()._attn_implementation
    try:
        model = load(tmp_path, "cpu", "float32", threads=1)
    except ValueError as error:
        assert name in REFUSED
        assert re.fullmatch(REFUSED[name], str(error))
        return
    assert path_of(model) == ("single" if name in APART else "batched")
    slower = [record.message for record in caplog.records if "each request is computed alone" in record.message]
    assert [APART[name] in message for message in slower] == [True] if name in APART else not slower
    model.generation_config = GenerationConfig(pad_token_id=0)
    engine = Engine(model, prefill_tokens=48)
    asked = requests(engine.limits.context)
    assert len(asked) == len(LENGTHS)
    expected = {request.id: generated(plain, request) for request in asked}
    assert answers(engine, asked) == expected
    alone = Engine(model, max_rows=1, prefill_tokens=48)
    for request in asked:
        assert answers(alone, [request]) == {request.id: expected[request.id]}
    model.set_attn_implementation(own)
    assert path_of(model) == "single"
    assert answers(Engine(model, prefill_tokens=48), asked) == expected
