"""How much memory a run may take, and what for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Rows

#: Share of the free memory that a run takes unless it is told how much.
DEFAULT_SHARE = 0.6
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
         "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Bytes that a size such as ``8GB``, ``500M`` or ``1.5GiB`` means.

    Raises:
        UserError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", text.strip().upper())
    if match is None or match[2] not in UNITS:
        raise UserError(f"--max-memory {text!r} is no size; write for example 8GB or 500MB")
    return int(float(match[1]) * UNITS[match[2]])


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device: an accelerator's own, or the machine's (or container's)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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


def state_budget(decoder: Decoder) -> int:
    """Bytes that hidden states may take: what the run may take, without the weights."""
    if decoder.max_memory is None:
        return int(DEFAULT_SHARE * free_memory(decoder.device))
    return max(0, decoder.max_memory - decoder.weight_bytes)


def stream_bytes(decoder: Decoder, tokens: int) -> int:
    """Bytes of one stream's hidden states of so many tokens."""
    return tokens * decoder.width * decoder.dtype.itemsize


def shard_tokens(decoder: Decoder) -> int:
    """Tokens of a shard of which all streams of a step fit into half of the budget, twice."""
    a_token = 2 * (len(decoder.blocks) + 1) * stream_bytes(decoder, 1)
    return max(1, state_budget(decoder) // 2 // a_token)


def kept_budget(decoder: Decoder, rows: Rows) -> int:
    """Bytes of states that may be kept from step to step beside those of the step itself."""
    step = 2 * (len(decoder.blocks) + 1) * stream_bytes(decoder, rows.largest_shard)
    return max(0, state_budget(decoder) - step)
