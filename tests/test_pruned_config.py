"""What a configuration says of the kept blocks is what it said of them before, or it is refused."""

import pytest
import torch
from transformers import (
    AutoConfig,
    DeepseekV3Config,
    Ernie4_5_MoeConfig,
    Gemma3nTextConfig,
    GPTNeoConfig,
    JambaConfig,
    Lfm2MoeConfig,
    LlamaConfig,
    MiniCPM3Config,
    Qwen2Config,
    Qwen3MoeConfig,
    RecurrentGemmaConfig,
    SmolLM3Config,
)

from phaseprune.decoder import pruned_config as pruned_config_module
from phaseprune.decoder.per_block import cut_to_kept, positional_fields
from phaseprune.decoder.pruned_config import (
    export_limits,
    original_of,
    prune,
    pruned_config,
    read_original,
)
from phaseprune.decoder.skeleton import build_empty
from phaseprune.errors import UserError
from tiny_configs import tiny_config

SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
)
EXPERTS = dict(SMALL, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16)


def deepseek(blocks=8, **more):
    return DeepseekV3Config(
        **SMALL | {"num_key_value_heads": 4},
        num_hidden_layers=blocks,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=8,
        head_dim=4,
        **more,
    )


def test_lists_tables_and_patterns():
    values = {
        "layer_types": ["a", "b", "c", "d"],
        "no_rope_layers": [1, 1, 1, 0],
        "mlp_only_layers": [0, 3],
        "moe_layers": [0, 1, 2, 3],
        "full_attn_idxs": (1, 2),
        "per_layer_config": {"00": "first", "03": "last"},
        "by_number": {1: "one"},
        "attention_types": [[["global", "local"], 2]],
        "eos_token_id": [0, 1, 2, 3],
        "rope_parameters": {"long_factor": [1.0, 2.0, 3.0, 4.0]},
        "ffn_config": {"sizes": [10, 20, 30, 40], "other": 4},
        "id2label": {0: "LABEL_0", 1: "LABEL_1"},
        "hidden_size": 4,
        "empty": [],
    }
    assert cut_to_kept(values, 4, [1, 3]) == {
        "layer_types": ["b", "d"],
        "no_rope_layers": [1, 0],
        "mlp_only_layers": [1],
        "moe_layers": [0, 1],
        "full_attn_idxs": [0],
        "per_layer_config": {"01": "last"},
        "by_number": {0: "one"},
        "attention_types": [[["local", "local"], 1]],
        "eos_token_id": [0, 1, 2, 3],
        "rope_parameters": {"long_factor": [1.0, 2.0, 3.0, 4.0]},
        "ffn_config": {"sizes": [20, 40], "other": 4},
        "id2label": {0: "LABEL_0", 1: "LABEL_1"},
        "hidden_size": 4,
        "empty": [],
    }


@pytest.mark.slow
def test_a_count_from_the_start():
    config = deepseek(first_k_dense_replace=3)
    for kept, dense in (([0, 2, 4, 5], 2), ([3, 4], 0), ([0, 1, 2], 3), ([7], 0)):
        pruned = pruned_config(config, kept)
        assert pruned.num_hidden_layers == len(kept)
        model = build_empty(pruned)
        kinds = [hasattr(layer.mlp, "experts") for layer in model.model.layers]
        assert kinds == [False] * dense + [True] * (len(kept) - dense)
    assert config.first_k_dense_replace == 3 and config.num_hidden_layers == 8


def test_heads_that_predict_further_tokens_are_not_promised():
    config = deepseek(first_k_dense_replace=1, num_nextn_predict_layers=1, mtp_num_hidden_layers=1)
    pruned = pruned_config(config, [0, 2, 3])
    assert (pruned.num_nextn_predict_layers, pruned.mtp_num_hidden_layers) == (0, 0)


@pytest.mark.slow
def test_a_count_from_the_end():
    """The last blocks of Gemma 3n use the keys and values of earlier ones."""
    config = Gemma3nTextConfig(
        **SMALL | {"intermediate_size": [48] * 6},
        num_hidden_layers=6,
        head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 3,
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=64,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 6,
        sliding_window=8,
    )
    original = read_original(config)
    assert original.positional == ["num_kv_shared_layers"]
    for kept, shared in (([1, 2, 3, 4, 5], 2), ([0, 1, 2, 3, 4], 1), ([2, 3, 5], 1)):
        pruned = prune(original, kept)
        assert pruned.config.num_kv_shared_layers == shared
        assert pruned.config.layer_types == [config.layer_types[block] for block in kept]
        assert len(pruned.config.intermediate_size) == len(kept)
        # Embeddings outside the blocks hold a piece for each block.
        assert pruned.per_block == {
            "model.embed_tokens_per_layer.weight": 1,
            "model.per_layer_model_projection.weight": 0,
        }
    with pytest.raises(
        UserError, match="num_kv_shared_layers = 2.*of single blocks 0, 1, 4, 5 can"
    ):
        prune(original, [0, 1, 2, 5])  # without block 3, whose keys and values block 5 uses
    some, words = export_limits(original)
    assert some and "0, 1, 4, 5 can be removed" in words


@pytest.mark.slow
def test_a_period_becomes_a_list():
    config = Qwen3MoeConfig(
        **EXPERTS, num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3]
    )
    for kept in ([0, 2, 4, 5], [1, 3, 5], [1, 2], [5], [0, 1, 2, 3, 4]):
        layers = build_empty(pruned_config(config, kept)).model.layers
        assert [hasattr(b.mlp, "experts") for b in layers] == [block in (1, 5) for block in kept]
    assert export_limits(read_original(config)) == (True, None)


@pytest.mark.slow
def test_a_period_with_an_offset():
    config = JambaConfig(
        **SMALL,
        num_hidden_layers=8,
        attn_layer_period=4,
        attn_layer_offset=2,
        num_experts=4,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    )
    original = original_of(config, build_empty(config), "model.layers")
    assert len(original.positional) == 4
    pruned = prune(original, range(1, 8)).config  # the first is no attention and has no experts
    assert (pruned.attn_layer_offset, pruned.expert_layer_offset) == (1, 0)
    assert prune(original, range(4, 8)).config.attn_layer_offset == 2  # a whole period less
    with pytest.raises(UserError, match="attn_layer_period = 4.*of single blocks 0, 7 can"):
        prune(original, [0, 1, 2, 4, 5, 6, 7])


@pytest.mark.slow
def test_a_start_an_end_and_an_interval():
    config = Ernie4_5_MoeConfig(
        **SMALL,
        num_hidden_layers=6,
        moe_num_experts=2,
        moe_k=1,
        moe_intermediate_size=16,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
        moe_layer_end_index=4,
    )
    for kept in ([1, 2, 3], [0, 2, 4, 5], [0, 5], [2, 5]):
        layers = build_empty(pruned_config(config, kept)).model.layers
        assert [hasattr(b.mlp, "experts") for b in layers] == [1 <= block <= 4 for block in kept]


def test_a_repeated_pattern_is_written_out():
    config = RecurrentGemmaConfig(**SMALL, num_hidden_layers=6, head_dim=8)
    kinds = ["recurrent", "recurrent", "attention"] * 2
    pruned = pruned_config(config, [1, 2, 4, 5])
    assert list(pruned.block_types) == [kinds[1], kinds[2], kinds[4], kinds[5]]
    neo = GPTNeoConfig(
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        vocab_size=64,
        attention_types=[[["global", "local"], 2]],
    )
    assert pruned_config(neo, [1, 2]).attention_layers == ["local", "global"]


def test_flags_and_numbers_of_a_per_block_list():
    flags = [1, 0, 1, 1, 0, 1]
    config = SmolLM3Config(**SMALL, num_hidden_layers=6, no_rope_layers=flags, pad_token_id=0)
    assert pruned_config(config, [1, 2, 4]).no_rope_layers == [0, 1, 0]
    moe = Lfm2MoeConfig(
        **EXPERTS,
        num_hidden_layers=4,
        num_dense_layers=2,
        layer_types=["conv", "full_attention", "conv", "full_attention"],
    )
    assert pruned_config(moe, [1, 2, 3]).num_dense_layers == 1


def test_a_factor_that_contains_the_number_of_blocks():
    """Each block's output counts scale_depth / sqrt(blocks)."""
    config = MiniCPM3Config(
        **SMALL | {"num_key_value_heads": 4},
        num_hidden_layers=8,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=8,
        scale_depth=1.4,
    )
    assert pruned_config(config, [0, 3]).scale_depth == pytest.approx(0.7)


@pytest.mark.slow
def test_what_no_field_can_say_is_refused():
    """DiffLlama computes a factor from the block's number."""
    original = read_original(tiny_config("diffllama"))
    with pytest.raises(
        UserError, match="lambda_init of block 1 would be .* blocks 5 can be removed"
    ):
        prune(original, range(1, 6))
    assert export_limits(original)[0]
    prune(original, range(5))


def test_window_fields_that_a_list_overrides():
    sizes = SMALL | {"num_hidden_layers": 4}
    windows = Qwen2Config(**sizes, use_sliding_window=True, sliding_window=4, max_window_layers=2)
    kept = pruned_config(windows, [0, 3])
    assert kept.layer_types == [windows.layer_types[0], windows.layer_types[3]]
    assert kept.layer_types[0] != kept.layer_types[1]


@pytest.mark.parametrize("family", ["fuyu", "gemma3", "emu3", "qwen3_5"])
def test_the_blocks_of_a_nested_configuration(family):
    config = tiny_config(family)
    text = config.get_text_config(decoder=True)
    original = read_original(config)
    pruned = prune(original, [1, 2, 5]).config
    inner = pruned.get_text_config(decoder=True)
    assert inner.num_hidden_layers == 3 and text.num_hidden_layers == 6
    if getattr(text, "layer_types", None):
        assert inner.layer_types == [text.layer_types[block] for block in (1, 2, 5)]
    vision = getattr(pruned, "vision_config", None)
    if vision is not None:
        assert vision.to_dict() == config.vision_config.to_dict()


@pytest.mark.slow
def test_a_large_model_is_judged_by_building_it_a_few_times(monkeypatch):
    """Each time takes a tenth of a second or so, and all single blocks would be 61 times."""
    built = []
    build = pruned_config_module.build_empty
    monkeypatch.setattr(
        pruned_config_module, "build_empty", lambda config: built.append(1) or build(config)
    )
    config = DeepseekV3Config()  # 61 blocks, 671B parameters
    original = read_original(config)
    assert export_limits(original) == (True, None)
    assert len(built) <= 30
    assert prune(original, range(0, 61, 2)).config.first_k_dense_replace == 2


def test_fields_that_only_look_like_counts_are_left_alone():
    config = LlamaConfig(**SMALL, num_hidden_layers=4)
    original = read_original(config)
    assert original.positional == [] and export_limits(original) == (True, None)
    assert positional_fields({"a": 1, "b": [0, 1]}, 4, lambda values: False) == []
    single = LlamaConfig(**SMALL, num_hidden_layers=1)
    assert export_limits(read_original(single)) == (False, "its only block cannot be removed")


def test_the_dtype_and_the_rest_stay(tmp_path):
    config = LlamaConfig(**SMALL, num_hidden_layers=4, dtype="bfloat16", rope_theta=5e5)
    pruned = pruned_config(config, [0, 3])
    pruned.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16
    changed = {k for k, v in again.to_dict().items() if v != config.to_dict().get(k)}
    assert changed == {"num_hidden_layers", "_name_or_path"}
