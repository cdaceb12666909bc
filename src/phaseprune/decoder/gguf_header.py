"""What the header of a GGUF file says, without its tensors.

The gguf package's own reader makes an array of every token of the vocabulary, which takes seconds;
here arrays of texts are stepped over.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.errors import UserError, shown

#: Formats of the values of one size, by their type in the file.
FORMATS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
STRING, ARRAY = 8, 9
#: Arrays of numbers up to this length are read: a value a block, factors of frequencies.
LONGEST_ARRAY = 100_000
#: types of tensors whose values stand there as they are, as NumPy calls them
PLAIN_VALUES = {"F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file: its shape as PyTorch has it, its type's name, its bytes, its place."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """What the file says.

    Attributes:
        path: of the file.
        file_type: what most tensors are stored as (``Q4_1``, ``F16``, ...).
        tensors: by their names.
        fields: values of the metadata by key; arrays of numbers are tuples, and those of texts (and
            of very many numbers) None.
    """

    path: Path
    file_type: str
    tensors: Mapping[str, GgufTensor]
    fields: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.fields.get("general.architecture"))

    @property
    def own_fields(self) -> dict[str, Any]:
        """The keys of this architecture, without its name before them."""
        prefix = f"{self.architecture}."
        return {k.removeprefix(prefix): v for k, v in self.fields.items() if k.startswith(prefix)}

    def unread(self, key: str, value: Any) -> UserError:
        """The refusal of a key that nothing here reads."""
        return UserError(
            f"{self.path.name}: {key} is {shown(value)}, which changes what the model computes and "
            "which transformers has no place for; give the model's own safetensors checkpoint"
        )

    def read(self, name: str) -> np.ndarray:
        """A tensor's values, which must be plain ones.

        Raises:
            UserError: they are quantised.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in PLAIN_VALUES:
            raise UserError(
                f"{self.path.name}: {name} is stored as {tensor.dtype}, and only F32 and F16 are "
                "known for it; convert the model anew"
            )
        kind, count = np.dtype(PLAIN_VALUES[tensor.dtype]), math.prod(tensor.shape)
        return np.fromfile(self.path, kind, count, offset=tensor.start).reshape(tensor.shape)


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header.

    Args:
        path: of the file; one that has not changed since is not read again.

    Raises:
        UserError: the file is not GGUF, damaged, or shorter than its header says.
    """
    status = path.stat()
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, size: int, changed: int) -> GgufHeader:
    try:
        with (
            open(path, "rb") as handle,
            mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as blob,
        ):
            header, end = _parse(path, blob)
    except (ValueError, struct.error, IndexError, OverflowError, RecursionError) as error:
        raise UserError(f"{path.name} cannot be read as GGUF ({error}); fetch it again") from None
    if size < end:
        raise UserError(
            f"{path.name} is cut short: it has {size:,} bytes and its header tells of {end:,}; "
            "fetch it again"
        )
    return header


def _parse(path: Path, blob: mmap.mmap) -> tuple[GgufHeader, int]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if blob[:4] != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, tensor_count, field_count = struct.unpack_from("<IQQ", blob, 4)
    if version not in (2, 3):
        raise ValueError(f"version {version} of the format is not known")
    place, fields = 24, {}
    for _ in range(field_count):
        name, place = _string(blob, place)
        kind, place = _number(blob, place, "<I")
        fields[name], place = _value(blob, place, kind)
    found = {}
    for _ in range(tensor_count):
        name, place = _string(blob, place)
        dimensions, place = _number(blob, place, "<I")
        shape = struct.unpack_from(f"<{dimensions}Q", blob, place)
        kind, offset = struct.unpack_from("<IQ", blob, place + 8 * dimensions)
        place += 8 * dimensions + 12
        stored = GGMLQuantizationType(kind)
        values, block_bytes = GGML_QUANT_SIZES[stored]
        nbytes = math.prod(shape) // values * block_bytes
        found[name] = (tuple(reversed(shape)), stored.name, nbytes, offset)
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    data = -(-place // alignment) * alignment
    tensors = {name: GgufTensor(*rest, data + offset) for name, (*rest, offset) in found.items()}
    end = max((tensor.start + tensor.nbytes for tensor in tensors.values()), default=data)
    return GgufHeader(path, _file_type(fields, tensors), tensors, fields), end


def _file_type(fields: dict[str, Any], tensors: dict[str, GgufTensor]) -> str:
    """As the file states it, else the type that holds most bytes."""
    from gguf.constants import LlamaFileType

    try:
        name = LlamaFileType(fields["general.file_type"]).name
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        held: dict[str, int] = {}
        for tensor in tensors.values():
            held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.nbytes
        return max(held, key=held.get, default="unknown")


def _number(blob: mmap.mmap, place: int, form: str) -> tuple[Any, int]:
    return struct.unpack_from(form, blob, place)[0], place + struct.calcsize(form)


def _string(blob: mmap.mmap, place: int) -> tuple[str, int]:
    length, place = _number(blob, place, "<Q")
    if place + length > len(blob):
        raise ValueError("a string reaches past the end")
    return blob[place : place + length].decode("utf-8", "replace"), place + length


def _value(blob: mmap.mmap, place: int, kind: int) -> tuple[Any, int]:
    """A value and the place behind it; arrays that are stepped over are None."""
    if kind == STRING:
        return _string(blob, place)
    if kind != ARRAY:
        if kind not in FORMATS:
            raise ValueError(f"a value of type {kind} is not known")
        return _number(blob, place, FORMATS[kind])
    inner, place = _number(blob, place, "<I")
    count, place = _number(blob, place, "<Q")
    if inner in FORMATS:
        end = place + count * struct.calcsize(FORMATS[inner])
        if count > LONGEST_ARRAY:
            return None, end
        return struct.unpack_from(f"<{count}{FORMATS[inner][1]}", blob, place), end
    for _ in range(count):
        if inner == STRING:
            length, place = _number(blob, place, "<Q")
            place += length
        else:
            _, place = _value(blob, place, inner)
    return None, place
