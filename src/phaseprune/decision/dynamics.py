"""Dynamics of Iterative Pruning (arXiv 2605.07271): what pruning does to the decision.

Each pruned model has a transition of its own, which moves and at last vanishes; a collapsed model
picks options in shares that are not those of the right ones; retained accuracy falls off a cliff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.corrections import holm
from phaseprune.decision.frequency import gold_frequency, option_frequency, total_variation
from phaseprune.decision.transition import (
    FLIPS,
    SIGNIFICANCE,
    Transition,
    above_chance,
    find_transition,
    fit_step,
)

#: Sign flips a step: the smallest p-value must stay well below the level after the correction.
FLIPS_A_STEP = 400


def live_transition(
    margins: np.ndarray, correct: np.ndarray, chance: float, kept: Sequence[int], seed: int,
    flips: int = FLIPS,
) -> Transition:  # fmt: skip
    """The transition of a pruned model, in the original model's readouts and blocks.

    The readout behind a removed block repeats the one before, so only readout 0 and those behind
    live blocks are fitted: no point counts twice.

    Args:
        margins: ``[Q, L+1]`` Decision Margins at the original readouts.
        correct: ``[Q]`` whether the final decision is right.
        chance: mean of 1/k.
        kept: the live blocks, original indices in order.
        seed: of the bootstrap and of the test.
        flips: of the test.
    """
    live = [0, *(block + 1 for block in kept)]
    found = find_transition(margins[:, live], correct, chance, seed, flips)
    if not found.found:
        return found
    return replace(
        found,
        readout=live[found.readout],
        ci=(live[found.ci[0]], live[found.ci[1]]),
        silent_blocks=tuple(kept[: found.readout]),
        decisive_blocks=tuple(kept[found.readout :]),
    )


def same_frequencies(decided: np.ndarray, gold: np.ndarray) -> float:
    """P-value of "options are decided for as often as they are right" (Stuart 1955, Maxwell 1970).

    The test of marginal homogeneity of paired choices; McNemar's chi-square for two options.

    Args:
        decided: ``[Q]`` decided options.
        gold: ``[Q]`` right options.
    """
    options = int(max(np.max(decided), np.max(gold))) + 1
    each = np.eye(options)[np.asarray(decided)] - np.eye(options)[np.asarray(gold)]
    shift, spread = each.sum(axis=0), each.T @ each
    freedom = np.linalg.matrix_rank(spread)
    if freedom == 0:
        return 1.0
    statistic = shift @ np.linalg.pinv(spread, hermitian=True) @ shift
    return float(stats.chi2.sf(statistic, freedom))


def step_dynamics(
    margins: np.ndarray, decided: np.ndarray, gold: np.ndarray, chance: float,
    kept: Sequence[int], seed: int, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """What one pruned model's decisions say: a part of its line of ``steps.jsonl``.

    Args:
        margins: ``[Q, L+1]`` Decision Margins.
        decided: ``[Q]`` decisions at the output.
        gold: ``[Q]`` right options.
        chance: mean of 1/k.
        kept: the live blocks, original indices in order.
        seed: of all statistics.
        steps: how many models of the run may be tested (for the correction to come).
    """
    correct = decided == gold
    flips = max(FLIPS, FLIPS_A_STEP * steps)
    transition = live_transition(margins, correct, chance, kept, seed, flips)
    options = int(max(np.max(decided), np.max(gold))) + 1
    of, right = option_frequency(decided, options), gold_frequency(gold, options)
    return {
        "transition": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(transition).items()
        },
        "p_value": max(above_chance(correct, chance), transition.p_value or 0.0),
        "frequency": {
            "distance": float(total_variation(of - right)),
            "top_option": int(np.argmax(of)),
            "top_share": float(of.max()),
            "gold_share": float(right[np.argmax(of)]),
            "p_value": same_frequencies(decided, gold),
        },
    }


def run_dynamics(
    steps: Sequence[dict[str, Any] | None],
    correct: Sequence[np.ndarray],
    collapsed_at: int | None,
    chances: np.ndarray,
    seed: int,
) -> dict[str, Any] | None:
    """The dynamics of a pruning run, corrected for the number of steps.

    Args:
        steps: ``step_dynamics`` of each step, the first of the full model; a None (a run of an
            older version) gives None.
        correct: ``[Q]`` right decisions at the output of each step.
        collapsed_at: the first collapsed step, if any.
        chances: ``[Q]`` 1/k.
        seed: of the cliff's statistics.

    Returns:
        ``transitions`` (of each step; ``found`` only where significant after Holm's correction
        over the steps), ``vanishes_at_step`` (the first step from which no model has a
        transition), ``collapsed_frequency`` (of the first collapsed step, its p-value corrected
        likewise) and ``cliff_fit``.
    """
    if any(step is None for step in steps):
        return None
    corrected = holm([step["p_value"] for step in steps]).tolist()
    transitions = [
        _corrected(number, step, p)
        for number, (step, p) in enumerate(zip(steps, corrected, strict=True))
    ]
    last = max((one["step"] for one in transitions if one["found"]), default=None)
    vanishes = None if last is None or last == len(steps) - 1 else last + 1
    frequency = None
    if collapsed_at is not None:
        of_steps = holm([step["frequency"]["p_value"] for step in steps])
        p_corrected = float(of_steps[collapsed_at])
        frequency = {
            "step": collapsed_at,
            **steps[collapsed_at]["frequency"],
            "p_corrected": p_corrected,
            "significant": p_corrected < SIGNIFICANCE,
        }
    return {
        "transitions": transitions,
        "vanishes_at_step": vanishes,
        "collapsed_frequency": frequency,
        "cliff_fit": fit_cliff(correct, chances, seed),
    }


def _corrected(number: int, step: dict[str, Any], p_corrected: float) -> dict[str, Any]:
    of = step["transition"]
    found, reason = of["found"], of["reason"]
    if found and p_corrected >= SIGNIFICANCE:
        found = False
        reason = (
            "not significant after the correction for the number of steps (Holm, "
            f"p = {p_corrected:.2g})"
        )
    return {
        "step": number,
        "found": found,
        "readout": of["readout"] if found else None,
        "ci": of["ci"] if found else None,
        "silent_blocks": of["silent_blocks"] if found else [],
        "decisive_blocks": of["decisive_blocks"] if found else [],
        "p_value": step["p_value"],
        "p_corrected": p_corrected,
        "reason": reason,
    }


def fit_cliff(
    correct: Sequence[np.ndarray],
    chances: np.ndarray,
    seed: int,
    removed: Sequence[int] | None = None,
) -> dict[str, Any] | None:
    """Two levels fitted to retained accuracy over steps, with a bootstrap over questions.

    The least-squares fit and its tests are those of a transition, turned downwards: retained is the
    accuracy on another scale. Unlike the largest one-step loss, it accounts for having looked at
    all steps.

    Args:
        correct: ``[Q]`` right decisions of each step, the first of the full model.
        chances: ``[Q]`` 1/k.
        seed: of bootstrap and test.
        removed: how many blocks are gone at each step; by default one more at each.

    Returns:
        ``found``, ``step`` (the first of the lower level), ``ci``, the mean retained ``before`` and
        ``after``, ``r2``, ``line_r2`` (of a straight line over ``removed``: where that is larger,
        it is a slope and no cliff) and ``p_value``; None with no step, or a full model at chance.
    """
    right = np.stack([np.asarray(row, dtype=float) for row in correct], axis=1)
    chance = float(np.mean(chances))
    above = float(right[:, 0].mean()) - chance
    if right.shape[1] < 2 or above <= 0:
        return None
    fit = fit_step(-right, seed)
    return {
        "found": fit.significant,
        "step": fit.split if fit.significant else None,
        "ci": list(fit.ci) if fit.ci else None,
        "before": (-fit.before - chance) / above,
        "after": (-fit.after - chance) / above,
        "r2": fit.r2,
        "line_r2": _line_r2(right.mean(axis=0), removed),
        "p_value": fit.p_value,
    }


def _line_r2(values: np.ndarray, at: Sequence[int] | None) -> float:
    """R² of a straight line through some values."""
    if np.ptp(values) == 0:
        return 0.0
    places = np.arange(len(values)) if at is None else np.asarray(at)
    return float(np.corrcoef(places, values)[0, 1] ** 2)


def is_slope(fit: Mapping[str, Any]) -> bool:
    """Whether a straight line says more of a curve than the two levels of ``fit_cliff`` do."""
    return fit.get("line_r2", 0.0) > fit["r2"]
