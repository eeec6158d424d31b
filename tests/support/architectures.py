"""Tiny random models of many architectures."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from serve.engine import attention

VOCABULARY = 96
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


def path_of(model: PreTrainedModel) -> str:
    return "batched" if model.config.get_text_config()._attn_implementation == attention.NAME else "single"
