"""Writing the weights of the kept blocks, re-numbered, one tensor in memory at a time.

From safetensors the tensors are read lazily from the source files, so that the written values are
the checkpoint's own; from GGUF, or of a model that was trained or merged since, they are those in
memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from phaseprune.decoder.checkpoint import loaded_files
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.names import destinations
from phaseprune.decoder.sublayers import Halves
from phaseprune.decoder.tensors import (
    LazyTensor,
    loaded_tensors,
    pieces,
    stored_tensors,
    without_tied,
    write_safetensors,
)
from phaseprune.decoder.zeroed import with_zeros, zeroed_tensors
from phaseprune.runs.atomic import write_json

SHARD_BYTES = 5 * 10**9


def write_kept_weights(
    decoder: Decoder,
    kept: Sequence[int],
    out: Path,
    *,
    per_block: Mapping[str, int] | None = None,
    whole_checkpoint: bool = False,
    own_names: bool = False,
    in_memory: bool = False,
    zeroed: tuple[Halves, Sequence[str]] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[int, int, torch.dtype]:
    """Write the kept blocks and everything outside the blocks as safetensors.

    Args:
        decoder: the loaded full model.
        kept: original indices of the kept blocks, in order.
        out: directory to write into.
        per_block: names of weights outside the blocks -> the dimension with a piece a block.
        whole_checkpoint: write what the model does not load, too.
        own_names: call tensors as the loaded model calls them.
        in_memory: write the weights in memory, as they are now, and not those of the files.
        zeroed: the halves of the blocks, and those whose weights are to be zeros.
        shard_bytes: the most bytes in a file, unless a single tensor has more.

    Returns:
        The bytes of all tensors, those of the zeroed ones, and the dtype that most are in.
    """
    source = _source_tensors(decoder, in_memory)
    going = destinations(
        decoder.model,
        decoder.blocks_path,
        source,
        kept,
        per_block or {},
        whole_checkpoint,
        own_names,
    )
    empty = zeroed_tensors(decoder, *zeroed, going) if zeroed else set()
    source = with_zeros(source, empty)
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, place in going.items():
        tensor = source[name]
        if place.block_dimension is not None:
            tensor = pieces(tensor, place.block_dimension, len(decoder.blocks), kept)
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][place.name] = tensor
        size += tensor.nbytes
    by_dtype: Counter[torch.dtype] = Counter()
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(out / name, shard)
        weight_map |= dict.fromkeys(shard, name)
        for tensor in shard.values():
            by_dtype[tensor.dtype] += tensor.nbytes
    if len(shards) > 1:
        index = {"metadata": {"total_size": by_dtype.total()}, "weight_map": weight_map}
        write_json(out / "model.safetensors.index.json", index)
    zeros = sum(source[name].nbytes for name in empty)
    return by_dtype.total(), zeros, by_dtype.most_common(1)[0][0]


def _source_tensors(decoder: Decoder, in_memory: bool) -> dict[str, LazyTensor]:
    if not (decoder.source.gguf_file or decoder.trained or in_memory):
        return stored_tensors(loaded_files(decoder.source) or decoder.source.weight_files)
    state = without_tied(decoder.model.state_dict())
    try:
        # Names as transformers saves them: a layer's experts one by one, for example.
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # another release of transformers
        return loaded_tensors(state)
    return loaded_tensors(revert_weight_conversion(decoder.model, state))
