"""The fields that serving engines read are in an export, with the values of the kept blocks.

The engines were read, not run: docs/export.md says which of their sources.
"""

import pytest

from test_stated_config import HUB, LLAMA3, SIZES, edited

#: Family -> what vLLM, SGLang or TGI take from its configuration, of a file of ``HUB`` without
#: blocks 1 and 4 of six.
READ = {
    "llama": {
        "num_hidden_layers": 4,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3,
        "torch_dtype": "bfloat16",
        "architectures": ["LlamaForCausalLM"],
    },
    "qwen2": {
        "num_hidden_layers": 4,
        "rope_theta": 1e6,
        "sliding_window": 8,
        "use_sliding_window": True,
        "max_window_layers": 2,
    },
    "gemma3_text": {
        "num_hidden_layers": 4,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "nemotron_h": {"num_hidden_layers": 4, "hybrid_override_pattern": "MM*M"},
    "deepseek_v3": {"num_hidden_layers": 4, "first_k_dense_replace": 1, "moe_layer_freq": 1},
}
#: Of files that are not among ``HUB``: what they state of the family, and what must be read.
OTHERS = {
    "gpt_neox": ({"rotary_pct": 0.25, "rotary_emb_base": 20000}, {"num_hidden_layers": 4}),
    "stablelm": ({"partial_rotary_factor": 0.25, "rope_theta": 1e4}, {"num_hidden_layers": 4}),
    "cohere2": (
        {"sliding_window": 8, "sliding_window_pattern": 2, "rope_theta": 5e4},
        {
            "num_hidden_layers": 4,
            "sliding_window_pattern": None,
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2,
        },
    ),
    "gpt_oss": (
        {
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "sliding_window": 8,
            "rope_theta": 150000.0,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        },
        {"num_hidden_layers": 4, "layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2},
    ),
}


@pytest.mark.parametrize("family", READ)
def test_what_is_read_of_files_of_the_hub(family):
    stated = SIZES | HUB[family][0]
    found = edited(stated, [0, 2, 3, 5])
    assert {name: found.get(name) for name in READ[family]} == READ[family]


@pytest.mark.parametrize("family", OTHERS)
def test_what_is_read_keeps_its_names(family):
    stated, changed = OTHERS[family]
    sizes = {name: v for name, v in SIZES.items() if name != "num_key_value_heads"}
    whole = sizes | {"model_type": family, "num_hidden_layers": 6} | stated
    found = edited(whole, [0, 2, 3, 5])
    assert {name: found.get(name) for name in stated | changed} == stated | changed
    assert "rope_parameters" not in found
