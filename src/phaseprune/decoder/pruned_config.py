"""The configuration of a model with some blocks removed.

Every per-layer list is filtered by the kept blocks: keeping its first entries instead would give a
valid file with wrong logits. Fields that hold a block index, a count from one end or a period mean
something else after a removal, so they are refused unless a per-layer list overrides them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phaseprune.errors import UserError

#: Fields that name blocks, or count them from one end -> the per-layer list that overrides them.
COUNTED_FIELDS = {
    "max_window_layers": "layer_types",
    "full_attn_idxs": "layer_types",
    "first_k_dense_replace": "mlp_layer_types",
    "mlp_only_layers": "mlp_layer_types",
    "attn_layer_offset": "layers_block_type",
    "moe_layer_start_index": None,
    "moe_layer_end_index": None,
    "num_kv_shared_layers": None,
    "num_nextn_predict_layers": None,
}
#: Periods, likewise; a period of 1 treats every block alike.
PERIODIC_FIELDS = {
    "sliding_window_pattern": "layer_types",
    "_sliding_window_pattern": "layer_types",
    "layer_group_size": "layer_types",
    "attn_layer_period": "layers_block_type",
    "no_rope_layer_interval": "no_rope_layers",
    "decoder_sparse_step": "mlp_layer_types",
    "interleave_moe_layer_step": "moe_layers",
    "moe_layer_interval": None,
    "expert_layer_period": None,
}
#: Lists whose length may happen to be the number of blocks and which are not per block.
NOT_PER_LAYER = ("architectures", "eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens")


def pruned_config(config, kept: Sequence[int]):
    """A copy of a transformers configuration for the kept blocks alone.

    Args:
        config: the full model's configuration.
        kept: original indices of the kept blocks, in order.

    Raises:
        UserError: a field's meaning would change with the removal; names the field.
    """
    blocks = config.num_hidden_layers
    values = config.to_dict()
    values.pop("quantization_config", None)  # a GGUF's: what is written is de-quantised
    if config.get_text_config(decoder=True) is not config:
        raise UserError(
            f"export of {config.model_type}: the blocks belong to a nested configuration "
            "(text_config), which cannot be exported yet; load its text model alone"
        )
    per_layer = {
        name
        for name, value in values.items()
        if isinstance(value, list) and len(value) == blocks and name not in NOT_PER_LAYER
    }
    _refuse_positional(config, values, per_layer)
    for name in per_layer:
        values[name] = [values[name][block] for block in kept]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(kept)
    return type(config).from_dict(values)


def _refuse_positional(config, values: dict[str, Any], per_layer: set[str]) -> None:
    for name, overriding in (COUNTED_FIELDS | PERIODIC_FIELDS).items():
        value = values.get(name)
        alike = not value or (name in PERIODIC_FIELDS and value == 1)
        if alike or overriding in per_layer:
            continue
        raise UserError(
            f"export of {config.model_type}: its configuration field {name} = {value!r} "
            "counts blocks by position, and removing blocks would change what it means, so this "
            "model cannot be exported as a plain checkpoint"
        )
