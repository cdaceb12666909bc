"""What a pruning search comes to: the ``result`` of its manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from phaseprune.decision.collapse import Fall, fit_fall, largest_loss
from phaseprune.decision.dynamics import run_dynamics
from phaseprune.decision.guards import short_figures
from phaseprune.decision.tests import mcnemar
from phaseprune.pruning.step import Search, Step


def conclude(search: Search, steps: list[Step]) -> dict[str, Any]:
    """What a finished search comes to: the ``result`` of the manifest.

    The chosen step is the last one, or, where it lost more than must be kept, the one before; where
    a pattern of the blocks is kept, the last one before that follows it.
    """
    last = steps[-1]
    chosen = next((step for step in reversed(steps) if search.may_be_chosen(step)), steps[0])
    chances = 1 / search.evaluation.task.options
    loss = largest_loss(
        [step.correct for step in steps], [step.removed for step in steps],
        [step.phase for step in steps], chances,
    )  # fmt: skip
    collapsed_at = next((step.step for step in steps if step.collapsed), None)
    return {
        **choose(steps, chosen.step),
        "full": {key: steps[0].evaluation[key] for key in ("accuracy", "ci")},
        "collapsed_at_step": collapsed_at,
        "collapse": next((step.collapse for step in steps if step.collapsed), None),
        "cliff": told_fall(steps, chances, search.seed),
        "largest_loss": loss and loss.to_dict(),
        "stopped_by": search.ended(last),
        "racing": search.racing and summary(search.racing.options, steps[1:]),
        "dynamics": run_dynamics(
            [step.dynamics for step in steps], collapsed_at
        ),
        "export": None,
    }


def told_fall(steps: list[Step], chances: np.ndarray, seed: int) -> dict[str, Any] | None:
    """Where retained falls, with what was removed there; of letters, debiased too."""
    fall = fit_fall([step.correct for step in steps], chances, seed)
    if fall is None:
        return None
    told = _at_step(fall, steps)
    if steps[0].correct_debiased is not None:
        other = fit_fall([step.correct_debiased for step in steps], chances, seed)
        told["debiased"] = other and _at_step(other, steps)
    return told


def _at_step(fall: Fall, steps: list[Step]) -> dict[str, Any]:
    at = steps[fall.step] if fall.found else None
    return fall.to_dict() | {"removed": at and at.removed, "phase": at and at.phase}


def summary(options: dict[str, Any], steps: list[Step]) -> dict[str, Any]:
    """What racing came to over a search: its options, confidence of a step, and block passes."""
    last = steps[-1].race if steps else {}
    return {
        "alpha": options["alpha"],
        "tolerance": options["tolerance"],
        "confidence": 1 - options["alpha"],
        "block_passes": sum(step.block_passes for step in steps),
        "block_passes_saved": sum(step.race["block_passes_saved"] for step in steps),
        "products": last.get("products"),
        "drift": max((step.race["drift"] or 0.0 for step in steps), default=0.0),
    }


def choose(steps: list[Step], number: int) -> dict[str, Any]:
    """The part of a result that depends on which step is the chosen one."""
    chosen = steps[number]
    full, pruned = steps[0].correct, chosen.correct
    only_full, only_pruned = int((full & ~pruned).sum()), int((pruned & ~full).sum())
    return {
        "chosen_step": chosen.step,
        "removed": [step.removed for step in steps[1 : chosen.step + 1]],
        "kept": chosen.kept,
        "pruned": {key: chosen.evaluation[key] for key in ("accuracy", "ci")},
        "against_full": {
            "only_full": only_full,
            "only_pruned": only_pruned,
            "p_value": mcnemar(only_full, only_pruned),
        },
        "retained": chosen.retained,
        "retained_ci": chosen.retained_ci,
        "retained_debiased": chosen.retained_debiased,
        "retained_debiased_ci": chosen.retained_debiased_ci,
        "collapsed": chosen.collapsed,
        "collapsed_how": chosen.collapse,
        "guard": steps[0].guard
        and {"full": short_figures(steps[0].guard), "pruned": short_figures(chosen.guard)},
    }
