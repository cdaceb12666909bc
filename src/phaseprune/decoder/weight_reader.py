"""Reading single tensors of safetensors files by plain reads.

Not by memory mapping: mapped pages count as ours for as long as the kernel likes, and a file that
is cut short under a mapping kills the process instead of raising an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phaseprune.decoder.checkpoint import read_safetensors_header
from phaseprune.errors import UserError

#: safetensors' names of the dtypes that weights are computed with.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


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

    def lazy(self, name: str) -> LazyTensor:
        """The same, to be read when transformers indexes it."""
        return LazyTensor(self, name)


@dataclass(frozen=True)
class LazyTensor:
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
    unknown = next((n for n, t in stored.items() if t.dtype not in DTYPES), None)
    if unknown is not None:
        raise UserError(
            f"{path.name}: {unknown} is stored as {stored[unknown].dtype}, which cannot be read "
            "block by block; use --no-stream, or give the unquantised model"
        )
    return {
        name: Place(path, 8 + length + header[name]["data_offsets"][0], tensor.shape,
                    DTYPES[tensor.dtype], stamp)
        for name, tensor in stored.items()
    }  # fmt: skip


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
