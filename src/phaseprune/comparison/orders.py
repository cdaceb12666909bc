"""Which rankings a comparison of methods needs, and which blocks each then removes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaseprune.comparison.pruned import Pruned, of_ranking
from phaseprune.decision import rankings
from phaseprune.errors import UserError, near_matches
from phaseprune.methods.registry import METHODS, TEXT


@dataclass(frozen=True)
class Wanted:
    """One ranking: what ``rank_blocks`` is told, and what it is for.

    Attributes:
        method: its name.
        remove: how many blocks; None for all that may go.
        seed: of what is drawn.
        number: of a method that chooses anew for each number, the one it is for; else None.
        draw: of a method that draws, which draw; else None.
    """

    method: str
    remove: int | None
    seed: int
    number: int | None = None
    draw: int | None = None

    @property
    def key(self) -> tuple[str, int | None, int | None]:
        """By which a ranking that is done is found again."""
        return self.method, self.number, self.draw

    @property
    def on_text(self) -> bool:
        """Whether it looks at plain text; else at questions, if at anything."""
        return TEXT in METHODS[self.method].needs


def method_names(names: Iterable[str] | None) -> tuple[str, ...]:
    """The methods to compare, in the order of the registry; all but the expensive ones for None.

    ``all`` stands for all of them.

    Raises:
        UserError: no name, or one that is none; with near matches.
    """
    if names is None:
        return tuple(name for name, method in METHODS.items() if not method.expensive)
    asked = list(names)
    if not asked:
        raise UserError("--methods names none; leave it out for all, or see `phaseprune methods`")
    if "all" in asked:
        return tuple(METHODS)
    for name in asked:
        if name not in METHODS:
            raise UserError(
                f"--methods names {name!r}, which is none of {', '.join(METHODS)}."
                + near_matches(name, METHODS)
            )
    return tuple(name for name in METHODS if name in asked)


def check_numbers(
    blocks: int, remove: Sequence[int] | None, protect: Collection[int]
) -> tuple[int, ...]:
    """The numbers of removed blocks to compare at, rising; all there are for None.

    Raises:
        UserError: a number that cannot be removed, or protections that leave nothing.
    """
    candidates = rankings.removable(blocks, protect)
    if remove is None:
        return tuple(range(1, rankings.check_number(blocks, candidates) + 1))
    if not remove:
        raise UserError("--remove names no number; give some, as 2,4,6, or all")
    return tuple(sorted({rankings.check_number(blocks, candidates, number) for number in remove}))


def wanted_rankings(
    method: str,
    blocks: int,
    numbers: Sequence[int],
    protect: Collection[int],
    draws: int,
    seed: int,
) -> list[Wanted]:
    """The rankings that a method is compared by.

    Args:
        method: its name.
        blocks: L.
        numbers: of removed blocks, rising.
        protect: blocks that no method removes.
        draws: of a method that draws.
        seed: of the comparison.
    """
    found = METHODS[method]
    if found.anew:
        return [Wanted(method, number, seed, number=number) for number in numbers]
    protected = frozenset(protect) | found.protected(blocks)
    most = min(numbers[-1], blocks - max(1, len(protected)))
    remove = most if most > 0 else None  # None: rank_blocks then says what is wrong
    if found.measure == "random":
        return [Wanted(method, remove, draw_seed(seed, draw), draw=draw) for draw in range(draws)]
    return [Wanted(method, remove, seed)]


def draw_seed(seed: int, draw: int) -> int:
    """The seed of one draw: no two draws of two comparisons share theirs."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])


def key_of(line: Mapping[str, Any]) -> tuple[str, int | None, int | None]:
    """``Wanted.key`` of a line of ``rankings.jsonl``."""
    return line["method"], line["number"], line["draw"]


def chosen_sets(
    lines: Iterable[Mapping[str, Any]], numbers: Sequence[int]
) -> dict[str, dict[int, list[Pruned]]]:
    """What each method leaves at each number, one model a draw, as lines of ``rankings.jsonl`` say.

    A number is left out where a method has no order so long.

    Args:
        lines: the rankings.
        numbers: of removed blocks.

    Returns:
        Method -> number -> pruned models.
    """
    found: dict[str, dict[int, list[Pruned]]] = {}
    for line in lines:
        own = numbers if line["number"] is None else [line["number"]]
        for number in own:
            if number <= len(line["order"]):
                sets = found.setdefault(line["method"], {}).setdefault(number, [])
                sets.append(of_ranking(line, number))
    return {method: found[method] for method in METHODS if method in found}
