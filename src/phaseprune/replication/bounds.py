"""The most block passes of experiments whose cost depends on what they find."""

from __future__ import annotations

from math import comb

from phaseprune.probes.phasewise_sets import Pool, Windows, kinds_of


def ladder_passes(blocks: int, removed: int) -> int:
    """The most block passes of a ladder of models, each without one block more.

    At a block, models are apart by the removed blocks before it. So a block is run once more for
    each block before it that is removed earlier, and R(L-R) + R(R-1)/2 pairs can be that at most:
    when the first blocks go, in order.
    """
    return blocks + removed * (blocks - removed) + removed * (removed - 1) // 2


def phasewise_passes(blocks: int, draws: int, most: int | None) -> tuple[int, int]:
    """The most block passes and readings of ``phasewise``, whatever the transition.

    Args:
        blocks: L.
        draws: sets of each kind and number of blocks.
        most: the largest number of blocks; where the smaller phase has fewer, and for None, its.

    Returns:
        Block passes of the full model and of all sets, and how many models are read. Sets are
        those of ``set_passes``; the full model is run for each number of blocks, 0 among them.
    """
    bounds = [(0, 0)]
    for silent in range(1, blocks):
        largest = min(silent, blocks - silent, most or blocks)
        passes, readings = blocks, 1
        for count in range(1, largest + 1):
            passes += set_passes(blocks, silent, count, draws)
            readings += min(comb(blocks, count), sum(sets_of(blocks, silent, count, draws)))
        bounds.append((passes, readings))
    passes, readings = zip(*bounds, strict=True)
    return max(passes), max(readings)


def set_passes(blocks: int, silent: int, count: int, draws: int) -> int:
    """The most block passes of the sets of ``count`` blocks with so many Silent blocks.

    Sets are one stream while they agree, so beside the L passes of the full model a pool of K sets,
    drawn from block a on, has at block b no more streams than there are choices of 1 to m of the
    w blocks of the pool before b, and no set runs more than L - a - m blocks by itself:
    min(sum over b of min(K, C(w,1) + ... + C(w,m)), K (L - a - m)). A window from block a on runs
    L - a - m blocks by itself. Of single blocks every one is removed, once. The transition is not
    known before, so ``paper`` takes the largest figure of all.
    """
    if count == 1:
        return blocks + blocks * (blocks - 1) // 2
    passes = blocks
    for pool in _pools(blocks, silent):
        sets, first = min(draws, pool.count(count)), pool.blocks[0]
        streams = 0
        for block in range(blocks):
            before = min(max(block - first, 0), len(pool.blocks))
            streams += min(sets, sum(comb(before, m) for m in range(1, count + 1)))
        passes += min(streams, sets * (blocks - first - count))
    for windows in _windows(blocks, silent):
        alone = [blocks - one[0] - count for one in windows.all(count)]
        passes += sum(sorted(alone, reverse=True)[:draws])
    return passes


def _pools(blocks: int, silent: int) -> list[Pool]:
    """What sets of any blocks are drawn from; kinds with the same blocks have the same sets."""
    kinds = kinds_of(range(silent), range(silent, blocks))
    pools = {kinds[name].blocks: kinds[name] for name in kinds if not name.startswith("window")}
    return list(pools.values())


def _windows(blocks: int, silent: int) -> list[Windows]:
    kinds = kinds_of(range(silent), range(silent, blocks))
    return [kinds[name] for name in kinds if name.startswith("window")]


def sets_of(blocks: int, silent: int, count: int, draws: int) -> list[int]:
    """How many sets are drawn of each pool: so many, or all sets where these are fewer."""
    if count == 1:
        return [blocks]
    kinds = [*_pools(blocks, silent), *_windows(blocks, silent)]
    return [min(draws, kind.count(count)) for kind in kinds]
