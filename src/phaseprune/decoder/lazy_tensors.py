"""Tensors that are read when they are written: no more than one is in memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open

from phaseprune.errors import UserError

#: safetensors' names of dtypes.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's shape and dtype, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def stored_tensors(paths: Sequence[Path]) -> dict[str, LazyTensor]:
    """The tensors of some safetensors files, by name.

    Raises:
        UserError: a dtype that only packed checkpoints have.
    """
    tensors = {}
    for path in paths:
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - not a mapping
                piece = handle.get_slice(name)
                dtype = DTYPES.get(piece.get_dtype())
                if dtype is None:
                    raise UserError(
                        f"{path.name}: {name} is stored as {piece.get_dtype()}, which cannot be "
                        "exported; prune the unquantised model"
                    )
                tensors[name] = LazyTensor(tuple(piece.get_shape()), dtype, _reader(path, name))
    return tensors


def loaded_tensors(state: Mapping[str, torch.Tensor]) -> dict[str, LazyTensor]:
    """Tensors in memory, by name."""
    return {
        name: LazyTensor(tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor.cpu())
        for name, tensor in state.items()
    }


def without_tied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of tensors that share their memory only the first, as transformers saves them."""
    kept, seen = {}, set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen:
            seen.add(place)
            kept[name] = tensor
    return kept


def pieces(tensor: LazyTensor, dimension: int, blocks: int, kept: Sequence[int]) -> LazyTensor:
    """The kept blocks' pieces of a tensor that holds one a block along a dimension."""
    size = tensor.shape[dimension] // blocks
    index = [block * size + i for block in kept for i in range(size)]
    shape = (*tensor.shape[:dimension], len(index), *tensor.shape[dimension + 1 :])
    return replace(
        tensor,
        shape=shape,
        read=lambda: tensor.read().index_select(dimension, torch.tensor(index)),
    )


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write a safetensors file, one tensor after the other.

    ``safetensors.torch.save_file`` holds a whole file's tensors in memory, and a copy of them.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        offsets = [end, end + tensor.nbytes]
        header[name] = {
            "dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets
        }  # fmt: skip
        end = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            _write_values(handle, tensor)


def _write_values(handle: BinaryIO, tensor: LazyTensor) -> None:
    values = tensor.read().contiguous().reshape(-1)
    handle.write(values.view(torch.uint8).numpy().data)


def _reader(path: Path, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        with safe_open(path, framework="pt") as handle:
            return handle.get_tensor(name)

    return read
