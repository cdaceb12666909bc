"""What expensive searches cost, in block passes, and the sizes that say so; nothing heavy here."""

from __future__ import annotations

from math import ceil

from phaseprune.decision.laco import COMBINED

#: Sets that a beam search keeps at each step.
WIDTH = 3
#: Sets of a generation of an evolutionary search, and random ones that it begins with.
OFFSPRING, FIRST_DRAWN = 16, 31
#: How many of them go on to more questions, after the first stage and after the second.
SURVIVORS = (4, 1)
#: Shares of the questions that the first stage and the second have seen.
SEEN = (1 / 8, 1 / 2)
#: One generation for so many single switches that a set allows.
SWITCHES = 8
#: The most thresholds that a search for merges looks at.
THRESHOLDS = 9


def sweep(blocks: int, first: int = 0, last: int = 0) -> int:
    """One sweep in which some blocks at the beginning and at the end are no candidates."""
    candidates = range(first, blocks - last)
    if not candidates:
        return 0
    return candidates[-1] + 1 + sum(blocks - 1 - block for block in candidates)


def beams(blocks: int, removed: int) -> int:
    """A sweep for each set of a beam, nothing kept and no candidate met twice."""
    return sum((WIDTH if step else 1) * sweep(blocks - step) for step in range(removed))


def pairs(blocks: int, removed: int) -> int:
    """The full model, every block and every two, nothing kept; one block needs no pairs."""
    passes = blocks + sweep(blocks)
    if removed > 1:
        left = blocks - 1
        passes += sum(left + (left - i) * (left - i - 1) // 2 for i in range(left))
    return passes


def generations(free: int, removed: int) -> int:
    """Generations of a search for so many of the free blocks; one block needs none."""
    return ceil(removed * (free - removed) / SWITCHES) if removed > 1 else 0


def evolution(blocks: int, removed: int) -> int:
    """A sweep, the set that it begins with, and generations on growing shares of the questions.

    Without what sets share; with fewer than 64 questions the shares, and so the cost, are larger.
    """
    if removed == 1:
        return sweep(blocks)
    number = generations(blocks, removed)
    runs = 1 + _stages(FIRST_DRAWN) + number * _stages(OFFSPRING)
    return sweep(blocks) + ceil((blocks - removed) * runs)


def merging(blocks: int, removed: int) -> int:
    """The full model, and at each threshold every window that begins low enough from there on.

    Without what thresholds share; over all questions or windows, of which a few are looked at.
    """
    places = range(blocks - COMBINED)
    return blocks + THRESHOLDS * sum(blocks - 1 - place for place in places)


def _stages(sets: int) -> float:
    """Runs of a pruned model over all questions that a generation of so many sets takes."""
    first, second = SEEN
    return sets * first + SURVIVORS[0] * (second - first) + SURVIVORS[1] * (1 - second)
