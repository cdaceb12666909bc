"""A tiny configuration of every causal language model that transformers has, made by shrinking.

Sizes are recognised by the names of their fields; what that leaves inconsistent stands in
``OVERRIDES``, by ``model_type``. For tests and ``benchmarks/families.py``; the product knows no
family.
"""

from __future__ import annotations

from typing import Any

BLOCKS = 6
VOCABULARY = 320

#: Field -> tiny value, wherever a configuration (or a part of one) has the field. Of sparse
#: attention's indexer the heads stay many: a score is a sum of rectified products, and with two
#: heads most are exactly 0, so that what is chosen hangs on the order of equal values.
SMALL: dict[str, Any] = {
    # blocks
    "num_hidden_layers": BLOCKS,
    "n_layer": BLOCKS,
    "n_layers": BLOCKS,
    "num_layers": BLOCKS,
    "decoder_layers": BLOCKS,
    "encoder_layers": BLOCKS,
    "num_encoder_layers": 1,
    "num_decoder_layers": BLOCKS,
    "num_blocks": BLOCKS,
    # width
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embedding_dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "input_embedding_size": 16,
    "output_embedding_size": 48,
    "hidden_size_per_layer_input": 8,
    "lru_width": 32,
    "attention_hidden_size": 32,
    # MLP
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "ffn_hidden_size": 48,
    "expert_ffn_hidden_size": 16,
    "dff": 48,
    "dim_ff": 48,
    "d_inner": 48,
    "feed_forward_size": 48,
    "n_inner": 48,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "shared_experts_intermediate_size": 16,
    "intermediate_size_mlp": 48,
    "dense_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 16,
    # heads
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "attention_heads": 4,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 8,
    "dim_head": 8,
    "d_head": 8,
    "kv_channels": 8,
    "global_head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "qk_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "index_head_dim": 8,
    "index_n_heads": 16,
    "index_topk": 8,
    "rotary_dim": 4,
    "num_global_key_value_heads": 2,
    # experts
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "zero_expert_num": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "router_hidden_size": 16,
    # state-space and linear attention
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_dt_rank": 4,
    "mamba_chunk_size": 8,
    "state_size": 8,
    "time_step_rank": 4,
    "ssm_state_size": 8,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "chunk_size": 8,
    # positions and windows
    "max_position_embeddings": 256,
    "n_positions": 256,
    "n_ctx": 256,
    "max_seq_len": 256,
    "context_length": 256,
    "sliding_window": 16,
    "window_size": 16,
    "sliding_window_size": 16,
    "attention_chunk_size": 16,
    "attention_window_size": 16,
    "local_attention": 16,
    "original_max_position_embeddings": 256,
    "rel_extent": 32,
    # other
    "vocab_size": VOCABULARY,
    "unpadded_vocab_size": VOCABULARY,
    "n_vocab": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "laurel_rank": 8,
    "query_pre_attn_scalar": 8,
    "block_multiple_of": 8,
    "prompt_length": 4,
    "prompt_mid_dim": 16,
    "shape_embed_dim": 16,
    "pronunciation_embed_dim": 16,
    "shape_vocab_size": 16,
    "pronunciation_vocab_size": 16,
    "type_vocab_size": 2,
    "adapter_rank": 8,
    "gated_norm_rank": 8,
    "d_rel": 4,
    "ple_embed_dim": 8,
    "ngram_vocab_size_base": 64,
    "make_ngram_vocab_size_divisible_by": 8,
    "hc_lowrank": 8,
    "ffn_round_up_to_multiple_of": 8,
    "dim_model_base": 16,
}

#: What shrinking by name leaves inconsistent.
_GEMMA4 = {"head_dim": 8, "global_head_dim": 8}
_QWEN4 = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
_MIXED = ["sliding_attention", "full_attention"] * 3
_HYBRID = ["linear_attention", "hybrid"] * 3
_DOTS3 = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 4,
    "qk_nope_head_dim": 4,
}
OVERRIDES: dict[str, dict[str, Any]] = {
    **{family: {"head_dim": 4} for family in ("axk1", "deepseek_v3", "longcat_flash", "youtu")},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            }
        }
    },
    "dots3_note_text": {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "kv_lora_rank": 8,
        "head_dim": 8,
        "qk_nope_head_dim": 4,
        "per_layer_config": {f"{block:02}": _DOTS3 for block in (2, 3, 4)},
    },
    "bamba": {"attn_layer_indices": [1, 4]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 3},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 3, "full_attn_idxs": None},
    "dots3_note_vision_encoder": {
        "pyramid_num_routed": [-1] * 3 + [4] * 3,
        "adapter_in_dim": 32,
        "adapter_out_dim": 32,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_shared_experts": 1,
    },
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": _MIXED},
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 3},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron_h": {
        "layer_types": [
            "linear_attention",
            "moe",
            "full_attention",
            "mlp",
            "linear_attention",
            "full_attention",
        ]
    },
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": _QWEN4,
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"] * 3,
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16],
    },
    "rwkv": {"rescale_every": 3},  # as with real sizes: states are halved between blocks
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},  # its widths are rounded up to 64
    "xlm": {"emb_dim": 32, "causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {"layers_block_type": _HYBRID, "attention_hidden_size": 64, "attention_head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str):
    """A tiny configuration of a family, with ``BLOCKS`` blocks."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[model_type], model_type)


def _shrunk(cls, model_type: str):
    default = cls()
    values = {name: small for name, small in SMALL.items() if _has(default, name)}
    for token in (
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "start_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "image_token_id",
        "forced_eos_token_id",
        "cls_token_id",
        "eod_token_id",
        "mask_token_id",
    ):
        value = getattr(default, token, None)
        if isinstance(value, int) and value >= VOCABULARY or isinstance(value, list):
            values[token] = 1
    for name in default.to_dict():
        part = getattr(default, name, None) if name.endswith("_config") else None
        if hasattr(part, "to_dict"):
            values[name] = _shrunk(type(part), part.model_type).to_dict()
    if "kv_lora_rank" in values:  # latent attention has a key of its own for each head
        values["num_key_value_heads"] = values["num_attention_heads"]
    if default.to_dict().get("is_decoder") is False:
        values["is_decoder"] = True
    values |= OVERRIDES.get(model_type, {})
    return cls(**values)


def _has(config, name: str) -> bool:
    if config.attribute_map.get(name) or isinstance(getattr(type(config), name, None), property):
        return False
    try:
        value = getattr(config, name, None)
    except Exception:  # noqa: BLE001 - differs from block to block
        return False
    return isinstance(value, int) and not isinstance(value, bool)
