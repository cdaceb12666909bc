"""Which tensors of a GGUF file become weights: none may be left unread."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from phaseprune.decoder.gguf_header import GgufHeader
from phaseprune.decoder.gguf_rope import FACTORS, LONG, SHORT
from phaseprune.errors import UserError

#: Tensors that become rope parameters of the configuration.
APPLIED = (FACTORS, LONG, SHORT)
#: Tables that some old files have, and llama.cpp makes by itself as transformers does.
_MADE = (".attn_rot_embd.weight", ".rope_freqs.weight", "rotary_emb.inv_freq")


def check_tensors(model: nn.Module, header: GgufHeader) -> None:
    """Refuse a file with a tensor that transformers would leave out without a word.

    Args:
        model: of the file's configuration, be it on the meta device.
        header: of the file.

    Raises:
        UserError: the first such tensor by name, and how many there are.
    """
    read = _read_tensors(model, header)
    unread = [
        name
        for name in header.tensors
        if name not in read and name not in APPLIED and not name.endswith(_MADE)
    ]
    if unread:
        raise UserError(
            f"{header.path.name}: {len(unread)} of its tensors become no weight of transformers' "
            f"{model.config.model_type}, the first {unread[0]}, so another model would be run; "
            "give the model's own safetensors checkpoint"
        )


def _read_tensors(model: nn.Module, header: GgufHeader) -> Collection[str]:
    """The names that transformers' loading finds a weight for."""
    try:
        from transformers.integrations.gguf import is_gguf_arch_supported

        by_conversion = is_gguf_arch_supported(header.architecture)
    except ImportError:  # an older release has the tables alone
        by_conversion = False
    if by_conversion:
        return _converted(model, header)
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    make = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    named = get_gguf_hf_weights_map(model, make(config=model.config.to_dict()))
    stacked = getattr(make, "GGUF_MOE_WEIGHTS_PATTERN", None)  # experts, by names without .weight
    found = [stacked.fullmatch(name) for name in header.tensors] if stacked else []
    return {*named, *(m[0] for m in found if m and m.groupdict().get("name") in named)}


def _converted(model: nn.Module, header: GgufHeader) -> set[str]:
    """Of the architectures that are read by renaming and converting."""
    import re

    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )
    from transformers.integrations.gguf import get_gguf_conversion_mapping

    mapping = get_gguf_conversion_mapping(header.architecture, model.config)
    renamings = [change for change in mapping if isinstance(change, WeightRenaming)]
    converters = [change for change in mapping if isinstance(change, WeightConverter)]
    own = model.state_dict()
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return {
        name
        for name in header.tensors
        for called in [rename_source_key(name, renamings, converters)[0]]
        if called in own or any(re.search(pattern, called) for pattern in ignored)
    }
