"""What a GGUF file's metadata means for the configuration that transformers makes of it.

transformers reads the keys that it has in its tables, leaves others at its own defaults without a
word, and some that it has in the tables reach no field of the configuration. Here each key of the
architecture is accounted for: the configuration says what the key says (it is set where it did
not), or the key's value is one that changes nothing, or the file is refused by the key's name.
What llama.cpp does with a key, and where a key lacks, is what counts (its ``llama-model.cpp`` and
``models/*.cpp``). Rotary embeddings stand in ``gguf_rope``, tokenizers in ``gguf_tokenizer``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from inspect import signature
from typing import Any

from phaseprune.decoder.gguf_header import GgufHeader
from phaseprune.decoder.gguf_rope import settle_rope
from phaseprune.errors import UserError, shown

#: Key (without the architecture) -> what configurations call it; the first that one has is meant.
FIELDS: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_hidden_size"),
    "use_parallel_residual": ("use_parallel_residual",),
    "logit_scale": ("logit_scale",),
    "residual_scale": ("residual_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("v_head_dim",),
    "attention.layer_norm_epsilon": (
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_epsilon",
        "norm_eps",
        "rms_norm_eps",
    ),
    "attention.layer_norm_rms_epsilon": (
        "rms_norm_eps",
        "norm_eps",
        "layer_norm_epsilon",
        "layer_norm_eps",
        "norm_epsilon",
    ),
    "attention.sliding_window": ("sliding_window",),
    "attention.clamp_kqv": ("clip_qkv",),
    "attention.max_alibi_bias": ("alibi_bias_max",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
    "ssm.conv_kernel": ("conv_kernel",),
    "ssm.inner_size": ("intermediate_size",),
    "ssm.state_size": ("state_size",),
    "ssm.time_step_rank": ("time_step_rank",),
}
#: Values that change nothing where a configuration has no field for them.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logit_scale": (1.0,),
    "residual_scale": (1.0,),
    "embedding_scale": (1.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "attention.sliding_window": (0,),
    "attention.clamp_kqv": (0.0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_weights_norm": (False,),
    "expert_gating_func": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "moe_every_n_layers": (0, 1),
    "pooling_type": (0,),
    "interleave_moe_layer_step": (0, 1),
    "nextn_predict_layers": (0,),
    "ssm.dt_b_c_rms": (False,),
    "ssm.group_count": (0, 1),
    "attention.shared_kv_layers": (0,),
    "feed_forward_length": (0,),
    "attention.head_count": (0,),
    "attention.head_count_kv": (0,),
    "embedding_length_per_layer_input": (0,),
    "swin_norm": (False,),
}
#: Keys with a flag a block -> what transformers calls the blocks that have it, and the others.
_KINDS = {
    "attention.sliding_window_pattern": ("sliding_attention", "full_attention"),
    "attention.recurrent_layers": ("linear_attention", "full_attention"),
}
#: Architecture -> how its experts are weighted, where transformers' class knows one way alone (2 is
#: llama.cpp's number of the sigmoid).
_GATING = {"minimax-m2": 2}
#: Keys that say how the file came about.
_INFORMATION = ("tensor_data_layout",)
#: Architecture or model_type -> the number of blocks by which llama.cpp knows Gemma's 27B, whose
#: attention alone is scaled by the width over the heads, and which no key says.
WIDE_SCALE = {"gemma2": 46, "gemma3": 62, "gemma3_text": 62}
_TOKENIZER = (
    "model",
    "pre",
    "tokens",
    "token_type",
    "token_type_count",
    "scores",
    "merges",
    "add_bos_token",
    "add_eos_token",
    "add_sep_token",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "precompiled_charsmap",
)


def settle_config(config: Any, header: GgufHeader) -> None:
    """Have the configuration that transformers made of a file say all that the file says.

    Args:
        config: of transformers; changed.
        header: of the file.

    Raises:
        UserError: a key that changes what is computed, and that neither transformers nor this has
            a place for, by its name.
    """
    _refuse_other_kinds(header)
    read_by_theirs = _read_by_function(header)
    for suffix, value in header.own_fields.items():
        if suffix.startswith("rope.") or suffix in read_by_theirs or suffix in _INFORMATION:
            continue
        _settle_key(config, header, suffix, _uniform(value))
    _settle_attention_scale(config, header)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):  # the class's, of a checkpoint
        number = getattr(config, name, None)
        if isinstance(number, int) and number >= getattr(config, "vocab_size", number + 1):
            setattr(config, name, None)
    settle_rope(config, header, read_by_theirs)


def _refuse_other_kinds(header: GgufHeader) -> None:
    """Refuse an adapter, a part of a model, and keys of the tokenizer that are not known."""
    fields = header.fields
    kind = fields.get("general.type", "model")
    if kind != "model":
        raise UserError(
            f"{header.path.name}: general.type is {shown(kind)}, so it holds no whole model; give "
            "the model's own file"
        )
    if fields.get("split.count", 1) > 1:
        raise UserError(
            f"{header.path.name}: split.count is {fields['split.count']}, so it holds a part of a "
            "model; join the parts (`llama-gguf-split --merge`) and give that file"
        )
    for key, value in fields.items():
        name = key.removeprefix("tokenizer.")
        if name == key or name.startswith(("chat_template", "huggingface.json")):
            continue
        name = name.removeprefix("ggml.")
        known = name in _TOKENIZER or name.endswith(("_token_id", "_token_ids"))
        if not known or (name in ("add_sep_token",) and value):
            raise header.unread(key, value)


def _settle_key(config: Any, header: GgufHeader, suffix: str, value: Any) -> None:
    names = _theirs(header.architecture, suffix) or FIELDS.get(suffix, ())
    if suffix in _KINDS:
        names, value = ("layer_types",), _layer_types(config, value, *_KINDS[suffix])
    name = next((name for name in names if declares(config, name)), None)
    if name is None:
        if suffix == "context_length":  # positions without end (ALiBi, state spaces)
            config.seq_length = value
        elif value not in NEUTRAL.get(suffix, ()) and value != _implied(config, header, suffix):
            raise header.unread(f"{header.architecture}.{suffix}", value)
        return
    if suffix == "attention.sliding_window" and not value:
        value = None
    try:
        if not same(getattr(config, name, None), value):
            setattr(config, name, value)
    except Exception:  # noqa: BLE001 - configurations check what they are given in their own ways
        raise header.unread(f"{header.architecture}.{suffix}", value) from None


def _theirs(architecture: str, suffix: str) -> tuple[str, ...]:
    """The field that transformers' own table has for a key."""
    try:
        from transformers.integrations import GGUF_CONFIG_MAPPING
    except ImportError:  # another release
        return ()
    table = GGUF_CONFIG_MAPPING
    own = table.get(architecture) or table.get(architecture.replace("-", "_")) or {}
    field = own.get(suffix)
    return (field, *FIELDS.get(suffix, ())) if field else ()


def _read_by_function(header: GgufHeader) -> set[str]:
    """Keys that transformers reads by code for this architecture, found by running it."""
    try:
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, read_gguf_metadata
    except ImportError:
        return set()
    if header.architecture not in GGUF_CONFIG_ARCHS:
        return set()
    metadata, names = read_gguf_metadata(str(header.path))
    seen = _Seen(metadata)
    GGUF_CONFIG_ARCHS[header.architecture](seen, names)
    return {key.removeprefix(f"{header.architecture}.") for key in seen.keys_read}


class _Seen(Mapping):
    """A mapping that knows which of its keys were asked for."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_, self.keys_read = values, set()

    def __getitem__(self, key: str) -> Any:
        self.keys_read.add(key)
        return self.values_[key]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def _settle_attention_scale(config: Any, header: GgufHeader) -> None:
    """llama.cpp scales Gemma's attention by a head's width; no key says what the family's field is.

    ``query_pre_attn_scalar`` is left at a checkpoint's default by transformers.
    """
    if not declares(config, "query_pre_attn_scalar"):
        return
    wide = WIDE_SCALE.get(header.architecture) == header.own_fields.get("block_count", 0)
    head = config.hidden_size // config.num_attention_heads if wide else config.head_dim
    if not same(config.query_pre_attn_scalar, head):
        config.query_pre_attn_scalar = head


def _uniform(value: Any) -> Any:
    """A list of one value for every block as that value."""
    return value[0] if isinstance(value, tuple) and value and len(set(value)) == 1 else value


def _layer_types(config: Any, value: Any, flagged: str, other: str) -> Any:
    """What each block is, by a flag a block or a period of which the last block has none."""
    blocks = config.num_hidden_layers
    if isinstance(value, bool):
        value = (value,) * blocks
    elif isinstance(value, int) and value > 0:
        value = tuple((block + 1) % value != 0 for block in range(blocks))
    if not isinstance(value, tuple) or len(value) < blocks:
        return value
    return [flagged if flag else other for flag in value[:blocks]]


def _implied(config: Any, header: GgufHeader, suffix: str) -> Any:
    """What a value is where the configuration has no field for it."""
    heads = getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    if suffix == "expert_gating_func":
        return _GATING.get(header.architecture)
    if suffix == "expert_feed_forward_length":  # all of its feed-forward layers are experts
        return getattr(config, "intermediate_size", None)
    if suffix == "ssm.inner_size" and hasattr(config, "expand"):
        return int(config.expand * width)
    if heads is None or width is None:
        return None
    if suffix == "attention.head_count_kv":
        return heads
    if suffix in ("attention.key_length", "attention.value_length"):
        return getattr(config, "head_dim", None) or width // heads
    return 4 * width if suffix == "feed_forward_length" else None


def declares(config: Any, name: str) -> bool:
    """Whether a configuration's class knows a field, and not only holds what it was given."""
    kind = type(config)
    if name in kind.attribute_map:
        return True
    if is_dataclass(kind) and name in {field.name for field in dataclass_fields(kind)}:
        return True
    return name in signature(kind.__init__).parameters


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, as far as a file's 32 bits tell."""
    if isinstance(one, float) or isinstance(other, float):
        numbers = all(isinstance(v, int | float) for v in (one, other))
        return numbers and math.isclose(one, other, rel_tol=1e-6)
    return one == other and isinstance(one, bool) == isinstance(other, bool)
