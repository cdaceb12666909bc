"""Configuration fields that count blocks: an index, a number from one end, a period.

None is known by name. A field counts blocks if changing it by one changes which blocks are alike
(or how many there are). What it must be after a removal is tried out: the few values that such
counts can become, each judged by the blocks that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

from phaseprune.decoder.per_block import INDICES, NOT_PER_BLOCK, is_index_list, renumbered_indices

#: Combinations of values that are tried for one removal.
TRIALS = 200


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
