"""Units of a forest laid out as one packed row: which tokens ask, and where their keys stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from phaseprune.decoder.packed_attention import Asking, Group, Packing
from phaseprune.sweep.forest import Scored, Unit

#: A unit joins a group if it has at least this share of the tokens of the group's longest.
ALIKE = 0.75


def pack(
    units: Sequence[Unit], first: int, last: int, device: torch.device | str
) -> tuple[Packing, list[Scored]]:
    """The packed row of the units ``first`` to ``last`` (excluded) of a forest.

    Args:
        units: all units; a trunk may stand in an earlier row.
        first: number of the first unit of the row.
        last: number behind the last.
        device: where the tensors go.

    Returns:
        The row, and what is scored in it by the number of the token in the row.
    """

    def tensor(values) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), device=device)

    starts, scored = {}, []
    tokens: list[int] = []
    positions: list[int] = []
    for number in range(first, last):
        unit = units[number]
        starts[number] = len(tokens)
        scored += [(len(tokens) + place, target, slot) for place, target, slot in unit.scored]
        tokens += unit.tokens
        positions += unit.positions
    reads = sorted({place for place, _, _ in scored})
    alike = list(_alike(units, first, last))
    trunks = {trunk for unit in units for trunk in unit.trunk}
    packing = Packing(
        tokens=tensor([tokens]),
        positions=tensor([positions]),
        reads=tensor(np.array(reads, dtype=np.int64)),
        groups=tuple(_group(units, numbers, starts, tensor) for numbers in alike),
        everyone=_asking(units, alike, starts, range(len(tokens)), tensor),
        readers=_asking(units, alike, starts, reads, tensor),
        kept=tuple(
            (number, start, start + len(units[number].tokens))
            for number, start in starts.items()
            if number in trunks
        ),
    )
    return packing, scored


def _alike(units: Sequence[Unit], first: int, last: int) -> Iterator[list[int]]:
    """Neighbouring units with the same trunk and of similar length."""
    group: list[int] = []
    for number in range(first, last):
        if group:
            longest = max(len(units[n].tokens) for n in (*group, number))
            shortest = min(len(units[n].tokens) for n in (*group, number))
            same = units[group[0]].trunk == units[number].trunk
            if not same or shortest < ALIKE * longest:
                yield group
                group = []
        group.append(number)
    yield group


def _group(units: Sequence[Unit], numbers: Sequence[int], starts, tensor) -> Group:
    longest = max(len(units[number].tokens) for number in numbers)
    trunk = units[numbers[0]].trunk
    before = [position for number in trunk for position in units[number].positions]
    index = np.zeros((len(numbers), longest), dtype=np.int64)
    positions = np.zeros((len(numbers), len(before) + longest), dtype=np.int64)
    positions[:, : len(before)] = before
    for row, number in enumerate(numbers):
        length = len(units[number].tokens)
        index[row, :length] = range(starts[number], starts[number] + length)
        positions[row, len(before) : len(before) + length] = units[number].positions
    return Group(tensor(index.ravel()), len(numbers), trunk, tensor(positions))


def _asking(
    units: Sequence[Unit], alike: Sequence[list[int]], starts, asking: Sequence[int], tensor
) -> Asking:
    """The layout of some tokens of the row, ``asking`` in order, as those that attend."""
    number_of = {token: number for number, token in enumerate(asking)}
    order = np.zeros(len(asking), dtype=np.int64)
    index, visible, positions, places = [], [], [], 0
    for numbers in alike:
        longest = max(len(units[number].tokens) for number in numbers)
        before = sum(len(units[number].tokens) for number in units[numbers[0]].trunk)
        inside = [
            [t for t in range(len(units[n].tokens)) if starts[n] + t in number_of] for n in numbers
        ]
        most = max(map(len, inside))
        asked = np.zeros((len(numbers), most), dtype=np.int64)
        seen = np.zeros((len(numbers), most, before + longest), dtype=bool)
        at = np.zeros((len(numbers), most), dtype=np.int64)
        for row, (number, chosen) in enumerate(zip(numbers, inside, strict=True)):
            unit, count = units[number], len(chosen)
            if not count:
                continue
            asked[row, :count] = [number_of[starts[number] + t] for t in chosen]
            order[asked[row, :count]] = places + row * most + np.arange(count)
            seen[row, :count, :before] = True
            seen[row, :count, before : before + len(unit.tokens)] = unit.visible()[chosen]
            at[row, :count] = np.array(unit.positions)[chosen]
        places += len(numbers) * most
        index.append(tensor(asked.ravel()))
        visible.append(tensor(seen))
        positions.append(tensor(at))
    return Asking(tuple(index), tuple(visible), tuple(positions), tensor(order))
