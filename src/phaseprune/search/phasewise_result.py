"""What phase-wise pruning comes to: from scored sets to the ``result`` of a manifest."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from phaseprune.decision.intervals import wilson
from phaseprune.decision.phases import (
    Comparison,
    Difference,
    Sets,
    compare_phases,
    retained_of_sets,
)
from phaseprune.decision.transition import Transition
from phaseprune.sweep.measure import Prepared

#: Where the blocks of a set are from.
KINDS = ("silent", "decisive", "anywhere")


def pools(transition: Transition) -> dict[str, tuple[int, ...]]:
    """The blocks that the sets of each kind are drawn from."""
    early, late = transition.silent_blocks, transition.decisive_blocks
    return dict(zip(KINDS, (early, late, early + late), strict=True))


def conclude(
    lines: list[dict[str, Any]], rows: Prepared, transition: Transition, draws: int, seed: int
) -> dict[str, Any]:
    """What all sets come to: the ``result`` of the manifest."""
    full, chances = right(lines[:1])[0], 1 / rows.task.options
    of: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for line in lines[1:]:
        of.setdefault(line["removed_blocks"], {}).setdefault(line["kind"], []).append(line)
    sets = {
        number: {
            kind: Sets(right(some), comb(len(pools(transition)[kind]), number) <= draws)
            for kind, some in kinds.items()
        }
        for number, kinds in of.items()
    }
    compared = compare_phases(sets, full, chances, seed)
    walks = {line["removed_blocks"]: line for line in lines}.values()
    return {
        "draws": draws,
        "most": max(of),
        "transition": {"readout": transition.readout, "ci": list(transition.ci)},
        "phases": {
            "silent": list(transition.silent_blocks),
            "decisive": list(transition.decisive_blocks),
        },
        "chance": float(chances.mean()),
        "full": {
            "accuracy": float(full.mean()),
            "ci": wilson(full.sum(), len(full)).tolist(),
            "decision_margin": lines[0]["decision_margin"],
        },
        "by_removed": [
            _told(number, of[number], sets[number], compared, full, chances) for number in sets
        ],
        "pooled": _difference(compared.pooled),
        "block_passes": sum(line["block_passes"] for line in walks),
        "naive_block_passes": sum(line["naive_block_passes"] for line in walks),
    }


def _told(
    number: int, lines, sets: dict[str, Sets], compared: Comparison, full, chances
) -> dict[str, Any]:  # fmt: skip
    """One number of removed blocks: each kind, and the difference between the phases."""
    kinds = {
        kind: {
            "sets": len(some.correct),
            "all_sets": some.exhaustive,
            "accuracy": float(some.correct.mean()),
            "decision_margin": float(np.mean([line["decision_margin"] for line in lines[kind]])),
            "retained": compared.retained[number][kind].value,
            "retained_ci": _listed(compared.retained[number][kind].ci),
            "retained_of_sets": retained_of_sets(some.correct, full, chances).tolist(),
        }
        for kind, some in sets.items()
    }
    return {"removed_blocks": number, **kinds, **_difference(compared.differences[number])}


def _difference(of: Difference) -> dict[str, Any]:
    return {
        "difference": of.estimate.value,
        "difference_ci": _listed(of.estimate.ci),
        "p_value": of.p_value,
        "p_corrected": of.p_corrected,
        "significant": of.significant,
    }


def _listed(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else list(ci)


def scored(prepared: Prepared, scores: np.ndarray) -> dict[str, Any]:
    """What a line says of a model from its ``[Q, K]`` raw scores."""
    decisions = prepared.decide(scores[:, None])
    correct = decisions.correct[:, -1]
    return {
        "accuracy": float(correct.mean()),
        "decision_margin": float(decisions.margins[:, -1].mean()),
        "correct": "".join("1" if one else "0" for one in correct),
    }


def right(lines: list[dict[str, Any]]) -> np.ndarray:
    """``[S, Q]`` right decisions of lines."""
    return np.array([[flag == "1" for flag in line["correct"]] for line in lines])
