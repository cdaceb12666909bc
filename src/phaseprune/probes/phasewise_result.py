"""What phase-wise pruning comes to: from scored sets to the ``result`` of a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaseprune.decision.decisions import read_right, written_right
from phaseprune.decision.intervals import questions_needed, wilson
from phaseprune.decision.phases import (
    SIGNIFICANCE,
    Coefficient,
    Contrast,
    Control,
    Costs,
    Difference,
    Jump,
    PhaseComparison,
    Sets,
    block_costs,
    compare_phases,
    controls_of,
    fit_jump,
    phase_verdict,
    retained_of_sets,
)
from phaseprune.decision.transition import Transition
from phaseprune.probes.phasewise_sets import first_blocks, kinds_of
from phaseprune.sweep.measure import Prepared


@dataclass(frozen=True)
class _Measured:
    """All sets by one measure: decisions as they are, or with the label prior taken off.

    Attributes:
        suffix: of the fields of a line.
        lines: by number of removed blocks and kind.
        sets: the same as decisions.
        full: ``[Q]`` whether the full model is right,
        margin: its DM,
        chances: ``[Q]`` and 1/k.
        compared: the phases.
        costs: of single blocks.
        jump: of these at the transition.
    """

    suffix: str
    lines: Mapping[int, Mapping[str, list[dict[str, Any]]]]
    sets: Mapping[int, Mapping[str, Sets]]
    full: np.ndarray
    margin: float
    chances: np.ndarray
    compared: PhaseComparison
    costs: Costs
    jump: Jump | None


def conclude(
    lines: list[dict[str, Any]],
    rows: Prepared,
    transition: Transition,
    draws: int,
    seed: int,
    protect: Sequence[int] = (),
) -> dict[str, Any]:
    """What all sets come to: the ``result`` of the manifest.

    Args:
        lines: of ``candidates.jsonl``, the first of the full model.
        rows: the evaluation questions.
        transition: of the full model.
        draws: the most sets of a kind and number.
        seed: of the bootstrap.
        protect: blocks that are in no set.
    """
    chances = 1 / rows.task.options
    kinds = kinds_of(transition.silent_blocks, transition.decisive_blocks, protect)
    raw = _measured(lines, "", kinds, chances, transition, seed)
    walks = {line["removed_blocks"]: line for line in lines}.values()
    return {
        "draws": draws,
        "most": max(raw.sets),
        "questions": len(chances),
        "protect": sorted(protect),
        "transition": {"readout": transition.readout, "ci": list(transition.ci)},
        "phases": {
            "silent": list(transition.silent_blocks),
            "decisive": list(transition.decisive_blocks),
        },
        "first_blocks": list(
            first_blocks(len(transition.silent_blocks) + len(transition.decisive_blocks))
        ),
        "drawn_from": {name: list(kind.blocks) for name, kind in kinds.items()},
        "chance": float(chances.mean()),
        **_told(raw, transition),
        "debiased": _debiased(lines, kinds, chances, transition, seed),
        "block_passes": sum(line["block_passes"] for line in walks),
        "naive_block_passes": sum(line["naive_block_passes"] for line in walks),
    }


def _debiased(lines, kinds, chances, transition: Transition, seed: int) -> dict[str, Any] | None:
    """The same with the label prior taken off.

    None for texts, and where the full model's debiased decisions have nothing to lose.
    """
    if "correct_debiased" not in lines[0] or right(lines[:1], "_debiased").mean() <= chances.mean():
        return None
    return _told(_measured(lines, "_debiased", kinds, chances, transition, seed), transition)


def _measured(lines, suffix: str, kinds, chances, transition: Transition, seed: int) -> _Measured:
    """Compare the sets by one measure."""
    full = right(lines[:1], suffix)[0]
    of: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for line in lines[1:]:
        for kind in line["kinds"]:
            of.setdefault(line["removed_blocks"], {}).setdefault(kind, []).append(line)
    sets = {
        number: {
            kind: Sets(right(some, suffix), len(some) == kinds[kind].count(number))
            for kind, some in found.items()
        }
        for number, found in of.items()
    }
    single = of[1]["anywhere"]
    costs = block_costs(
        [line["blocks"][0] for line in single], right(single, suffix), full, chances, seed
    )
    near = [
        block
        for kind in ("near_silent", "near_decisive")
        if kind in kinds
        for block in kinds[kind].blocks
    ]
    blocks = len(transition.silent_blocks) + len(transition.decisive_blocks)
    jump = fit_jump(costs, near, transition.readout, blocks)
    compared = compare_phases(sets, full, chances, seed)
    margin = lines[0][f"decision_margin{suffix}"]
    return _Measured(suffix, of, sets, full, margin, chances, compared, costs, jump)


def _told(of: _Measured, transition: Transition) -> dict[str, Any]:
    """What one measure says."""
    compared, questions = of.compared, len(of.full)
    controls, windows = controls_of(compared, of.jump), compared.contrasts.get("windows")
    return {
        "full": {
            "accuracy": float(of.full.mean()),
            "ci": wilson(of.full.sum(), questions).tolist(),
            "decision_margin": of.margin,
        },
        "by_removed": [_row(number, of) for number in of.sets],
        "pooled": _pooled(compared.contrasts["plain"], questions),
        "controlled": {name: _control(one, questions) for name, one in controls.items()},
        "windows": _pooled(windows, questions) if windows else None,
        "regression": _regression(of, transition),
        "verdict": phase_verdict(compared.pooled, controls),
    }


def _row(number: int, of: _Measured) -> dict[str, Any]:
    """One number of removed blocks: each kind, and the difference between the phases."""
    retained = of.compared.retained[number]
    kinds = {
        kind: {
            "sets": len(some.correct),
            "all_sets": some.exhaustive,
            "accuracy": float(some.correct.mean()),
            "decision_margin": float(
                np.mean([line[f"decision_margin{of.suffix}"] for line in of.lines[number][kind]])
            ),
            "retained": retained[kind].value,
            "retained_ci": list(retained[kind].ci),
            "retained_of_sets": retained_of_sets(some.correct, of.full, of.chances).tolist(),
        }
        for kind, some in of.sets[number].items()
    }
    return {"removed_blocks": number, **kinds, **_difference(of.compared.differences[number])}


def _difference(of: Difference) -> dict[str, Any]:
    return {
        "difference": of.estimate.value,
        "difference_ci": list(of.estimate.ci),
        "p_value": of.p_value,
        "p_corrected": of.p_corrected,
        "significant": of.significant,
    }


def _needed(value: float, ci: tuple[float, float], p_value: float, questions: int) -> int | None:
    """Questions that would decide what these have not."""
    if p_value < SIGNIFICANCE:
        return None
    return questions_needed(value, ci, questions, 1 - SIGNIFICANCE)


def _pooled(of: Contrast, questions: int) -> dict[str, Any]:
    """A difference over all numbers of blocks."""
    estimate, p_value = of.pooled.estimate, of.pooled.p_value
    return _difference(of.pooled) | {
        "numbers": list(of.differences),
        "questions_needed": _needed(estimate.value, estimate.ci, p_value, questions),
    }


def _control(of: Control, questions: int) -> dict[str, Any]:
    return {
        "difference": of.value,
        "difference_ci": list(of.ci),
        "p_value": of.p_value,
        "significant": of.significant,
        "numbers": list(of.numbers),
        "share_of_plain": of.share,
        "holds": of.holds,
        "limited_by": of.limited_by,
        "questions_needed": _needed(of.value, of.questions_ci, of.p_questions, questions),
    }


def _regression(of: _Measured, transition: Transition) -> dict[str, Any]:
    """What single blocks cost, and the fit to those near the transition (None: too few)."""
    fit = of.jump
    return {
        "costs": [
            {
                "block": block,
                "phase": transition.phase(block),
                "cost": one.value,
                "ci": list(one.ci),
            }
            for block, one in zip(of.costs.blocks, of.costs.costs, strict=True)
        ],
        "fit": None
        if fit is None
        else {
            "blocks": list(fit.blocks),
            "level": _coefficient(fit.level),
            "slope": _coefficient(fit.slope),
            "jump": _coefficient(fit.jump),
            "residual": fit.residual,
        },
    }


def _coefficient(of: Coefficient) -> dict[str, Any]:
    return {
        "value": of.value,
        "ci": list(of.ci),
        "block_ci": list(of.block_ci),
        "p_questions": of.p_questions,
        "p_blocks": of.p_blocks,
    }


def scored(prepared: Prepared, scores: np.ndarray) -> dict[str, Any]:
    """What a line says of a model from its ``[Q, K]`` raw scores; of letters debiased as well."""
    decisions = prepared.decide(scores[:, None])
    told = _decided(decisions, "")
    return told | _decided(decisions.debiased, "_debiased") if decisions.letters else told


def _decided(decisions, suffix: str) -> dict[str, Any]:
    correct = decisions.correct[:, -1]
    return {
        f"accuracy{suffix}": float(correct.mean()),
        f"decision_margin{suffix}": float(decisions.margins[:, -1].mean()),
        f"correct{suffix}": written_right(correct),
    }


def right(lines: list[dict[str, Any]], suffix: str = "") -> np.ndarray:
    """``[S, Q]`` right decisions of lines; by the suffix ``_debiased`` those that are debiased."""
    return np.array([read_right(line[f"correct{suffix}"]) for line in lines])
