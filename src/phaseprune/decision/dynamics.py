"""Dynamics of Iterative Pruning (arXiv 2605.07271): what pruning does to the decision.

Each pruned model has a transition of its own, which moves and at last is gone; a collapsed model
picks options in shares that are not those of the right ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.curve import SIGNIFICANCE, step_gain
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.frequency import gold_frequency, option_frequency, total_variation
from phaseprune.decision.intervals import percentiles, resamples
from phaseprune.decision.tests import holm
from phaseprune.decision.transition import PERMUTATIONS, Transition, find_transition

#: Permutations a step: the smallest p-value must stay well below the level after the correction.
PERMUTATIONS_A_STEP = 400
#: A transition is gone where the rise is below this share of the full model's, bound against bound.
GONE_BELOW = 0.5


def live_readouts(kept: Sequence[int]) -> list[int]:
    """Readout 0 and those behind live blocks; the one behind a removed block repeats another."""
    return [0, *(block + 1 for block in kept)]


def live_transition(
    decisions: Decisions, kept: Sequence[int], seed: int, permutations: int = PERMUTATIONS
) -> Transition:
    """The transition of a pruned model, in the original model's readouts and blocks.

    Only ``live_readouts`` are fitted: no point counts twice.

    Args:
        decisions: ``[Q, L+1]`` at the original readouts, as the model makes them.
        kept: the live blocks, original indices in order.
        seed: of the bootstrap and of the tests.
        permutations: of the tests.
    """
    live = live_readouts(kept)
    found = find_transition(
        decisions.debiased.at(live), seed, permutations, output=decisions.at(live)
    )
    if not found.found:
        return found
    return replace(
        found,
        readout=live[found.readout],
        ci=tuple(live[end] for end in found.ci),
        rise=tuple(live[end] for end in found.rise),
        rise_ci=tuple(tuple(live[end] for end in bounds) for bounds in found.rise_ci),
        silent_blocks=tuple(kept[: found.readout]),
        decisive_blocks=tuple(kept[found.readout :]),
    )


def largest_rise(decisions: Decisions, kept: Sequence[int], seed: int) -> dict[str, Any]:
    """How far (debiased) DM rises between the levels of the best step, with its 95 % interval.

    The step is sought anew in each bootstrap sample, so the upper bound holds wherever a transition
    may hide; the lower one is a little too high.
    """
    margins = decisions.debiased.margins[:, live_readouts(kept)]
    drawn = np.concatenate([weights @ margins for weights in resamples(len(margins), seed)])
    value, *rises = _rises(np.concatenate([margins.mean(axis=0)[None], drawn]))
    low, high = percentiles(np.asarray(rises))
    return {"value": float(value), "ci": [float(low), float(high)]}


def _rises(curves: np.ndarray) -> np.ndarray:
    """``[N]`` the rise between the levels of the best step of ``[N, R]`` curves."""
    gains, points = step_gain(curves), curves.shape[-1]
    best = np.argmax(gains, axis=-1)
    before = best + 1
    # A gain is the rise times sqrt(n1 n2 / R).
    weight = np.sqrt(before * (points - before) / points)
    return np.take_along_axis(gains, best[:, None], axis=-1)[:, 0] / weight


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
    decisions: Decisions, kept: Sequence[int], seed: int, steps: int
) -> dict[str, Any]:
    """What one pruned model's decisions say: a part of its line of ``steps.jsonl``.

    Args:
        decisions: ``[Q, L+1]``.
        kept: the live blocks, original indices in order.
        seed: of all statistics.
        steps: how many models of the run may be tested (for the correction to come).
    """
    permutations = max(PERMUTATIONS, PERMUTATIONS_A_STEP * steps)
    transition = live_transition(decisions, kept, seed, permutations)
    decided, gold = decisions.decided[:, -1], decisions.gold
    options = int(max(np.max(decided), np.max(gold))) + 1
    of, right = option_frequency(decided, options), gold_frequency(gold, options)
    return {
        "transition": transition.to_dict(),
        "p_value": transition.p_value,
        "rise": largest_rise(decisions, kept, seed),
        "frequency": {
            "distance": float(total_variation(of - right)),
            "top_option": int(np.argmax(of)),
            "top_share": float(of.max()),
            "gold_share": float(right[np.argmax(of)]),
            "p_value": same_frequencies(decided, gold),
        },
    }


def run_dynamics(
    steps: Sequence[dict[str, Any] | None], collapsed_at: int | None
) -> dict[str, Any] | None:
    """The dynamics of a pruning run, corrected for the number of steps.

    Args:
        steps: ``step_dynamics`` of each step, the first of the full model; a None (a run of an
            older version) gives None.
        collapsed_at: the first collapsed step, if any.

    Returns:
        ``transitions`` (of each step; ``found`` only where significant after Holm's correction
        over the steps, ``state`` as ``transition_state``), ``gone_at_step`` (the first step from
        which all models' transitions are gone), ``last_found_step`` and ``collapsed_frequency``
        (of the first collapsed step, its p-value corrected likewise).
    """
    if any(step is None or "rise" not in step for step in steps):
        return None
    corrected = holm([step["p_value"] for step in steps]).tolist()
    transitions = [
        _corrected(number, step, p)
        for number, (step, p) in enumerate(zip(steps, corrected, strict=True))
    ]
    for one, step in zip(transitions, steps, strict=True):
        one["state"] = transition_state(one["found"], step["rise"], steps[0]["rise"])
    states = [one["state"] for one in transitions]
    gone = len(states)
    while gone > 0 and states[gone - 1] == "gone":
        gone -= 1
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
        "gone_at_step": gone if gone < len(states) else None,
        "last_found_step": max((o["step"] for o in transitions if o["found"]), default=None),
        "collapsed_frequency": frequency,
    }


def transition_state(found: bool, rise: dict[str, Any], full: dict[str, Any]) -> str:
    """Whether a pruned model has a transition: ``found``, ``gone`` or ``unclear``.

    Gone needs evidence: not that no rise is significant, but that the upper 95 % bound of the
    largest rise is below half of the lower bound of the full model's.

    Args:
        found: whether a transition is found.
        rise: ``largest_rise`` of the pruned model,
        full: and of the full one.
    """
    if found:
        return "found"
    return "gone" if rise["ci"][1] < GONE_BELOW * full["ci"][0] else "unclear"


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
        "shape": of["shape"] if found else None,
        "rise": step["rise"],
        "silent_blocks": of["silent_blocks"] if found else [],
        "decisive_blocks": of["decisive_blocks"] if found else [],
        "p_value": step["p_value"],
        "p_corrected": p_corrected,
        "reason": reason,
    }
