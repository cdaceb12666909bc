"""Single tensors of safetensors files, read when they are needed: no more than one is in memory.

``WeightReader`` reads by plain reads and not by memory mapping: mapped pages count as ours for as
long as the kernel likes, and a file that is cut short under a mapping kills the process instead of
raising an error.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from phaseprune.decoder.checkpoint import read_safetensors_header
from phaseprune.errors import UserError

#: safetensors' names of dtypes.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
#: Of those, the ones that weights are computed with.
COMPUTED = {name: dtype for name, dtype in DTYPES.items() if not name.startswith("F8")}
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
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
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


@dataclass(frozen=True)
class Place:
    """Where a tensor stands; ``file_stamp`` is the size and time of its file when that was seen."""

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    file_stamp: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


class WeightReader:
    """The tensors of a checkpoint.

    Attributes:
        places: by stored name.
        bytes_read: so far.
    """

    def __init__(self, paths: Sequence[Path]):
        """Read the headers.

        Raises:
            UserError: a file is damaged, cut short, or of a dtype that only packed weights have.
        """
        self.places: dict[str, Place] = {}
        self.bytes_read = 0
        for path in paths:
            self.places |= _places(path)

    def read(self, name: str) -> torch.Tensor:
        """A tensor, as it is stored.

        Raises:
            OSError: the file cannot be read, or has changed since its header was.
        """
        place = self.places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype)
        into = memoryview(tensor.view(-1).view(torch.uint8).numpy())
        with open(place.path, "rb", buffering=0) as handle:
            if _stamp(place.path) != place.file_stamp:
                raise OSError(f"{place.path.name} has changed since the model was loaded")
            handle.seek(place.start)
            while into:
                count = handle.readinto(into)
                if not count:
                    raise OSError(f"{place.path.name} ends within {name}")
                self.bytes_read += count
                into = into[count:]
        return tensor

    def begin_alike(self, one: str, other: str, most: int = 1 << 20) -> bool:
        """Whether two tensors have the same shape, dtype and first bytes."""
        places = [self.places[name] for name in (one, other)]
        if len({(place.shape, place.dtype) for place in places}) > 1:
            return False
        parts = []
        for place in places:
            with open(place.path, "rb") as handle:
                handle.seek(place.start)
                parts.append(handle.read(min(most, place.nbytes)))
        return parts[0] == parts[1]

    def lazy(self, name: str) -> TensorSlice:
        """The same, to be read when transformers indexes it."""
        return TensorSlice(self, name)


@dataclass(frozen=True)
class TensorSlice:
    """Looks to transformers' loading like a slice of a safetensors file."""

    reader: WeightReader
    name: str

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self.reader.read(self.name)[index]


def _places(path: Path) -> dict[str, Place]:
    stamp = _stamp(path)
    stored = read_safetensors_header(path)
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    unknown = next((n for n, t in stored.items() if t.dtype not in COMPUTED), None)
    if unknown is not None:
        raise UserError(
            f"{path.name}: {unknown} is stored as {stored[unknown].dtype}, which cannot be read "
            "block by block; use --no-stream, or give the unquantised model"
        )
    return {
        name: Place(
            path,
            8 + length + header[name]["data_offsets"][0],
            tensor.shape,
            COMPUTED[tensor.dtype],
            stamp,
        )
        for name, tensor in stored.items()
    }


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
