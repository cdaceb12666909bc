"""Configuration values that speak of blocks: one by one, or by counting them.

Every per-block list is filtered by the kept blocks: keeping its first entries instead would give a
valid file with wrong logits. Fields that count blocks (an index, a number from one end, a period)
are not known by name: one counts blocks if changing it by one changes which blocks are alike (or
how many there are). What it must be after a removal is tried out: the few values that such counts
can become, each judged by the blocks that it makes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
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
#: builds blocks by are found by what they do; these say what a list says too.
FROM_THE_START = ("max_window_layers",)
#: Combinations of values that are tried for one removal.
TRIALS = 200


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


def positional_fields(
    values: dict[str, Any], blocks: int, changes_blocks: Callable[[dict[str, Any]], bool]
) -> list[str]:
    """Names of the fields that count blocks.

    Args:
        values: of the full model's configuration.
        blocks: how many it has.
        changes_blocks: whether changed values change which blocks are alike, or their number.
    """
    found = []
    for name, value in values.items():
        for other in _neighbours(name, value, blocks):
            if changes_blocks(values | {name: other}):
                found.append(name)
                break
    return found


def rewritings(
    values: dict[str, Any], fields: Sequence[str], blocks: int, kept: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """What the fields may have to be after a removal, likelier combinations first."""
    choices = [_after_removal(values[name], blocks, kept) for name in fields]
    ordered = sorted(product(*map(enumerate, choices)), key=lambda c: sum(rank for rank, _ in c))
    for combination in ordered[:TRIALS]:
        yield dict(zip(fields, (value for _, value in combination), strict=True))


def toggled(
    values: dict[str, Any], fields: Sequence[str], positions: set[int]
) -> Iterator[dict[str, Any]]:
    """Lists of block indices that take in (or leave out) the blocks at some positions."""
    for name in fields:
        if isinstance(values[name], list):
            yield {name: sorted(set(values[name]) ^ positions)}


def _neighbours(name: str, value: Any, blocks: int) -> list[Any]:
    """Values beside the field's own, to see what it does; none where it cannot count blocks."""
    if NOT_PER_BLOCK.search(name):
        return []
    if type(value) is int and 0 <= value <= blocks:
        return [value + 1, *([value - 1] if value else [])]
    if isinstance(value, list | tuple) and len(value) < blocks:
        if is_index_list(name, value, blocks) and INDICES.search(name):
            return [value[1:], [*value[:-1]]] if value else [[0], [blocks - 1]]
        if len(value) > 1 and all(isinstance(item, str) for item in value):
            return [[*value[1:], value[0]]]
    return []


def _after_removal(value: Any, blocks: int, kept: Sequence[int]) -> list[Any]:
    if isinstance(value, list | tuple):
        if all(isinstance(item, str) for item in value) and value:  # a period, written out
            return [[value[block % len(value)] for block in kept]]
        return [renumbered_indices(value, kept)]

    def below(bound: int) -> int:
        return sum(block < bound for block in kept)

    from_the_end = len(kept) - below(blocks - value)
    counts = [value, below(value), from_the_end, max(0, below(value + 1) - 1), 1]
    return list(dict.fromkeys(counts))
