"""The names, shapes and bytes of a checkpoint's tensors, without reading a tensor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from phaseprune.decoder.source import (
    INDEX,
    SINGLE,
    Source,
    check_weight_files,
    loaded_files,
    read_index,
    weight_map,
)
from phaseprune.errors import UserError

#: A safetensors header is at most so long (the format's own limit).
HEADER_BYTES = 100_000_000
#: dtypes in which a quantised checkpoint keeps what is not quantised.
PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint; all None where only its name is known."""

    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    nbytes: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint by name; None where nothing of them is known yet.

    ``file_type`` is that of a GGUF file (``Q4_1``), else None.
    """

    tensors: Mapping[str, StoredTensor] | None
    disk_bytes: int | None
    file_type: str | None = None

    @property
    def has_shapes(self) -> bool:
        """Whether the shapes are known, not the names alone."""
        return bool(self.tensors) and all(t.shape is not None for t in self.tensors.values())

    @property
    def longest_list(self) -> int | None:
        """How many numbers the names have at one place at most: a list of blocks is no longer."""
        if self.tensors is None:
            return None
        found: dict[str, set[str]] = {}
        for name in self.tensors:
            parts = name.split(".")
            for place, part in enumerate(parts):
                if part.isdigit():
                    found.setdefault(".".join(parts[:place]), set()).add(part)
        return max(map(len, found.values()), default=0)

    @property
    def dtype(self) -> str | None:
        """The dtype that holds most bytes."""
        held: Counter[str] = Counter()
        for tensor in (self.tensors or {}).values():
            if tensor.dtype is not None:
                held[PLAIN.get(tensor.dtype, tensor.dtype)] += tensor.nbytes
        return held.most_common(1)[0][0] if held else None


def read_checkpoint(source: Source) -> Checkpoint:
    """Read the headers of a checkpoint's files, or its index where its weights are on the hub.

    Raises:
        UserError: pickles, missing shards, or a file that is damaged or cut short.
    """
    if source.gguf_file:
        header = source.gguf_header
        tensors = {n: StoredTensor(t.shape, t.dtype, t.nbytes) for n, t in header.tensors.items()}
        return Checkpoint(tensors, header.path.stat().st_size, header.file_type)
    paths = loaded_files(source)
    if source.on_hub and not (paths and all(path.is_file() for path in paths)):
        return _from_hub(source)
    check_weight_files(source)
    if not paths:
        raise UserError(
            f"{source.name}: the directory has neither {SINGLE} nor {INDEX}, which are what "
            "transformers loads; give a full checkpoint"
        )
    tensors = {}
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{source.name}: the index names {path.name}, which is not there; fetch the "
                "missing files"
            )
        tensors |= read_safetensors_header(path)
    return Checkpoint(tensors, sum(path.stat().st_size for path in paths))


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors that a safetensors file tells of.

    Raises:
        UserError: it is damaged or cut short.
    """
    size = path.stat().st_size
    with open(path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(size - 8, HEADER_BYTES):
            raise UserError(f"{path.name} {_what_it_is(path)}; fetch it again")
        text = handle.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {
            name: _stored(entry["shape"], entry["dtype"], entry["data_offsets"])
            for name, entry in entries.items()
        }
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise UserError(f"{path.name} has a damaged header; fetch it again") from None
    if size < 8 + length + end:
        raise UserError(
            f"{path.name} is cut short: it has {size:,} bytes and its header tells of "
            f"{8 + length + end:,}; fetch it again"
        )
    return tensors


def _stored(shape: Iterable[int], dtype: str, offsets: tuple[int, int]) -> StoredTensor:
    return StoredTensor(tuple(map(int, shape)), str(dtype), offsets[1] - offsets[0])


def _what_it_is(path: Path) -> str:
    with open(path, "rb") as handle:
        pointer = handle.read(40).startswith(b"version https://git-lfs")
    return "is a Git LFS pointer, not the weights" if pointer else "is no safetensors file"


def _from_hub(source: Source) -> Checkpoint:
    """The headers alone by range requests; where the hub cannot be reached, the index on disk."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError

    try:
        found = HfApi().get_safetensors_metadata(source.name, revision=source.revision)
    except NotASafetensorsRepoError:
        raise UserError(
            f"{source.name}: the hub has no safetensors of this model; pickles (.bin) can run code "
            "when they are loaded, so convert them (save_pretrained of a trusted copy) and give "
            "that directory"
        ) from None
    except Exception:  # noqa: BLE001 - no network, a proxy, a limit: the index still tells names
        return _from_index(source)
    tensors = {
        name: _stored(tensor.shape, tensor.dtype, tensor.data_offsets)
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return Checkpoint(tensors, sum(tensor.nbytes for tensor in tensors.values()))


def _from_index(source: Source) -> Checkpoint:
    path = source.directory / INDEX
    if not path.is_file():
        return Checkpoint(None, None)
    names = weight_map(source)
    told = read_index(source).get("metadata")
    size = told.get("total_size") if isinstance(told, Mapping) else None
    return Checkpoint(dict.fromkeys(names, StoredTensor()), size)
