"""What a comparison of methods comes to: from rankings and scored sets to ``compare.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from phaseprune.decision.collapse import COLLAPSED_BELOW, fit_fall
from phaseprune.decision.comparison import Cell, compare_cells, standings
from phaseprune.decision.cost_front import Retaining, common_cliff, front, gains
from phaseprune.decision.guards import drawn_figures, short_figures
from phaseprune.decision.intervals import wilson
from phaseprune.decision.phases import Estimate
from phaseprune.questions.question import Task
from phaseprune.search.compare_orders import chosen_sets
from phaseprune.search.methods import METHODS
from phaseprune.search.phasewise_result import right
from phaseprune.search.pruned import Pruned, of_line


def conclude_task(
    *,
    folder: str,
    trace: Mapping[str, Any],
    rankings: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    evaluation: Task,
    numbers: Sequence[int],
    left_out: Mapping[str, Mapping[str, str]],
    scoring: Mapping[str, Any],
    seed: int,
    guards: Mapping[Pruned, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """One task's entry in ``compare.json``.

    Args:
        folder: of the task in the run directory.
        trace: of the full model on the calibration questions, as in ``trace.json``.
        rankings: lines of ``rankings.jsonl``.
        lines: lines of ``candidates.jsonl``: every model that methods left, and the full one.
        evaluation: the questions that they were scored on.
        numbers: of removed blocks, rising.
        left_out: method -> ``all``, or a number at which it has no choice -> reason.
        scoring: what scoring all sets took.
        seed: of all intervals.
        guards: pruned model -> figures of ``guard_figures``, as far as there are any.
    """
    guards = guards or {}
    scores = {of_line(line): line for line in lines}
    chosen = chosen_sets(rankings, numbers)
    full, chances = right([scores[Pruned()]])[0], 1 / evaluation.options
    retaining = Retaining(full, chances, seed)
    cells = {
        number: {
            method: Cell(_key(method, of[number]), right([scores[one] for one in of[number]]))
            for method, of in chosen.items()
            if number in of
        }
        for number in numbers
    }
    pairs = compare_cells(cells)
    stands = standings(cells, pairs)
    cliff, common = _cliff(cells, retaining)
    costs = {method: _cost(method, rankings) for method in chosen}
    pooled = {
        method: np.mean([cells[number][method].correct for number in common], axis=0)
        for method in chosen
        if all(method in cells[number] for number in common)
    }
    passes = {method: costs[method]["block_passes"] for method in pooled}
    values = {method: retaining.value(correct) for method, correct in pooled.items()}
    order = front(passes, values) if retaining.defined else ()
    return {
        "task": trace["task"],
        "folder": folder,
        "scoring": trace["scoring"],
        "calibration_questions": trace["questions"],
        "evaluation_questions": len(full),
        "chance": float(chances.mean()),
        "full": {
            "accuracy": float(full.mean()),
            "ci": wilson(full.sum(), len(full)).tolist(),
            "decision_margin": scores[Pruned()]["decision_margin"],
            "guard": _guard([Pruned()], guards, seed),
        },
        "blocks": trace["blocks"],
        "transition": trace["transition"],
        "numbers": list(numbers),
        "cliff": cliff,
        "common_numbers": list(common),
        "methods": [
            {
                "method": method,
                "title": METHODS[method].title,
                "arxiv": METHODS[method].arxiv,
                **costs[method],
                "mean_retained": _estimate(
                    retaining.estimate(pooled[method]) if method in pooled else None
                ),
                "cliff_fit": _cliff_fit(
                    {number: cells[number][method] for number in numbers if number in of}, retaining
                ),
                "cells": [
                    _cell(number, of[number], cells[number][method], scores, retaining)
                    | {"guard": _guard(of[number], guards, seed)}
                    for number in numbers
                    if number in of
                ],
            }
            for method, of in chosen.items()
        ],
        "left_out": [
            {"method": method, "at": at, "reason": reason}
            for method, reasons in left_out.items()
            for at, reason in reasons.items()
        ],
        "by_removed": [
            {"removed_blocks": number, **{k: list(v) for k, v in asdict(stand).items()}}
            for number, stand in stands.items()
        ],
        "pairs": [
            asdict(pair)
            | {"first": list(pair.first), "second": list(pair.second)}
            | {"significant": pair.significant}
            for pair in pairs
        ],
        "front": list(order),
        "gains": [
            {
                "method": gain.method, "than": gain.than, **_estimate(gain.estimate),
                "p_value": gain.p_value, "p_corrected": gain.p_corrected,
                "significant": gain.significant,
            }
            for gain in gains(order, passes, pooled, retaining)
        ],
        "scored": {"sets": len(scores), **scoring},
    }  # fmt: skip


def _key(method: str, sets: Sequence[Pruned]) -> Any:
    """Equal for methods that leave the same model; what is drawn equals nothing else."""
    return sets[0] if len(sets) == 1 else (method, *sets)


def _cliff(
    cells: Mapping[int, Mapping[str, Cell]], retaining: Retaining
) -> tuple[dict[str, Any] | None, tuple[int, ...]]:
    """Where even the best falls most, and the numbers that all methods are summed up over.

    These are those before a significant fall; all of them where none is significant.
    """
    have = {number: of for number, of in cells.items() if of}
    if not retaining.defined or not have:
        return None, tuple(have)
    best = {number: max(of.values(), key=lambda cell: cell.accuracy) for number, of in have.items()}
    values = {number: retaining.value(cell.correct) for number, cell in best.items()}
    number, common = common_cliff(values)
    if number is None:
        return None, common
    before = retaining.full[None] if number == common[-1] else best[common[-1]].correct
    ci = retaining.loss_ci(before, best[number].correct)
    significant = ci[0] > 0
    cliff = {
        "removed_blocks": number,
        "best_before": retaining.value(before),
        "best": values[number],
        "loss_ci": list(ci),
        "significant": significant,
    }
    return cliff, common if significant else tuple(have)


def _cliff_fit(of: Mapping[int, Cell], retaining: Retaining) -> dict[str, Any] | None:
    """``fit_fall`` of one method, from the full model on, in numbers of removed blocks.

    None where the method is drawn: the mean of several models has no cliff of one.
    """
    if any(len(cell.correct) > 1 for cell in of.values()):
        return None
    correct = [retaining.full, *(cell.correct[0] for cell in of.values())]
    numbers = (0, *of)
    fall = fit_fall(correct, retaining.chances, retaining.seed, numbers)
    if fall is None:
        return None
    told = fall.to_dict()
    for name in ("ci", "span"):
        told[name] = told[name] and [numbers[place] for place in told[name]]
    told["span_ci"] = told["span_ci"] and [[numbers[p] for p in ci] for ci in told["span_ci"]]
    step = told.pop("step")
    return {"removed_blocks": None if step is None else numbers[step], **told}


def _cost(method: str, rankings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the method looked at, its orders, and what one of them cost."""
    own = [line for line in rankings if line["method"] == method]
    return {
        "chosen_on": own[-1]["chosen_on"],
        "block_passes": max(line["block_passes"] for line in own),
        "seconds": max(line["seconds"] for line in own),
        "orders": [
            {"number": line["number"], "draw": line["draw"], "order": line["order"]} for line in own
        ],
        "budget": own[-1].get("budget"),
    }


def _cell(
    number: int, sets: Sequence[Pruned], cell: Cell,
    scores: Mapping[Pruned, Mapping[str, Any]], retaining: Retaining,
) -> dict[str, Any]:  # fmt: skip
    """One method at one number of removed blocks."""
    found = retaining.estimate(cell.correct)
    ci = found.ci if found else None
    return {
        "removed_blocks": number,
        "sets": [list(one.blocks) for one in sets],
        **({"merged": sets[0].written} if sets[0].merged else {}),
        "accuracy": cell.accuracy,
        # Wilson's is of one model; over draws the questions are no independent trials.
        "accuracy_ci": wilson(cell.correct.sum(), cell.correct.shape[1]).tolist()
        if len(sets) == 1
        else None,
        "decision_margin": float(np.mean([scores[one]["decision_margin"] for one in sets])),
        "retained": found.value if found else None,
        "retained_ci": list(ci) if ci else None,
        "collapsed": ci is not None and ci[1] < COLLAPSED_BELOW,
    }


def _guard(
    sets: Sequence[Pruned], guards: Mapping[Pruned, Mapping[str, Any]], seed: int
) -> dict[str, Any] | None:
    """The guards of a cell; None where one of its models has not been looked at."""
    if any(one not in guards for one in sets):
        return None
    if len(sets) == 1:
        return short_figures(guards[sets[0]])
    return drawn_figures([guards[one] for one in sets], guards[Pruned()], seed)


def _estimate(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"value": None, "ci": None}
    return {"value": estimate.value, "ci": list(estimate.ci) if estimate.ci else None}
