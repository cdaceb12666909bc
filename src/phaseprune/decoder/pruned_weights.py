"""Writing the weights of the kept blocks, re-numbered, one tensor in memory at a time and shard.

From safetensors the tensors are read lazily from the source files, so that the written values are
the checkpoint's own; from GGUF they are those of the loaded, de-quantised model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.runs.atomic import write_json

SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of the source: its bytes, its dtype, and how to read it."""

    nbytes: int
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]


def write_kept_weights(
    decoder: Decoder, kept: Sequence[int], out: Path, shard_bytes: int = SHARD_BYTES
) -> tuple[int, torch.dtype]:
    """Write the kept blocks and everything outside the blocks as safetensors.

    Args:
        decoder: the loaded full model.
        kept: original indices of the kept blocks, in order.
        out: directory to write into.
        shard_bytes: the most bytes in a file, unless a single tensor has more.

    Returns:
        The bytes of all tensors, and the dtype that most of them are in.
    """
    tensors = renumbered(_source_tensors(decoder), decoder.blocks_path, kept)
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    by_dtype: Counter[torch.dtype] = Counter()
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        values = {key: tensor.read().contiguous() for key, tensor in shard.items()}
        save_file(values, out / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
        for tensor in shard.values():
            by_dtype[tensor.dtype] += tensor.nbytes
    if len(shards) > 1:
        index = {"metadata": {"total_size": by_dtype.total()}, "weight_map": weight_map}
        write_json(out / "model.safetensors.index.json", index)
    return by_dtype.total(), by_dtype.most_common(1)[0][0]


def renumbered(
    tensors: dict[str, LazyTensor], blocks_path: str, kept: Sequence[int]
) -> dict[str, LazyTensor]:
    """Drop the tensors of removed blocks and give the kept ones their new numbers.

    A checkpoint may name the list of blocks without the outer modules (``h.0`` for
    ``transformer.h.0``), so the last part of the path is what is looked for.
    """
    pattern = re.compile(rf"(?P<before>(?:^|.*?\.){re.escape(blocks_path.split('.')[-1])}\.)"
                         r"(?P<block>\d+)(?P<after>\..*)")
    new_number = {block: number for number, block in enumerate(kept)}
    result, found = {}, set()
    for name, tensor in tensors.items():
        match = pattern.fullmatch(name)
        if match is None:
            result[name] = tensor
            continue
        block = int(match["block"])
        found.add(block)
        if block in new_number:
            result[f"{match['before']}{new_number[block]}{match['after']}"] = tensor
    if not set(kept) <= found:
        raise UserError(
            f"the weights of block {min(set(kept) - found)} were not found under a name like "
            f"{blocks_path}.0 in the checkpoint, so it cannot be exported"
        )
    return result


def _source_tensors(decoder: Decoder) -> dict[str, LazyTensor]:
    if decoder.source.gguf_file:
        return _loaded_tensors(decoder)
    tensors = {}
    for path in decoder.source.weight_files:
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - not a mapping
                piece = handle.get_slice(name)
                dtype = getattr(torch, _TORCH_NAMES[piece.get_dtype()])
                nbytes = math.prod(piece.get_shape()) * dtype.itemsize
                tensors[name] = LazyTensor(nbytes, dtype, _reader(path, name))
    return tensors


_TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def _reader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with safe_open(path, framework="pt") as handle:
            return handle.get_tensor(name)

    return read


def _loaded_tensors(decoder: Decoder) -> dict[str, LazyTensor]:
    """The loaded model's tensors; of tied ones only the first name, as transformers saves them."""
    tensors, seen = {}, set()
    for name, tensor in decoder.model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen:
            seen.add(place)
            tensors[name] = LazyTensor(
                tensor.nbytes, tensor.dtype, lambda tensor=tensor: tensor.cpu()
            )
    return tensors
