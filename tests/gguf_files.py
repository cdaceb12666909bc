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


STORED = {
    "llama": _llama, "bloom": _bloom, "gpt2": _gpt2, "gemma2": _one_more, "gemma3": _one_more,
    "nemotron": _one_more,
}  # fmt: skip


def shapes_of(config) -> dict[str, object]:
    """The keys that every converter writes, without the architecture before them."""
    heads = config.num_attention_heads
    found = {
        "context_length": config.max_position_embeddings,
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
        base, _, suffix = name.rpartition(".")
        stored = names.get_name(base)
        if stored is None:
            raise KeyError(f"{architecture} has no name for {name}")
        values = parameter.detach().numpy()
        found[f"{stored}.{suffix}"] = change(f"{stored}.{suffix}", values, model.config)
    return found


def byte_level(pre: str = "gpt-2") -> dict[str, object]:
    """A byte-level tokenizer of 310 tokens and ten that fill the vocabulary up."""
    import json

    core = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(core["vocab"], key=core["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(VOCABULARY - len(tokens))]
    types = [TokenType.NORMAL] * VOCABULARY
    types[core["vocab"]["<eos>"]] = TokenType.CONTROL
    return {
        "model": "gpt2", "pre": pre, "tokens": tokens, "token_type": [int(t) for t in types],
        "merges": [" ".join(pair) for pair in core["merges"]],
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


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
        "model": "llama", "pre": "default", "tokens": tokens + [f"<u{i}>" for i in range(missing)],
        "scores": scores + [-1000.0] * missing,
        "token_type": [int(t) for t in types] + [int(TokenType.UNUSED)] * missing,
        "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0,
    }  # fmt: skip


def tiny_model(config, seed: int = 0):
    """A random model whose weights are large enough that positions and blocks matter."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
            elif "norm" in name or "ln_" in name or "bias" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model
