"""How much memory a run may take, and whether a model's weights fit into it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import torch
from torch import nn

from phaseprune.decoder.checkpoint import PLAIN, loaded_files, read_checkpoint
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError

UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
#: Share of the free memory that weights may take before they are streamed, unless told how much.
RESIDENT_SHARE = 0.8
#: The fewest tokens that a block is given at once, unless a single question has fewer.
LEAST_TOKENS = 512
#: Logits held at once where the whole vocabulary is needed (float32 elements); few enough to stay
#: in a processor's cache until they are summed.
LOGIT_ELEMENTS = 2**22
#: On an accelerator where no budget is stated: a part of the head costs a forward of the model's
#: own code, milliseconds of Python, so there should be few.
ACCELERATOR_LOGITS = 2**27
#: Those, their log-probabilities and what lies between.
LOGIT_BYTES = 3 * 4 * LOGIT_ELEMENTS


def parse_bytes(size: str | int) -> int:
    """Bytes that a size such as ``8GB``, ``500M``, ``1.5GiB`` or a number means.

    Raises:
        UserError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(size).strip().upper())
    if match is None or match[2] not in UNITS:
        raise UserError(f"--max-memory={size!r} is no size; write for example 8GB or 500MB")
    return int(float(match[1]) * UNITS[match[2]])


def in_words(count: int) -> str:
    """Bytes as ``parse_bytes`` reads them, rounded up: ``1.7GB``, ``240MB``."""
    unit, scale = ("GB", 10**9) if count >= 10**10 else ("MB", 10**6)
    return f"{math.ceil(count / scale):,}{unit}".replace(",", "")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device: an accelerator's own, or the machine's (or container's).

    What torch has taken from a GPU and holds ready for tensors to come is free, too.
    """
    if device.type == "cuda":
        ready = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + ready
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        free.append(1024 * _number(Path("/proc/meminfo"), "MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        free.append(most - used + _number(group / "memory.stat", "inactive_file"))
    except (OSError, ValueError, StopIteration):  # another system, or no limit
        pass
    return max(0, min(free))


def _number(path: Path, name: str) -> int:
    lines = path.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def fits(source: Source, dtype: torch.dtype | None, device: str, max_memory: int | None) -> bool:
    """Whether a checkpoint's weights fit into the budget when they are all loaded.

    Only the files' headers are read, and those only where it is close.

    Args:
        source: the files.
        dtype: that the weights are loaded in; None for the checkpoint's own.
        device: where to.
        max_memory: the budget; None for most of what is free there.
    """
    most = max_memory
    if most is None:
        most = int(RESIDENT_SHARE * free_memory(torch.device(device)))
    if source.gguf_file:
        tensors = read_checkpoint(source).tensors.values()
        return sum(math.prod(t.shape) for t in tensors) * (dtype or torch.float32).itemsize <= most
    on_disk = sum(path.stat().st_size for path in source.weight_files)
    if 4 * on_disk <= most:  # no dtype is stored in less than a quarter of what it is loaded in
        return True
    if not all(path.is_file() for path in loaded_files(source)):
        return True  # loading says what is missing
    tensors = read_checkpoint(source).tensors.values()
    return (
        sum(
            math.prod(t.shape) * dtype.itemsize if dtype and t.dtype in PLAIN else t.nbytes
            for t in tensors
        )
        <= most
    )


def working_bytes(blocks: nn.ModuleList, tokens: int, itemsize: int) -> int:
    """What a block makes of so many tokens before it is done, and the logits that are held at once.

    The outputs of all of its matrix products, twice.
    """
    values = sum(max(p.shape[-2:]) for p in blocks[0].parameters() if p.dim() > 1)
    return 2 * tokens * values * itemsize + LOGIT_BYTES
