"""Tiny models in the words of transformers 4.57, written and read by it alone.

Run by the Python of ``.venv-interop`` (``make interop``), which has no phaseprune:

    python old_models.py write FOLDER             one checkpoint a family, as 4.57 saves it
    python old_models.py read FOLDER... --out F   logits and token ids of checkpoints, into an npz
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

VOCABULARY, BLOCKS, TOKENS = 320, 6, 48
SIZES = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=BLOCKS, num_attention_heads=4)
EIGHT, TWELVE = {"num_hidden_layers": 8}, {"num_hidden_layers": 12}
ROPE = dict(SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.2, 1.5, 2.0],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
}
EXPERTS = dict(
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    moe_intermediate_size=16,
    kv_lora_rank=8,
    qk_nope_head_dim=4,
    qk_rope_head_dim=4,
    v_head_dim=8,
    num_key_value_heads=4,
    n_shared_experts=1,
)
DEEPSEEK_YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 0.7,
    "mscale_all_dim": 0.7,
    "beta_fast": 32,
    "beta_slow": 1,
}

#: Name -> (configuration class, its arguments, what is then written otherwise into config.json, as
#: files of the hub have it). None as a value takes the key out.
FAMILIES: dict[str, tuple] = {
    "llama3": (
        "Llama",
        dict(ROPE, rope_theta=500000.0, rope_scaling=LLAMA3, tie_word_embeddings=True),
        {"dtype": None, "torch_dtype": "float32"},
    ),
    "llama-linear": (
        "Llama",
        dict(ROPE, rope_scaling={"type": "linear", "factor": 4.0}, attention_bias=True),
        {},
    ),
    "llama-yarn": ("Llama", dict(ROPE, rope_scaling=YARN), {}),
    "llama-dynamic": (
        "Llama",
        dict(
            ROPE, max_position_embeddings=32, rope_scaling={"rope_type": "dynamic", "factor": 4.0}
        ),
        {},
    ),
    "mistral": ("Mistral", dict(ROPE, sliding_window=8, rope_theta=1e6), {}),
    "qwen2": (
        "Qwen2",
        dict(
            ROPE,
            use_sliding_window=True,
            sliding_window=8,
            max_window_layers=3,
            rope_theta=1e6,
            tie_word_embeddings=True,
        ),
        {"layer_types": None},
    ),
    "qwen2-full": (
        "Qwen2",
        dict(ROPE, max_window_layers=BLOCKS, rope_scaling=YARN),
        {"layer_types": None},
    ),
    "qwen3": ("Qwen3", dict(ROPE, head_dim=8, rope_theta=1e6, max_window_layers=4), {}),
    "qwen3-moe": (
        "Qwen3Moe",
        dict(
            ROPE,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            decoder_sparse_step=1,
            norm_topk_prob=True,
        ),
        {},
    ),
    "smollm3": (
        "SmolLM3",
        dict(ROPE | EIGHT, no_rope_layer_interval=4, rope_theta=2e6, pad_token_id=0),
        {},
    ),
    "gemma2": ("Gemma2", dict(ROPE, head_dim=8, sliding_window=8, query_pre_attn_scalar=8), {}),
    "gemma3": (
        "Gemma3Text",
        dict(
            ROPE | TWELVE,
            head_dim=8,
            sliding_window=8,
            query_pre_attn_scalar=8,
            rope_theta=1e6,
            rope_local_base_freq=1e4,
            rope_scaling={"rope_type": "linear", "factor": 8.0},
        ),
        {},
    ),
    "gemma3-hub": (
        "Gemma3Text",
        dict(ROPE | TWELVE, head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
        {"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 6},
    ),
    # Not phi3: llama.cpp looks for its tokens in every model of that name.
    "phi-longrope": (
        "Phi3",
        dict(
            ROPE,
            rope_scaling=LONG,
            original_max_position_embeddings=16,
            sliding_window=12,
            pad_token_id=0,
        ),
        {},
    ),
    "olmo2": ("Olmo2", dict(ROPE, rope_theta=500000.0), {}),
    "olmo3": ("Olmo3", dict(ROPE | EIGHT, sliding_window=8, rope_theta=500000.0), {}),
    "olmo3-base": ("Olmo3", dict(ROPE, sliding_window=8, rope_theta=10000.0), {}),
    "cohere2": (
        "Cohere2",
        dict(ROPE | EIGHT, logit_scale=1.0, sliding_window=8, sliding_window_pattern=4),
        {"rotary_pct": 1.0},
    ),
    "exaone4": (
        "Exaone4",
        dict(ROPE | EIGHT, sliding_window=8, sliding_window_pattern=4, rope_scaling=LLAMA3),
        {},
    ),
    "exaone4-64": (
        "Exaone4",
        dict(
            ROPE | {"num_hidden_layers": 64},
            sliding_window=8,
            sliding_window_pattern=4,
            rope_scaling=LLAMA3,
        ),
        {},
    ),
    "gpt-neox": (
        "GPTNeoX",
        dict(
            SIZES,
            intermediate_size=48,
            max_position_embeddings=64,
            rotary_pct=0.5,
            rotary_emb_base=20000.0,
        ),
        {},
    ),
    "gpt2": (
        "GPT2",
        dict(vocab_size=VOCABULARY, n_embd=32, n_layer=BLOCKS, n_head=4, n_positions=64),
        {"n_ctx": 64},
    ),
    "falcon": (
        "Falcon",
        dict(SIZES, new_decoder_architecture=True, num_kv_heads=2, alibi=False),
        {},
    ),
    "bloom": (
        "Bloom",
        dict(vocab_size=VOCABULARY, hidden_size=32, n_layer=BLOCKS, n_head=4),
        {"seq_length": 64},
    ),
    "stablelm": ("StableLm", dict(ROPE, partial_rotary_factor=0.25, use_qkv_bias=True), {}),
    "granite": ("Granite", dict(ROPE, logits_scaling=4.0, residual_multiplier=0.5), {}),
    "gpt-oss": (
        "GptOss",
        dict(
            ROPE,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=8,
            initializer_range=0.02,
            rope_theta=150000.0,
            rope_scaling={**YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
        ),
        {},
    ),
    "deepseek-v2": (
        "DeepseekV2",
        dict(ROPE | EXPERTS, first_k_dense_replace=2, q_lora_rank=8, topk_method="greedy"),
        {},
    ),
    "deepseek-v3": (
        "DeepseekV3",
        dict(ROPE | EXPERTS, first_k_dense_replace=3, q_lora_rank=8, rope_scaling=DEEPSEEK_YARN),
        {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    ),
    "mixtral": ("Mixtral", dict(ROPE, num_local_experts=4, num_experts_per_tok=2), {}),
    "glm4": ("Glm4", dict(ROPE, head_dim=8, partial_rotary_factor=0.5, pad_token_id=0), {}),
    "nemotron": ("Nemotron", dict(ROPE, partial_rotary_factor=0.5), {}),
    "starcoder2": ("Starcoder2", dict(ROPE, sliding_window=8, use_bias=True), {}),
}

TEXT = "What is the colour of the sky? blue green  white\n red, grass 12"
WORDS = [TEXT, "A B C D E Answer Question snow coal black"]
SPM = ("gemma2", "gemma3", "gemma3-hub", "phi-longrope", "nemotron")


def tokens() -> np.ndarray:
    """``[2, TOKENS]`` ids that are special to no model."""
    return np.random.default_rng(1).integers(4, 300, (2, TOKENS))


def write(folder: Path, names: list[str]) -> None:
    import torch
    import transformers

    for name in names:
        family, arguments, otherwise = FAMILIES[name]
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(
            **arguments, bos_token_id=1, eos_token_id=2
        )
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for tensor_name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "norm" not in tensor_name:
                    parameter.mul_(5)
                elif "bias" in tensor_name or "sinks" in tensor_name:
                    parameter.normal_(0, 0.3)
        path = folder / name
        model.save_pretrained(path)
        stated = json.loads((path / "config.json").read_text())
        for key, value in otherwise.items():
            stated.pop(key, None) if value is None else stated.update({key: value})
        (path / "config.json").write_text(json.dumps(stated, indent=2, sort_keys=True) + "\n")
        make_tokenizer(path, qwen=family.startswith("Qwen2"))
        if name in SPM:
            make_sentencepiece(path)
        (path / "LICENSE").write_text(f"licence of {name}\n")


def make_tokenizer(path: Path, qwen: bool) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2TokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<tool>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        WORDS * 5,
        trainers.BpeTrainer(
            vocab_size=310, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<tool>"],
        model_max_length=64,
    )
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(path)
    if qwen:  # the same with vocab.json and merges.txt beside, and a class of its own
        core.model.save(str(path))
        Qwen2TokenizerFast.from_pretrained(path).save_pretrained(path)


def make_sentencepiece(path: Path) -> None:
    """What llama.cpp's converter reads of Gemma's tokenizer; only its size matters here."""
    import sentencepiece

    text = path / "text.txt"
    text.write_text("\n".join(WORDS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(path / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    text.unlink()
    (path / "tokenizer.vocab").unlink()


def read(folders: list[Path], out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found: dict[str, np.ndarray] = {}
    ids = torch.as_tensor(tokens())
    for folder in folders:
        try:
            model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
            if report["missing_keys"]:
                raise ValueError(f"weights are missing: {report['missing_keys'][:3]}")
            with torch.no_grad():
                logits = model.eval()(ids, use_cache=False).logits
            found[f"{folder}|logits"] = logits.float().numpy()
            tokenizer = AutoTokenizer.from_pretrained(folder)
            found[f"{folder}|tokens"] = np.array(tokenizer(TEXT + "<tool>").input_ids)
            found[f"{folder}|class"] = np.array(type(tokenizer).__name__)
        except Exception as error:  # noqa: BLE001 - told, not raised: others are to be read
            found[f"{folder}|error"] = np.array(f"{type(error).__name__}: {error}"[:300])
    np.savez(out, **found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "read"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--families", default=",".join(FAMILIES))
    options = parser.parse_args()
    if options.what == "write":
        shutil.rmtree(options.folders[0], ignore_errors=True)
        write(options.folders[0], options.families.split(","))
    else:
        read(options.folders, options.out)


if __name__ == "__main__":
    main()
