"""What a comparison of methods comes to: from rankings and scored sets to ``compare.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from phaseprune.comparison.orders import chosen_sets
from phaseprune.comparison.pruned import Pruned, of_line
from phaseprune.decision.collapse import Fall, Retained, collapse_kind, fit_fall
from phaseprune.decision.comparison import Cell, Retaining, compare_cells, front, gains, standings
from phaseprune.decision.decisions import read_right
from phaseprune.decision.guards import drawn_figures, short_figures
from phaseprune.decision.intervals import wilson
from phaseprune.decision.phases import Estimate
from phaseprune.methods.registry import METHODS
from phaseprune.probes.phasewise_result import right
from phaseprune.questions.question import Task


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
    of_full = _debiased([scores[Pruned()]])
    debiased = None if of_full is None else Retaining(of_full[0], chances, seed)
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
            **({} if of_full is None else {"accuracy_debiased": float(of_full.mean())}),
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
                    _cell(number, of[number], cells[number][method], scores, retaining, debiased)
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
                "method": gain.method,
                "than": gain.than,
                **_estimate(gain.estimate),
                "p_value": gain.p_value,
                "p_corrected": gain.p_corrected,
                "significant": gain.significant,
            }
            for gain in (gains(order, passes, pooled, retaining) if order else ())
        ],
        "scored": {"sets": len(scores), **scoring},
    }


def _key(method: str, sets: Sequence[Pruned]) -> Any:
    """Equal for methods that leave the same model; what is drawn equals nothing else."""
    return sets[0] if len(sets) == 1 else (method, *sets)


def _cliff(
    cells: Mapping[int, Mapping[str, Cell]], retaining: Retaining
) -> tuple[dict[str, Any] | None, tuple[int, ...]]:
    """Where even the best falls, and the numbers that all methods are summed up over.

    These are those before a fall (at least the first one); all of them where none is found.
    """
    best = {
        number: max(of.values(), key=lambda cell: cell.accuracy)
        for number, of in cells.items()
        if of
    }
    fall = _fall(best, retaining) if best else None
    if fall is None or not fall["found"]:
        return fall, tuple(best)
    before = [number for number in best if number < fall["removed_blocks"]]
    return fall, tuple(before or list(best)[:1])


def _cliff_fit(of: Mapping[int, Cell], retaining: Retaining) -> dict[str, Any] | None:
    """``_fall`` of one method; None where it is drawn: several models have no cliff of one."""
    if any(len(cell.correct) > 1 for cell in of.values()):
        return None
    return _fall(of, retaining)


def _fall(of: Mapping[int, Cell], retaining: Retaining) -> dict[str, Any] | None:
    """``fit_fall`` of cells, from the full model on, told in numbers of removed blocks."""
    correct = [retaining.full, *(cell.correct.mean(axis=0) for cell in of.values())]
    numbers = (0, *of)
    fall = fit_fall(correct, retaining.chances, retaining.seed, numbers)
    return fall and _in_numbers(fall, numbers)


def _in_numbers(fall: Fall, numbers: Sequence[int]) -> dict[str, Any]:
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
    number: int,
    sets: Sequence[Pruned],
    cell: Cell,
    scores: Mapping[Pruned, Mapping[str, Any]],
    retaining: Retaining,
    debiased: Retaining | None,
) -> dict[str, Any]:
    """One method at one number of removed blocks; of letters also less the label prior."""
    left = _retained(cell.correct, retaining)
    told = {
        "removed_blocks": number,
        "sets": [list(one.blocks) for one in sets],
        **({"merged": sets[0].written} if sets[0].merged else {}),
        "accuracy": cell.accuracy,
        # Wilson's is of one model; over draws the questions are no independent trials.
        "accuracy_ci": wilson(cell.correct.sum(), cell.correct.shape[1]).tolist()
        if len(sets) == 1
        else None,
        "decision_margin": float(np.mean([scores[one]["decision_margin"] for one in sets])),
        "retained": left.value,
        "retained_ci": list(left.ci) if left.ci else None,
        "collapsed": left.collapsed,
    }
    correct = None if debiased is None else _debiased([scores[one] for one in sets])
    if correct is None:
        return told
    other = _retained(correct, debiased)
    return told | {
        "accuracy_debiased": float(correct.mean()),
        "retained_debiased": other.value,
        "retained_debiased_ci": list(other.ci) if other.ci else None,
        "collapse": collapse_kind(left, other),
    }


def _retained(correct: np.ndarray, retaining: Retaining) -> Retained:
    found = retaining.estimate(correct)
    return Retained(found.value, found.ci) if found else Retained(None, None)


def _debiased(lines: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """``[S, Q]`` right decisions less the label prior; None for texts and older lines."""
    flags = [line.get("correct_debiased") for line in lines]
    if None in flags:
        return None
    return np.array([read_right(one) for one in flags])


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
