"""An export's config.json is the source's own, edited; what stands beside the weights is copied."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conftest import CONFIGS, make_tokenizer, save_tiny
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.pruned_config import prune, read_original
from phaseprune.decoder.stated_config import edited_config
from test_export_formats import write_llama_gguf

SIZES = dict(
    vocab_size=320,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    transformers_version="4.44.2",
    torch_dtype="bfloat16",
)
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_type": "llama3",
}
#: Files of the hub in small, and what of each must change without blocks 1 and 4 of six.
HUB: dict[str, tuple[dict, dict]] = {
    "llama": (
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "rope_theta": 500000.0,
            "rope_scaling": LLAMA3,
            "num_hidden_layers": 6,
        },
        {"num_hidden_layers": 4},
    ),
    "qwen2": (
        {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "max_window_layers": 3,
            "sliding_window": 8,
            "use_sliding_window": True,
            "rope_theta": 1e6,
            "num_hidden_layers": 6,
        },
        {"num_hidden_layers": 4, "max_window_layers": 2},
    ),
    "qwen2 without windows": (
        {
            "model_type": "qwen2",
            "max_window_layers": 6,
            "use_sliding_window": False,
            "num_hidden_layers": 6,
        },
        {"num_hidden_layers": 4, "max_window_layers": 4},
    ),
    "gemma3_text": (
        {
            "model_type": "gemma3_text",
            "head_dim": 8,
            "sliding_window": 8,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window_pattern": 3,
            "num_hidden_layers": 6,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
        {
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window_pattern": 2,
        },
    ),
    "smollm3": (
        {
            "model_type": "smollm3",
            "no_rope_layers": [1, 1, 1, 0, 1, 1],
            "rope_theta": 2e6,
            "pad_token_id": 0,
            "num_hidden_layers": 6,
        },
        {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 0, 1]},
    ),
    "nemotron_h": (
        {
            "model_type": "nemotron_h",
            "hybrid_override_pattern": "M-M*-M",
            "num_hidden_layers": 6,
            "head_dim": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
        {"num_hidden_layers": 4, "hybrid_override_pattern": "MM*M"},
    ),
    "gpt2": (
        {
            "model_type": "gpt2",
            "n_layer": 6,
            "n_head": 4,
            "n_embd": 32,
            "n_ctx": 64,
            "n_positions": 64,
            "task_specific_params": {"text-generation": {"max_length": 50}},
        },
        {"n_layer": 4},
    ),
    "deepseek_v3": (
        {
            "model_type": "deepseek_v3",
            "first_k_dense_replace": 2,
            "num_hidden_layers": 6,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "num_key_value_heads": 4,
            "moe_layer_freq": 1,
            "num_nextn_predict_layers": 0,
        },
        {"num_hidden_layers": 4, "first_k_dense_replace": 1},
    ),
}


def edited(stated: dict, kept: list[int], dtype: str = "bfloat16") -> dict:
    values = copy.deepcopy(stated)  # transformers writes into what it is given
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    original = read_original(config)
    pruned = prune(original, kept).config
    return edited_config(stated, original, pruned, kept, architecture="Any", dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", HUB)
def test_only_what_pruning_changes_is_changed(name):
    stated, changes = HUB[name]
    stated = SIZES | stated
    if stated["model_type"] == "gpt2":
        stated = {
            k: v
            for k, v in stated.items()
            if k
            not in (
                "hidden_size",
                "intermediate_size",
                "num_key_value_heads",
                "num_attention_heads",
                "max_position_embeddings",
            )
        }
    stated.setdefault("architectures", ["AnyForCausalLM"])
    assert edited(stated, [0, 2, 3, 5]) == stated | changes


KINDS = {"s": "sliding_attention", "f": "full_attention", "l": "linear_attention"}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "head_dim": 16}
#: Family -> what a file has beside the list that says what each of six blocks is.
PERIODS = {
    "gemma3_text": ("ssfssf", {"sliding_window_pattern": 3, "_sliding_window_pattern": 3}),
    "cohere2": ("ssfssf", {"sliding_window_pattern": 3}),
    "exaone4": ("ssfssf", {"sliding_window_pattern": 3}),
    "qwen3_5_text": ("llfllf", {"full_attention_interval": 3, **LINEAR}),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", PERIODS)
@pytest.mark.parametrize(
    ("kept", "period"),
    [
        ([0, 1, 2, 5], None),
        ([0, 2, 3, 5], 2),
        ([0, 1, 2, 3, 4, 5], 3),
        ([2, 3, 4, 5], None),
        ([0, 1, 5], 3),
        ([2, 5], 1),
    ],
    ids=str,
)
def test_a_period_beside_a_list_is_true_or_gone(family, kept, period):
    kinds, more = PERIODS[family]
    kinds = [KINDS[kind] for kind in kinds]
    stated = (
        SIZES
        | {"model_type": family, "num_hidden_layers": 6, "sliding_window": 8, "layer_types": kinds}
        | more
    )
    found = edited(stated, kept)
    assert found["layer_types"] == [kinds[block] for block in kept]
    periods = [key for key in more if key not in LINEAR]
    assert {key: found.get(key) for key in periods} == dict.fromkeys(periods, period)
    assert {key: found[key] for key in LINEAR if key in more} == {
        key: value for key, value in LINEAR.items() if key in more
    }


def test_a_period_in_letters_is_written_out_where_the_blocks_leave_it():
    stated = SIZES | {
        "model_type": "exaone4",
        "num_hidden_layers": 6,
        "sliding_window": 8,
        "layer_types": ["sliding_attention"] * 2
        + ["full_attention"]
        + ["sliding_attention"] * 2
        + ["full_attention"],
    }
    stated["sliding_window_pattern"] = "LLG"
    assert edited(stated, [0, 2, 3, 5])["sliding_window_pattern"] == "LGLG"
    assert edited(stated, [0, 1, 5])["sliding_window_pattern"] == "LLG"


def test_a_period_is_left_where_it_alone_says_what_the_blocks_are():
    stated = SIZES | HUB["gemma3_text"][0]
    found = edited(stated, [0, 1, 5])
    assert found["sliding_window_pattern"] == 3 and "layer_types" not in found


def test_the_number_of_blocks_in_words_that_transformers_does_not_read():
    stated = SIZES | HUB["llama"][0] | {"num_layers": 6, "n_layers": 6, "layers_of_rust": 6}
    found = edited(stated, [0, 5])
    assert (found["num_layers"], found["n_layers"], found["layers_of_rust"]) == (2, 2, 6)
    assert found["rope_scaling"] == LLAMA3 and "rope_parameters" not in found


def test_the_dtype_is_stated_under_the_sources_name():
    stated = SIZES | HUB["llama"][0]
    found = edited(stated, [0, 5], "float32")
    assert found["torch_dtype"] == "float32" and "dtype" not in found


def test_a_nested_file_and_what_it_says_twice():
    text = {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "sliding_window": 8,
        "num_hidden_layers": 6,
        "sliding_window_pattern": 3,
    }
    sizes = {name: v for name, v in SIZES.items() if name not in ("torch_dtype", "bos_token_id")}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    vision["model_type"] = "siglip_vision_model"
    stated = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0",
        "num_hidden_layers": 6,
        "text_config": sizes | text,
        "vision_config": vision,
    }
    found = edited(stated, [0, 2, 3, 5])
    types = ["sliding_attention", "full_attention"] * 2
    changed = {"num_hidden_layers": 4, "layer_types": types, "sliding_window_pattern": 2}
    assert found == stated | {
        "num_hidden_layers": 4,
        "text_config": stated["text_config"] | changed,
    }


def rewrite_config(folder, **changes):
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | changes))


def test_files_are_copied_byte_for_byte(tmp_path):
    source = save_tiny(tmp_path / "m")
    stated = json.loads((source / "tokenizer_config.json").read_text())
    stated |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}
    (source / "tokenizer_config.json").write_text(json.dumps(stated, indent=3))
    given = {
        "tokenizer.model": b"\x00sentencepiece",
        "vocab.json": b'{"a": 0}',
        "merges.txt": b"a b\n",
        "special_tokens_map.json": b'{"eos_token": "<eos>"}',
        "added_tokens.json": b"{}",
        "LICENSE": b"may be used",
        "NOTICE.txt": b"by somebody",
        "USE_POLICY.md": b"for good",
        "chat_template.jinja": b"{{ messages[0].content }}",
        "generation_config.json": b'{"eos_token_id":[0],  "temperature":0.6,"do_sample":true}',
    }
    for name, content in given.items():
        (source / name).write_bytes(content)
    (source / "pytorch_model.bin.index.json").write_bytes(b"{}")
    export(load_model(str(source)), [1], tmp_path / "out")
    for name in [*given, "tokenizer.json", "tokenizer_config.json"]:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes(), name
    assert not (tmp_path / "out/pytorch_model.bin.index.json").exists()


def test_a_tokenizer_that_its_files_do_not_give_is_saved(tmp_path):
    decoder = load_model(str(save_tiny(tmp_path / "m")))
    (tmp_path / "m/tokenizer.json").unlink()
    export(decoder, [1], tmp_path / "out")
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("What is snow").input_ids == decoder.tokenizer("What is snow").input_ids
    stated = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert stated["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_from_gguf_both_dialects(tmp_path):
    export(load_model(str(write_llama_gguf(tmp_path / "t.gguf", "F16"))), [1], tmp_path / "out")
    stated = json.loads((tmp_path / "out/config.json").read_text())
    assert stated["rope_theta"] == stated["rope_parameters"]["rope_theta"] == 10000.0
    assert stated["torch_dtype"] == stated["dtype"] == "float32"
    assert stated["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in stated and "TokenizersBackend" not in "".join(
        path.read_text() for path in (tmp_path / "out").glob("*.json")
    )


def test_a_head_of_its_own_is_said_to_be_one(tmp_path):
    """Older programs tie where the file says so, whatever weights it holds."""
    source = save_tiny(tmp_path / "m", "qwen3")
    rewrite_config(source, tie_word_embeddings=True)
    decoder = load_model(str(source))
    assert "lm_head.weight" in load_file(source / "model.safetensors")
    export(decoder, [1], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


def test_a_tied_head_stays_so(tmp_path):
    source = save_tiny(tmp_path / "m")
    export(load_model(str(source)), [1], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True


def test_code_that_is_not_there_is_not_promised(tmp_path):
    source = save_tiny(tmp_path / "m")
    rewrite_config(source, auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    export(load_model(str(source)), [1], tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out/config.json").read_text())
    (source / "configuration_own.py").write_text("class OwnConfig: pass\n")
    export(load_model(str(source)), [1], tmp_path / "with")
    assert (tmp_path / "with/configuration_own.py").is_file()
    assert "auto_map" in json.loads((tmp_path / "with/config.json").read_text())


def test_the_model_saved_by_transformers_5_speaks_both(tmp_path):
    config = CONFIGS["llama"]()
    config.rope_parameters = LLAMA3 | {"rope_theta": 500000.0}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    make_tokenizer().save_pretrained(tmp_path / "m")
    export(load_model(str(tmp_path / "m")), [1], tmp_path / "out")
    stated = json.loads((tmp_path / "out/config.json").read_text())
    assert stated["rope_parameters"] == LLAMA3 | {"rope_theta": 500000.0}
    assert (stated["rope_theta"], stated["rope_scaling"]) == (500000.0, LLAMA3)


def test_a_stored_head_that_equals_the_embeddings_stays_tied(tmp_path):
    source = save_tiny(tmp_path / "m")
    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    export(load_model(str(source)), [1], tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
