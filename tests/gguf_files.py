"""GGUF files of tiny random models, written as llama.cpp's converter writes them.

The names of tensors are the gguf package's own table; what the converter does to values (llama's
rotated heads, norms stored as 1 + w, ...) stands in ``STORED``. Keys are those that the converter
writes for the family, unless a test leaves some out or adds others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, TokenType, get_tensor_name_map

from conftest import WORDS, make_tokenizer

VOCABULARY = 320


def _rotated(heads: int, values: np.ndarray) -> np.ndarray:
    """Rows of each head with their halves interleaved: llama.cpp turns neighbours, HF halves."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


def _llama(name: str, values: np.ndarray, config) -> np.ndarray:
    if "attn_q." in name:
        return _rotated(config.num_attention_heads, values)
    return _rotated(config.num_key_value_heads, values) if "attn_k." in name else values


def _bloom(name: str, values: np.ndarray, config) -> np.ndarray:
    if "attn_qkv" not in name:
        return values
    heads = config.n_head
    parts = values.reshape(heads, 3, values.shape[0] // heads // 3, *values.shape[1:])
    return parts.swapaxes(0, 1).reshape(values.shape)


def _gpt2(name: str, values: np.ndarray, config) -> np.ndarray:
    turned = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    return values.T if name.endswith(turned) else values


def _one_more(name: str, values: np.ndarray, config) -> np.ndarray:
    return values + 1 if name.endswith("norm.weight") else values


def _mamba(name: str, values: np.ndarray, config) -> np.ndarray:
    if name.endswith("ssm_a"):
        return -np.exp(values)
    return values[:, 0] if name.endswith("ssm_conv1d.weight") else values


def _flat_gate(name: str, values: np.ndarray, config) -> np.ndarray:
    return values.reshape(-1) if "ffn_gate_inp_shexp" in name else values


STORED = {
    "llama": _llama,
    "bloom": _bloom,
    "gpt2": _gpt2,
    "gemma2": _one_more,
    "gemma3": _one_more,
    "nemotron": _one_more,
    "mamba": _mamba,
    "qwen2moe": _flat_gate,
}


def shapes_of(config) -> dict[str, object]:
    """The keys that every converter writes, without the architecture before them."""
    heads = getattr(config, "num_attention_heads", 0)
    found = {
        "context_length": getattr(config, "max_position_embeddings", CONTEXT),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", 4 * config.hidden_size),
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", None) or heads,
    }
    for field, key in {
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
        "layer_norm_eps": "attention.layer_norm_epsilon",
        "layer_norm_epsilon": "attention.layer_norm_epsilon",
        "norm_epsilon": "attention.layer_norm_epsilon",
        "norm_eps": "attention.layer_norm_epsilon",
    }.items():
        if hasattr(config, field):
            found[key] = float(getattr(config, field))
    return found


def write_gguf(
    path: Path,
    model,
    architecture: str,
    keys: dict[str, object] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    tokenizer: dict[str, object] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a model.

    Args:
        path: of the file.
        model: of transformers, tiny.
        architecture: as llama.cpp calls it.
        keys: more than ``shapes_of`` has, or in its place; without the architecture, unless they
            begin with ``general.``.
        tensors: more than the model's.
        tokenizer: keys after ``tokenizer.ggml.``; by default a byte-level one of 310 tokens.
        without: names of keys and tensors that are left out.
    """
    config = model.config
    writer = GGUFWriter(path, architecture)
    for key, value in (shapes_of(config) | (keys or {})).items():
        name = key if key.startswith(("general.", "split.")) else f"{architecture}.{key}"
        if key not in without:
            add_key(writer, name, value)
    for key, value in (byte_level() if tokenizer is None else tokenizer).items():
        if key not in without:
            add_key(writer, f"tokenizer.ggml.{key}", value)
    for name, values in (named_tensors(model, architecture) | (tensors or {})).items():
        if name not in without:
            writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_key(writer: GGUFWriter, name: str, value: object) -> None:
    """A key of the type that the converter gives it."""
    if isinstance(value, list):
        writer.add_array(name, value)
    elif isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    else:
        writer.add_string(name, value)


def named_tensors(model, architecture: str) -> dict[str, np.ndarray]:
    """The model's weights by the names, and with the values, that the file has."""
    kind = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(kind, model.config.num_hidden_layers)
    change = STORED.get(architecture, lambda name, values, config: values)
    found = {}
    for name, parameter in model.named_parameters():  # a tied head stands there once
        for part, values in _of_experts(name, parameter.detach().numpy()).items():
            stored = next(
                filter(
                    None,
                    (
                        names.get_name(called, try_suffixes=(".weight", ".bias"))
                        for called in (part, part.partition(".")[2])
                    ),
                )
            )
            found[stored] = change(stored, values, model.config)
    return found


def _of_experts(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A weight by its name, of experts as files have them: gates apart from projections up."""
    lead, experts, last = name.partition(".experts.")
    if not experts:
        return {name: values}
    if last != "gate_up_proj":
        return {f"{name}.weight": values}
    gate, up = np.split(values, 2, axis=1)
    return {f"{lead}.experts.gate_proj.weight": gate, f"{lead}.experts.up_proj.weight": up}


def byte_level(pre: str = "gpt-2") -> dict[str, object]:
    """A byte-level tokenizer of 310 tokens and ten that fill the vocabulary up."""
    import json

    core = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(core["vocab"], key=core["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(VOCABULARY - len(tokens))]
    types = [TokenType.NORMAL] * VOCABULARY
    types[core["vocab"]["<eos>"]] = TokenType.CONTROL
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [int(t) for t in types],
        "merges": [" ".join(pair) for pair in core["merges"]],
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def sentencepiece() -> dict[str, object]:
    """A SentencePiece tokenizer: bytes, and the words' pieces with falling scores."""
    words = WORDS.split()
    pieces = dict.fromkeys("▁" + "".join(sorted(set("".join(words)))))
    for word in words:
        for end in range(2, len(word) + 1):
            pieces["▁" + word[: end - 1]] = None
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    new = [piece for piece in pieces if piece not in tokens][: VOCABULARY - len(tokens)]
    tokens += new
    types += [TokenType.NORMAL] * len(new)
    scores = [0.0] * 259 + [-float(i) for i in range(len(new))]
    missing = VOCABULARY - len(tokens)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens + [f"<u{i}>" for i in range(missing)],
        "scores": scores + [-1000.0] * missing,
        "token_type": [int(t) for t in types] + [int(TokenType.UNUSED)] * missing,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


def tiny_model(config, seed: int = 0, scale: float = 6.0):
    """A random model whose weights are large enough that positions and blocks matter."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
            elif "norm" in name or "ln_" in name or "bias" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def small(config_class, **more):
    """A tiny configuration of a family, whose context goes on beyond what it was trained on."""
    from conftest import ROPE

    return config_class(**(dict(ROPE, max_position_embeddings=CONTEXT) | more))


CONTEXT = 512


def families() -> dict[str, tuple]:
    """Architecture -> (configuration, keys beside the shapes)."""
    import transformers as t

    wide = {"attention.key_length": 16, "attention.value_length": 16}
    gemma = wide | {"attention.sliding_window": 24}
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    large = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    base = {"rope.freq_base": 1e6}
    half = {"rope.dimension_count": 4, "rope.freq_base": 10000.0}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    as_experts = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 16}
    return {
        "llama": (small(t.LlamaConfig, **large), base | {"rope.dimension_count": 8}),
        "qwen2": (small(t.Qwen2Config, **large), base),
        "qwen3": (small(t.Qwen3Config, head_dim=16, **large), base | wide),
        "gemma2": (
            small(t.Gemma2Config, head_dim=16, query_pre_attn_scalar=16, sliding_window=24),
            gemma | caps | {"rope.freq_base": 10000.0},
        ),
        "gemma3": (
            small(
                t.Gemma3TextConfig,
                head_dim=16,
                query_pre_attn_scalar=16,
                sliding_window=24,
                num_hidden_layers=7,
            ),
            gemma | base,
        ),
        "phi3": (
            small(t.Phi3Config, pad_token_id=0, original_max_position_embeddings=CONTEXT),
            {"rope.dimension_count": 8, "rope.freq_base": 10000.0},
        ),
        "gpt2": (
            t.GPT2Config(
                vocab_size=320, n_embd=32, n_layer=5, n_head=4, n_positions=CONTEXT, n_inner=80
            ),
            {"feed_forward_length": 80},
        ),
        "stablelm": (
            small(t.StableLmConfig, partial_rotary_factor=0.5),
            half | {"use_parallel_residual": False},
        ),
        "starcoder2": (small(t.Starcoder2Config, **large), base),
        "falcon": (
            t.FalconConfig(
                vocab_size=320,
                hidden_size=32,
                num_hidden_layers=5,
                num_attention_heads=4,
                new_decoder_architecture=False,
                bias=False,
                multi_query=True,
                parallel_attn=True,
                alibi=False,
                max_position_embeddings=CONTEXT,
            ),
            {"attention.head_count_kv": 1},
        ),
        "bloom": (t.BloomConfig(vocab_size=320, hidden_size=32, n_layer=5, n_head=4), {}),
        "mamba": (
            t.MambaConfig(
                vocab_size=320,
                hidden_size=32,
                num_hidden_layers=5,
                state_size=8,
                intermediate_size=64,
                time_step_rank=2,
            ),
            {
                "feed_forward_length": 0,
                "attention.layer_norm_rms_epsilon": 1e-5,
                "ssm.conv_kernel": 4,
                "ssm.inner_size": 64,
                "ssm.state_size": 8,
                "ssm.time_step_rank": 2,
            },
        ),
        "nemotron": (small(t.NemotronConfig, partial_rotary_factor=0.5), half),
        "qwen2moe": (
            small(t.Qwen2MoeConfig, **large, **experts, shared_expert_intermediate_size=24),
            base | as_experts | {"expert_shared_feed_forward_length": 24},
        ),
        "qwen3moe": (
            small(t.Qwen3MoeConfig, head_dim=16, norm_topk_prob=True, **large, **experts),
            base | wide | as_experts,
        ),
    }


def llama3_factors(base: float, dims: int, factor: float = 8.0) -> np.ndarray:
    """The tensor ``rope_freqs`` that the converter makes of Llama 3's scaling."""
    turns = 8192 * base ** (-np.arange(0, dims, 2) / dims) / (2 * np.pi)
    smooth = np.clip((turns - 1) / 3, 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def scaled() -> dict[str, tuple]:
    """Scaled variants -> (family, rope parameters beside the base, keys, tensors)."""
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    yarn = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128,
    }
    as_yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    any_factors = np.array([1.0, 1.5, 3.0, 7.0])
    short, long = np.array([1.0, 1.1, 1.3, 1.7]), np.array([1.0, 2.0, 4.0, 9.0])
    return {
        "llama3": (
            "llama",
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            {},
            {"rope_freqs.weight": llama3_factors(1e6, 8)},
        ),
        "any factors": (
            "llama",
            {
                "rope_type": "longrope",
                "short_factor": any_factors.tolist(),
                "long_factor": any_factors.tolist(),
                "attention_factor": 1.0,
                "original_max_position_embeddings": CONTEXT,
            },
            {},
            {"rope_freqs.weight": any_factors},
        ),
        "linear llama": ("llama", {"rope_type": "linear", "factor": 4.0}, linear, {}),
        "linear without its name": (
            "qwen2",
            {"rope_type": "linear", "factor": 2.0},
            {"rope.scaling.factor": 2.0},
            {},
        ),
        "linear gemma3": ("gemma3", {"rope_type": "linear", "factor": 4.0}, linear, {}),
        "linear starcoder2": ("starcoder2", {"rope_type": "linear", "factor": 4.0}, linear, {}),
        "yarn llama": ("llama", as_yarn, yarn, {}),
        "yarn qwen2": ("qwen2", as_yarn, yarn, {}),
        "yarn qwen3": ("qwen3", as_yarn, yarn, {}),
        "yarn betas": (
            "qwen2",
            as_yarn | {"beta_fast": 16.0, "beta_slow": 2.0},
            yarn | {"rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0},
            {},
        ),
        "longrope": (
            "phi3",
            {
                "rope_type": "longrope",
                "short_factor": short.tolist(),
                "long_factor": long.tolist(),
                "attention_factor": 1.2,
                "original_max_position_embeddings": 128,
            },
            {"rope.scaling.original_context_length": 128, "rope.scaling.attn_factor": 1.2},
            {"rope_factors_short.weight": short, "rope_factors_long.weight": long},
        ),
    }


def make(name: str):
    """A tiny model of a family or a scaled variant, and what its file says beside the shapes."""
    import copy

    everything = families()
    family, parameters, more, tensors = scaled().get(name, (name, {}, {}, {}))
    config, keys = everything[family]
    config = copy.deepcopy(config)
    if parameters:
        nested = config.rope_parameters.get("full_attention")
        held = config.rope_parameters if nested is None else nested
        held |= parameters
        if "original_max_position_embeddings" in parameters and family == "phi3":
            config.original_max_position_embeddings = 128
    scale = 1.0 if family == "mamba" else 6.0  # a state space multiplies what differs by rounding
    return tiny_model(config, scale=scale), family, keys | more, tensors
