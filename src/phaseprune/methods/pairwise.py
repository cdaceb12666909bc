"""What removing every block and every two blocks leaves, by sweeps that share their beginnings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phaseprune.decision.rankings import Surrogate, make_surrogate
from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.judge import Judge
from phaseprune.methods.objectives import SIGNS
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.walk import sweep_scores, trace_scores


def measure_pairs(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    candidates: Sequence[int],
    *,
    pairs: bool = True,
    progress: Progress = silent,
) -> tuple[Surrogate, int]:
    """The surrogate of a model, exact for every one and every two of the candidates.

    Args:
        decoder: the model.
        judge: what is judged on.
        objective: a name in ``objectives.SIGNS``; its sign is turned where less is better.
        candidates: the blocks that may be removed, rising.
        pairs: measure pairs too; at least one block must stay.
        progress: told of each block pass.

    Returns:
        The surrogate, and the block passes.
    """
    blocks, sign = len(decoder.blocks), SIGNS[objective]
    kept = Kept(kept_budget(decoder, judge.rows))
    raw = trace_scores(
        decoder,
        judge.rows,
        judge.needs_vocabulary,
        output_only=True,
        progress=progress,
        label="full model",
    )
    base = sign * judge.figures(raw[:, 0])[objective]
    passes = blocks

    def sweep(first: int | None, others: Sequence[int], label: str) -> np.ndarray:
        """``[L]`` the figure without each of the others and, where there is one, ``first``."""
        nonlocal passes
        live = [block for block in range(blocks) if block != first]
        found = sweep_scores(
            decoder,
            judge.rows,
            judge.needs_vocabulary,
            live,
            candidates=others,
            kept=kept,
            progress=progress,
            label=label,
        )
        passes += found.block_passes
        values = np.full(blocks, np.nan)
        for block, scores in zip(found.blocks, found.scores, strict=True):
            values[block] = sign * judge.figures(scores)[objective]
        return values

    singles = sweep(None, candidates, "without each block")
    both = np.full((blocks, blocks), np.nan)
    if pairs:
        # From the last on: what is kept of the full model up to a block then stays good.
        for place in reversed(range(len(candidates) - 1)):
            first, others = candidates[place], candidates[place + 1 :]
            both[first] = sweep(first, others, f"without block {first} and each after it")
    return make_surrogate(base, singles, both), passes
