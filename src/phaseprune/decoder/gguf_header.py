"""What the header of a GGUF file says, without its tensors.

The gguf package's own reader makes an array of every token of the vocabulary, which takes seconds;
here those are stepped over.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError

#: Formats of the values of one size, by their type in the file.
FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
           11: "<q", 12: "<d"}  # fmt: skip
STRING, ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file: its shape as PyTorch has it, its type's name, its bytes."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What most tensors are stored as (``Q4_1``, ``F16``, ...), and the tensors by their names."""

    file_type: str
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header.

    Raises:
        UserError: the file is not GGUF, damaged, or shorter than its header says.
    """
    try:
        with (
            open(path, "rb") as handle,
            mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as blob,
        ):
            header, end = _parse(blob)
            size = len(blob)
    except (ValueError, struct.error, IndexError) as error:
        raise UserError(f"{path.name} cannot be read as GGUF ({error}); fetch it again") from None
    if size < end:
        raise UserError(
            f"{path.name} is cut short: it has {size:,} bytes and its header tells of {end:,}; "
            "fetch it again"
        )
    return header


def _parse(blob: mmap.mmap) -> tuple[GgufHeader, int]:
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
    tensors, ends = {}, [0]
    for _ in range(tensor_count):
        name, place = _string(blob, place)
        dimensions, place = _number(blob, place, "<I")
        shape = struct.unpack_from(f"<{dimensions}Q", blob, place)
        kind, offset = struct.unpack_from("<IQ", blob, place + 8 * dimensions)
        place += 8 * dimensions + 12
        stored = GGMLQuantizationType(kind)
        values, block_bytes = GGML_QUANT_SIZES[stored]
        nbytes = math.prod(shape) // values * block_bytes
        tensors[name] = GgufTensor(tuple(reversed(shape)), stored.name, nbytes)
        ends.append(offset + nbytes)
    alignment = fields.get("general.alignment", 32)
    data = -(-place // alignment) * alignment
    return GgufHeader(_file_type(fields, tensors), tensors), data + max(ends)


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
    """A value and the place behind it; arrays are stepped over and are None."""
    if kind == STRING:
        return _string(blob, place)
    if kind != ARRAY:
        if kind not in FORMATS:
            raise ValueError(f"a value of type {kind} is not known")
        return _number(blob, place, FORMATS[kind])
    inner, place = _number(blob, place, "<I")
    count, place = _number(blob, place, "<Q")
    if inner in FORMATS:
        return None, place + count * struct.calcsize(FORMATS[inner])
    for _ in range(count):
        if inner == STRING:
            length, place = _number(blob, place, "<Q")
            place += length
        else:
            _, place = _value(blob, place, inner)
    return None, place
