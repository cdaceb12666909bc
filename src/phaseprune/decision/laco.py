"""Layer Collapse (Yang et al., arXiv 2402.11187): which blocks are merged into which.

The block l that stays takes in the m blocks after it by adding what each differs from it (the
paper's Reserving-Differences-while-Seeking-Common merge):

    theta*_l = theta_l + sum_k (theta_l+k - theta_l),    k = 1 … m.

The search walks from the last blocks towards the embeddings, in the model that is left: it merges
the window that begins at its place if the last hidden states stay similar enough to the full
model's, and goes on an interval further down; else it goes on one block further down. A window may
hold blocks that have taken in others before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: C, the blocks of a window: one that stays and those that it takes in.
COMBINED = 4
#: I, how far down the search goes after a merge. L, the lowest block that may stay, is 0, and H,
#: that of which the first window begins C below, is the last block.
INTERVAL = 1
#: Thresholds are whole numbers of this part. The least merges whatever it meets, the largest
#: nothing: a cosine is never more than 1.
STEP = 0.01
LEAST, LARGEST = -101, 100

#: Block that stays -> original block -> whole number: its weights are that sum of original ones.
Mixtures = dict[int, dict[int, int]]


@dataclass(frozen=True)
class Merge:
    """One merge.

    Attributes:
        into: original index of the block that stays.
        blocks: original indices of those that it takes in and that go, rising.
        similarity: of the last hidden states after it to the full model's; NaN before that is
            known.
    """

    into: int
    blocks: tuple[int, ...]
    similarity: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"blocks": list(self.blocks)}


#: What merging a block and the blocks that it takes in would leave of the last hidden states: told
#: the merges so far and that one, (into, blocks) each.
Similarity = Callable[[tuple[tuple[int, tuple[int, ...]], ...]], float]


def collapse(
    blocks: int,
    threshold: float,
    similarity: Similarity,
    number: int,
    protect: Collection[int] = (),
    *,
    combined: int = COMBINED,
    interval: int = INTERVAL,
) -> tuple[Merge, ...]:
    """The published search at one threshold, until so many blocks are gone.

    Args:
        blocks: L.
        threshold: T; a merge is made if the similarity after it is above.
        similarity: see ``Similarity``.
        number: of blocks that are to go at most. A window holds no more than are still to go.
        protect: original indices of blocks that neither go nor change: no window begins at one or
            reaches over one.
        combined: C.
        interval: I.

    Returns:
        The merges in the order in which they are made.
    """
    live, merges = list(range(blocks)), ()
    place = blocks - 1 - combined
    while place >= 0 and number > 0:
        into, window = live[place], []
        for block in live[place + 1 : place + min(combined, number + 1)]:
            if block in protect:
                break
            window.append(block)
        made = False
        if window and into not in protect:
            merge = Merge(into, tuple(window))
            found = similarity(tuple((each.into, each.blocks) for each in (*merges, merge)))
            made = found > threshold
        if made:
            merges = (*merges, Merge(into, merge.blocks, found))
            live = [block for block in live if block not in window]
            number -= len(window)
        place -= interval if made else 1
    return merges


def most_merged(blocks: int, protect: Collection[int] = ()) -> int:
    """How many blocks can go: as many as where every merge is made."""
    return len(gone(collapse(blocks, 0.0, lambda merges: 1.0, blocks, protect)))


def largest_threshold(
    search: Callable[[float], tuple[Merge, ...]], number: int
) -> tuple[float, tuple[Merge, ...]]:
    """The largest threshold at which enough blocks go, by bisection in whole hundredths.

    More blocks need not go at each smaller threshold, as other merges are met there; so what is
    found is a threshold at which enough go and a hundredth above which they do not.

    Args:
        search: the merges at a threshold.
        number: of blocks that are to go, at most ``most_merged``.

    Returns:
        The threshold and its merges.
    """
    low, high = LEAST, LARGEST
    merges = None
    while high - low > 1:
        middle = (low + high) // 2
        found = search(middle * STEP)
        if len(gone(found)) >= number:
            low, merges = middle, found
        else:
            high = middle
    return round(low * STEP, 2), search(low * STEP) if merges is None else merges


def gone(merges: Sequence[Merge]) -> tuple[int, ...]:
    """The blocks that go, in the order in which they are taken in."""
    return tuple(block for merge in merges for block in merge.blocks)


def mixtures(merges: Sequence[Merge], number: int | None = None) -> Mixtures:
    """What the blocks that stay and change are made of, in original blocks.

    Args:
        merges: in the order in which they are made.
        number: take only so many blocks in; a merge that is cut short takes in its first ones.

    Returns:
        For each such block whole numbers that sum to 1; originals that weigh nothing are left out.
    """
    left = len(gone(merges)) if number is None else number
    made: Mixtures = {}
    for merge in merges:
        taken = merge.blocks[:left]
        left -= len(taken)
        if not taken:
            break
        own = made.get(merge.into, {merge.into: 1})
        total = {block: (1 - len(taken)) * weight for block, weight in own.items()}
        for one in taken:
            for block, weight in made.pop(one, {one: 1}).items():
                total[block] = total.get(block, 0) + weight
        made[merge.into] = {block: total[block] for block in sorted(total) if total[block]}
    return made


def read_merges(lines: Sequence[Mapping[str, Any]]) -> tuple[Merge, ...]:
    """Merges from what ``Merge.to_dict`` made of them."""
    return tuple(Merge(line["into"], tuple(line["blocks"]), line["similarity"]) for line in lines)


def written(made: Mixtures) -> dict[str, dict[str, int]]:
    """Mixtures as JSON has them, whose keys are strings."""
    return {
        str(into): {str(block): weight for block, weight in of.items()} for into, of in made.items()
    }


def read_mixtures(stored: Mapping[str, Mapping[str, int]] | None) -> Mixtures:
    """Mixtures from what ``written`` made of them; empty for None."""
    return {
        int(into): {int(block): weight for block, weight in of.items()}
        for into, of in (stored or {}).items()
    }


def merged_words(stored: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Each of some written mixtures as a sum: ``block 9 = -2 x 9 + 10 + 11 + 12``."""
    return [
        f"block {into} = {' + '.join(_term(block, weight) for block, weight in of.items())}"
        for into, of in stored.items()
    ]


def _term(block: str, weight: int) -> str:
    return block if weight == 1 else f"{weight} x {block}"
