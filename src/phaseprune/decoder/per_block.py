"""Configuration values that speak of blocks one by one, cut down to the kept blocks.

Every per-block list is filtered by the kept blocks: keeping its first entries instead would give a
valid file with wrong logits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: Lists and tables that are not per block, whatever their length happens to be.
NOT_PER_BLOCK = re.compile(
    r"token|architectures|id2label|label2id|^rope_|multipliers|time_step_limit|quantization"
)
#: Names under which a list of ascending numbers is one of block indices.
INDICES = re.compile(r"layer|block|idx|index|ids$")
#: Names under which a string has a letter for each block, as Nemotron-H's ``M-M*``.
LETTERS = re.compile(r"pattern|layer_types?$|block_types?$")
#: Numbers of blocks from the first on that are otherwise than the rest. Those that transformers
#: builds blocks by are found by what they do (``positional``); these say what a list says too.
FROM_THE_START = ("max_window_layers",)


def part_of_blocks(config: Any) -> str | None:
    """The nested configuration that the blocks belong to; None where it is not nested."""
    text = config.get_text_config(decoder=True)
    for name in () if text is config else config.to_dict():
        if getattr(config, name, None) is text:
            return name
    return None


def values_of_blocks(config: Any) -> dict[str, Any]:
    """The values of the configuration (or of the part) that the blocks belong to."""
    values, part = config.to_dict(), part_of_blocks(config)
    return values[part] if part else values


def cut_to_kept(values: dict[str, Any], blocks: int, kept: Sequence[int]) -> dict[str, Any]:
    """A copy of a configuration's values with everything that is per block cut to the kept blocks.

    Lists of one entry a block are filtered, and strings of one letter a block; lists of block
    indices re-numbered, tables by block index both, patterns ``[[[entries], times], ...]`` and
    periodic lists written out; also in parts of the configuration that are dictionaries themselves.

    Args:
        values: from the configuration's ``to_dict``.
        blocks: of the full model.
        kept: original indices, in order.
    """
    return {name: _cut(name, value, blocks, kept) for name, value in values.items()}


def _cut(name: str, value: Any, blocks: int, kept: Sequence[int]) -> Any:
    if not value or NOT_PER_BLOCK.search(name):
        return value
    if isinstance(value, dict):
        if _is_table(value, blocks):
            return _cut_table(value, kept)
        return cut_to_kept(value, blocks, kept)
    if name in FROM_THE_START and type(value) is int and value <= blocks:
        return sum(block < value for block in kept)
    if isinstance(value, str) and LETTERS.search(name) and len(value) == blocks:
        return "".join(value[block] for block in kept)
    if not isinstance(value, list | tuple):
        return value
    if is_index_list(name, value, blocks):
        return renumbered_indices(value, kept)
    if len(value) == blocks:
        return [value[block] for block in kept]
    written_out = _written_out(value)
    if written_out is not None and len(written_out) == blocks:
        return [[[written_out[block] for block in kept], 1]]
    return value


def is_index_list(name: str, value: Sequence[Any], blocks: int) -> bool:
    """Whether a list holds indices of blocks, and not one entry a block."""
    numbers = all(type(item) is int and 0 <= item < blocks for item in value)
    ascending = numbers and all(a < b for a, b in zip(value, value[1:], strict=False))
    return ascending and bool(INDICES.search(name))


def renumbered_indices(value: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Indices of blocks as they are after the removal; those of removed blocks go."""
    return [kept.index(block) for block in value if block in kept]


def _is_table(value: dict[Any, Any], blocks: int) -> bool:
    return all(str(key).isdigit() and int(key) < blocks for key in value)


def _cut_table(table: dict[Any, Any], kept: Sequence[int]) -> dict[Any, Any]:
    cut = {}
    for key, value in table.items():
        if int(key) in kept:
            number = kept.index(int(key))
            cut[number if isinstance(key, int) else f"{number:0{len(key)}d}"] = value
    return cut


def _written_out(value: Sequence[Any]) -> list[Any] | None:
    """``[[["a", "b"], 2]]`` as ``["a", "b", "a", "b"]``; None where it is no such thing."""
    entries: list[Any] = []
    for item in value:
        pair = isinstance(item, list | tuple) and len(item) == 2
        if not (pair and isinstance(item[0], list | tuple) and type(item[1]) is int):
            return None
        entries += [*item[0]] * item[1]
    return entries
