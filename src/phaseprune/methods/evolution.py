"""Evolutionary search for a set of blocks to remove (EvoPress: Sieberling et al. 2024, 2410.14649).

(1 + lambda): the best set so far has mutations, which keep its number of blocks; those are scored
together in walks in which they share their beginnings, on growing parts of the questions, and the
one that is left takes its place if it is better on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phaseprune.decision.rankings import offspring, stage_ends
from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.costs import FIRST_DRAWN, OFFSPRING, SEEN, SURVIVORS, generations
from phaseprune.methods.judge import Chunk, Judge, make_chunks, on_each
from phaseprune.methods.racing import REPEATED
from phaseprune.probes.phasewise_sets import draw_sets
from phaseprune.progress import Progress, silent
from phaseprune.sweep.walk import set_scores

#: A set of blocks, rising.
Set = tuple[int, ...]


def streams_of(blocks: int) -> int:
    """Streams beside each other: of a sweep, or of a walk over all sets of a generation.

    Half as many again as sets: a stream that both runs and skips a block is copied.
    """
    return max(blocks + 1, 1 + 3 * OFFSPRING // 2)


def evolve(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    start: Sequence[int],
    free: Sequence[int],
    seed: int,
    *,
    progress: Progress = silent,
) -> tuple[Set, float, float]:
    """Look for a better set than a given one, of as many blocks.

    The first generation is of random sets, the further ones of mutations of the best so far. Each
    draws the questions of its stages anew. No set is scored on all questions twice.

    Args:
        decoder: the model.
        judge: of all questions.
        objective: a name in ``objectives.SIGNS``.
        start: the first parent.
        free: the blocks that may be removed.
        seed: of all that is drawn.
        progress: told of each block pass.

    Returns:
        The best set, its mean objective (larger is better) over all questions, and block passes in
        units of all questions.
    """
    rng = np.random.default_rng([seed, len(start)])
    parent = tuple(sorted(start))
    number = generations(len(free), len(parent))
    values, passes = _values(decoder, judge, objective, [parent], progress, "first set")
    known, best = {parent}, float(values.mean())
    for generation in range(number + 1):
        if generation:
            sets = offspring(parent, free, OFFSPRING, known, rng)
        else:
            drawn = draw_sets(free, len(parent), FIRST_DRAWN, [seed, len(parent), 1])
            sets = [one for one in drawn[:FIRST_DRAWN] if one not in known]
        if not sets:
            continue
        chunks = _stages(judge, rng)
        label = f"generation {generation} of {number}"
        found, spent = _select(decoder, chunks, objective, sets, progress, label)
        passes += spent
        known |= set(found)
        leader = min(found, key=lambda one: (-found[one], one))
        if found[leader] > best:
            parent, best = leader, found[leader]
    return parent, best, passes


def _stages(judge: Judge, rng: np.random.Generator) -> list[Chunk]:
    """The questions that are new at each stage of a generation, drawn one by one."""
    order = rng.permutation(judge.count)
    chunks = make_chunks(judge, order, stage_ends(judge.count, SEEN), 0)
    if sum(chunk.share for chunk in chunks) > 1 + REPEATED:
        return make_chunks(judge, order, [judge.count], 0)
    return chunks


def _select(
    decoder: Decoder,
    chunks: Sequence[Chunk],
    objective: str,
    sets: Sequence[Set],
    progress: Progress,
    label: str,
) -> tuple[dict[Set, float], float]:
    """The sets that are left at the last stage, with their mean over all questions, and passes."""
    seen = {one: np.empty(0) for one in sets}
    passes = 0.0
    for stage, chunk in enumerate(chunks):
        told = f"{label}: {len(seen)} sets on {chunk.judge.count} {chunk.judge.unit}"
        new, spent = _values(decoder, chunk.judge, objective, list(seen), progress, told)
        passes += spent * chunk.share
        seen = {
            one: np.concatenate([before, more])
            for (one, before), more in zip(seen.items(), new, strict=True)
        }
        if stage < len(chunks) - 1:
            ranked = sorted(seen, key=lambda one: (-seen[one].mean(), one))
            seen = {one: seen[one] for one in ranked[: SURVIVORS[stage]]}
    return {one: float(values.mean()) for one, values in seen.items()}, passes


def _values(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    sets: Sequence[Set],
    progress: Progress,
    label: str,
) -> tuple[np.ndarray, int]:
    """``[S, n]`` the objective of sets on each question, larger is better, and block passes."""
    # Neighbours in this order share their first blocks, so that a walk of them shares most.
    blocks = range(len(decoder.blocks))
    ordered = sorted(sets, key=lambda one: [block in one for block in blocks])
    found: dict[Set, np.ndarray] = {}
    passes = 0
    for at in range(0, len(ordered), OFFSPRING):
        part = ordered[at : at + OFFSPRING]
        sweep = set_scores(
            decoder, judge.rows, judge.needs_vocabulary, part, progress=progress, label=label
        )
        figures = [judge.by_unit(scores) for scores in sweep.scores]
        found |= dict(zip(part, on_each(figures, objective), strict=True))
        passes += sweep.block_passes
    return np.array([found[one] for one in sets]), passes
