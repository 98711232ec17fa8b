"""Tiny configurations of all types with which transformers classifies texts."""

from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

VOCABULARY = 64
PAD = 1
SIZES = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "hidden_size": 16,
    "embedding_size": 16,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "head_dim": 8,
    "d_head": 8,
    "d_kv": 8,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "ffn_dim": 24,
    "d_inner": 24,
    "d_ff": 24,
    "n_inner": 24,
    "dff": 24,
    "word_embed_proj_dim": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 40,
}
_LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
# Values that depend on each other, which their names do not show.
OWN: dict[str, dict[str, Any]] = {
    "axk1": {**_LATENT, "n_group": 1, "topk_group": 1},
    "axk2": _LATENT,
    "cohere_compass_text": {
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "funnel": {"block_sizes": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "luke": {"entity_vocab_size": 8},
    "mistral4": {**_LATENT, "head_dim": 16},
    "minicpm3": _LATENT,
    "qwen3_next": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "roc_bert": {"shape_vocab_size": 8, "pronunciation_vocab_size": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layer_types": ["mamba", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "hybrid_layer_ids": [1, 2],
        "num_hidden_layers": 3,
    },
}


def types() -> list[str]:
    """Return the types that the installed transformers classifies texts with."""
    return sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)


def tiny_config(model_type: str) -> PretrainedConfig:
    """Return a configuration with few channels, layers and tokens."""
    default = AutoConfig.for_model(model_type)
    return AutoConfig.for_model(model_type, **_sizes(default) | OWN.get(model_type, {}))


def _sizes(default: PretrainedConfig) -> dict[str, Any]:
    known = default.to_dict()
    named = {default.attribute_map.get(name, name): value for name, value in SIZES.items()}
    values: dict[str, Any] = {n: value for n, value in named.items() if n in known}
    for part in default.sub_configs:
        inner = getattr(default, part, None)
        if isinstance(inner, PretrainedConfig):
            values[part] = {"model_type": inner.model_type, **_sizes(inner)}
    return values
