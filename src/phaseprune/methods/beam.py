"""Beam search over Iterative Pruning: the best few sets are looked at again, not the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.judge import Judge
from phaseprune.methods.objectives import SIGNS
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.walk import sweep_scores


@dataclass(frozen=True)
class Path:
    """A set of removed blocks and how it came about.

    Attributes:
        order: original indices in order of removal.
        values: the objective after each removal.
        kept: states that the next sweep begins with.
    """

    order: tuple[int, ...]
    values: tuple[float, ...]
    kept: Kept


def beam_search(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    candidates: Sequence[int],
    number: int,
    width: int,
    *,
    progress: Progress = silent,
) -> tuple[list[Path], int]:
    """Sweep from each of the best sets of a step, and keep the best of what comes of all of them.

    A set that two sets of the step before lead to is scored once. Ties go to the set that is first
    by its rising indices; with a width of 1 this is Iterative Pruning.

    Args:
        decoder: the model.
        judge: what sets are judged on.
        objective: a name in ``objectives.SIGNS``.
        candidates: the blocks that may be removed, rising.
        number: how many of them are to go.
        width: sets that are kept at each step.
        progress: told of each block pass.

    Returns:
        The best set at each step 1 … number with its path, and the block passes.
    """
    budget = kept_budget(decoder, judge.rows) // width
    beam, best, passes = [Path((), (), Kept(budget))], [], 0
    for step in range(1, number + 1):
        found: dict[tuple[int, ...], Path] = {}
        for place, path in enumerate(beam, start=1):
            live = [b for b in range(len(decoder.blocks)) if b not in path.order]
            new = [b for b in candidates if b in live and _set(path, b) not in found]
            if not new:
                continue
            sweep = sweep_scores(
                decoder,
                judge.rows,
                judge.needs_vocabulary,
                live,
                candidates=new,
                kept=path.kept,
                progress=progress,
                label=f"step {step}: sweep from set {place} of {len(beam)}",
            )
            passes += sweep.block_passes
            for block, raw in zip(sweep.blocks, sweep.scores, strict=True):
                value = judge.figures(raw)[objective]
                found[_set(path, block)] = Path(
                    (*path.order, block), (*path.values, value), path.kept
                )
        ranked = sorted(found, key=lambda s: (-SIGNS[objective] * found[s].values[-1], s))
        beam = [_with_own_states(decoder, found[one]) for one in ranked[:width]]
        best.append(beam[0])
    return best, passes


def _set(path: Path, block: int) -> tuple[int, ...]:
    return tuple(sorted((*path.order, block)))


def _with_own_states(decoder: Decoder, path: Path) -> Path:
    """The path with those of its parent's states that are still good, shared with its siblings."""
    kept = Kept(path.kept.budget, path.kept.entries)
    kept.forget([b for b in range(len(decoder.blocks)) if b not in path.order])
    return Path(path.order, path.values, kept)
