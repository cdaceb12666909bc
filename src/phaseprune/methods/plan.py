"""``plan``: an order of removal and a budget from one run of the full model, before any search."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.collapse import Retained, retained
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.rankings import (
    LIMITS,
    READ_OFF,
    check_number,
    plan_order,
    predict_budget,
    removable,
)
from phaseprune.decision.trace import Trace
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import read_json, write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, bounds, draw, named
from phaseprune.runs.scores import write_scores
from phaseprune.sweep.measure import prepare, summarize_scores
from phaseprune.sweep.recorded import read_trace, recorded_trace, run_identity
from phaseprune.sweep.residuals import Residuals, take_residuals


@dataclass(frozen=True, repr=False)
class Plan(Result):
    """An order of removal and a budget.

    Attributes:
        trace: of the full model, on the questions that were looked at.
        result: the content of ``plan.json``.
        state: whether the run was ``new``, ``resumed`` or ``finished`` before.
    """

    trace: Trace
    result: dict[str, Any]
    state: str = field(default="new")

    @property
    def order(self) -> list[int]:
        """Original indices, the first to go first."""
        return self.result["order"]

    @property
    def budget(self) -> int | None:
        """How many of them can go by the prediction; None where the model is not above chance."""
        return self.result["budget"]["blocks"]

    def to_dict(self) -> dict[str, Any]:
        """The content of ``plan.json``: plain JSON values."""
        return self.result

    def _lines(self) -> list[str]:
        told, budget = self.result, self.result["budget"]
        can_go = "no budget: the model is not above chance"
        if budget["blocks"] is not None:
            can_go = (
                f"{budget['blocks']} of {told['blocks']} blocks can go (predicted; "
                f"{budget['low']} to {budget['high']}), bound by {budget['bound_by']}"
            )
        return [
            f"{told['model']} on {told['task']} ({told['questions']} questions, {told['scoring']})",
            can_go,
            f"order {named(self.order)}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a block of the order."""
        rows = []
        for row in self.result["rows"]:
            read = dict(row["read_off"])
            own = {name: value for name, value in row.items() if name != "read_off"}
            ci = bounds("retained", read.pop("retained_ci"))
            debiased = read.pop("retained_debiased_ci", None)
            more = bounds("retained_debiased", debiased) if "retained_debiased" in read else {}
            rows.append(own | read | ci | more)
        return rows

    def plot(self):
        """A matplotlib figure of what is predicted against the number of removed blocks."""
        return draw("plan_figure", self.result)


def read_plan(run: RunDirectory) -> Plan:
    """The plan that a finished run holds."""
    return Plan(read_trace(run), read_json(run.path / "plan.json"), "finished")


def plan(
    decoder: Decoder,
    task: Task,
    *,
    protect: Collection[int] = (),
    seed: int = 0,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Plan:
    """Say how many blocks could go, and in which order, from one run of the full model.

    Every block is run once over the questions; all else is readouts.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; all of its questions are looked at, so report on others.
        protect: original indices that are never in the order.
        seed: of all intervals and tests.
        out: run directory; a finished run in it is read. None keeps nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of each block pass.

    Raises:
        UserError: a question cannot be put to this model, a block gives NaN, nothing is left to
            remove, or a directory with another run.
    """
    candidates = removable(len(decoder.blocks), sorted(set(protect)))
    number = check_number(len(decoder.blocks), candidates)
    prepared = prepare(decoder, task, streams=1)
    options = {"protect": sorted(set(protect))} if protect else {}
    identity = run_identity("plan", decoder, task, seed, options)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        counts = {"evaluation_questions": len(task.questions), **prepared.input_counts}
        with run.open(identity, {"arguments": arguments, **counts}) as state:
            if state == "finished":
                result = read_json(run.path / "plan.json")
                return Plan(recorded_trace(run, decoder, prepared, seed), result, state)
            began = time.perf_counter()
            found = take_residuals(decoder, prepared, seed=seed, progress=progress)
            raw = found.trace_scores(progress)
            trace = summarize_scores(decoder, prepared, raw, seed)
            result = make_plan(found, trace, candidates, number, seed, progress)
            write_scores(run.scores_path, trace.question_ids, trace.decisions.columns(raw))
            write_json(run.trace_path, trace.to_dict())
            write_json(run.path / "plan.json", result)
            run.add_timings(plan=time.perf_counter() - began)
            run.update(status="finished")
        return Plan(trace, result, state)


def make_plan(
    found: Residuals,
    trace: Trace,
    candidates: tuple[int, ...],
    number: int,
    seed: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The content of ``plan.json`` from what one walk has kept."""
    influence = found.changes.influence
    order, costs = order_of(found, candidates, number, progress)
    read, left = read_order(found, order, seed)
    together = np.cumsum(influence[list(order)]).tolist()
    told = [_read_off(read, left, place) for place in range(number + 1)]
    if read.letters:
        other = left_of(read.debiased)
        for place, one in enumerate(told):
            less = _read_off(read.debiased, other, place)
            ci = less.pop("retained_ci")
            one |= {f"{name}_debiased": value for name, value in less.items()}
            one["retained_debiased_ci"] = ci
    rows = [
        {
            "removed_blocks": place,
            "block": order[place - 1],
            "phase": trace.transition.phase(order[place - 1]),
            "cost": float(costs[place - 1]),
            "influence": float(influence[order[place - 1]]),
            "influence_together": together[place - 1],
            "read_off": told[place],
        }
        for place in range(1, number + 1)
    ]
    traced = trace.to_dict()
    return {
        **{
            key: traced[key]
            for key in ("model", "task", "scoring", "questions", "blocks", "chance", "transition")
        },
        "accuracy": float(read.correct[:, 0].mean()),
        "order": list(order),
        "budget": predict_budget(influence, order, [one.value for one in left]),
        "limits": {"influence": list(LIMITS), "read_off": READ_OFF},
        "influence": influence.tolist(),
        "rows": rows,
        "block_passes": found.changes.block_passes,
    }


def _read_off(read: Decisions, left: Sequence[Retained], place: int) -> dict[str, Any]:
    """What is read off once so many blocks' parts are taken off."""
    return {
        "accuracy": float(read.correct[:, place].mean()),
        "decision_margin": float(read.margins[:, place].mean()),
        "retained": left[place].value,
        "retained_ci": list(left[place].ci) if left[place].ci else None,
    }


def left_of(read: Decisions) -> list[Retained]:
    """What is retained at each place, of what the first one has."""
    return [retained(correct, read.correct[:, 0], read.chances) for correct in read.correct.T]


def order_of(
    found: Residuals, candidates: tuple[int, ...], number: int, progress: Progress = silent
) -> tuple[tuple[int, ...], np.ndarray]:
    """``rankings.plan_order`` of what one walk has kept; ``progress`` is told of each block."""

    def margins(sets: Sequence[tuple[int, ...]]) -> np.ndarray:
        read = read_decisions(found, sets).margins.mean(axis=0)
        progress("order, block by block", len(sets[0]), number)
        return read

    changes = found.changes
    return plan_order(changes.influence, 1 - changes.cka, margins, candidates, number)


def budget_of(found: Residuals, order: tuple[int, ...], seed: int) -> dict[str, Any]:
    """``rankings.predict_budget`` of an order of what one walk has kept."""
    left = [one.value for one in read_order(found, order, seed)[1]]
    return predict_budget(found.changes.influence, order, left)


def read_order(
    found: Residuals, order: tuple[int, ...], seed: int
) -> tuple[Decisions, list[Retained]]:
    """Decisions with what the first 0, 1, … blocks added taken off, and what that retains."""
    read = read_decisions(found, [order[:count] for count in range(len(order) + 1)])
    return read, left_of(read)


def read_decisions(found: Residuals, sets: Sequence[tuple[int, ...]]) -> Decisions:
    """Decisions with what each of some sets of blocks added taken off; a set where a readout is."""
    return found.prepared.decide(found.scores(sets).transpose(1, 0, 2))
