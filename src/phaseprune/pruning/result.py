"""What a pruning run comes to: the ``result`` of its manifest, and what ``prune`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phaseprune.decision.collapse import Fall, fit_fall, largest_loss
from phaseprune.decision.combined import combined_loss
from phaseprune.decision.dynamics import run_dynamics
from phaseprune.decision.guards import short_figures
from phaseprune.decision.tests import mcnemar
from phaseprune.decision.trace import Trace
from phaseprune.decoder.items import Item, lone_halves, whole_blocks
from phaseprune.pruning.search import Search, TaskSearch
from phaseprune.pruning.step import Step, TasksStep
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS
from phaseprune.runs.result import Result, bounds, draw, named, number, with_bounds
from phaseprune.sweep.recorded import read_trace


@dataclass(frozen=True, repr=False)
class Pruning(Result):
    """A pruning run: the full model's trace, the steps, and what they come to.

    Attributes:
        steps: those of the run; of several tasks, with the combined figures.
        result: that of the manifest: the chosen step, what was removed up to it in order, accuracy
            of the full and the pruned model, retained, collapse and cliff; of several tasks see
            docs/several-tasks.md.
        state: whether the run was ``new``, ``resumed`` or ``finished`` before.
        chosen_by: the manifest's: the method, what it looked at, and what is protected.
        trace: of the full model; None of several tasks, each of which has its own.
        tasks: of several, folder -> what the run came to on that task, as a run of its own has it.
    """

    steps: list[Step] | list[TasksStep]
    result: dict[str, Any]
    state: str = field(default="new")
    chosen_by: dict[str, Any] | None = None
    trace: Trace | None = None
    tasks: dict[str, Pruning] | None = None

    @property
    def removed(self) -> list[Item]:
        """Original indices of the removed blocks (or names of halves), in order of removal."""
        return self.result["removed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the trace (or the tasks), steps, result, and what chose."""
        if self.tasks is None:
            measured = {"trace": self.trace.to_dict()}
        else:
            measured = {"tasks": {name: one.to_dict() for name, one in self.tasks.items()}}
        return measured | {
            "steps": [step.to_dict() for step in self.steps],
            "result": self.result,
            "chosen_by": self.chosen_by,
        }

    def plot(self):
        """A matplotlib figure of accuracy against removed blocks; of several tasks, retained."""
        steps = [step.to_dict() for step in self.steps]
        if self.tasks is None:
            return draw("pruning_figure", steps, self.result)
        traces = {name: one.trace.to_dict() for name, one in self.tasks.items()}
        return draw("tasks_figure", steps, traces, self.result)

    def _lines(self) -> list[str]:
        told, removed = self.result, f"removed {len(self.removed)}: {named(self.removed)}"
        if self.tasks is None:
            trace = self.trace
            collapsed = f"; collapsed ({told['collapsed_how'] or 'of texts'})"
            return [
                f"{trace.model} on {trace.task} ({len(trace.question_ids)} evaluation questions, "
                f"{trace.scoring})",
                removed,
                _retained_line(told) + (collapsed if told["collapsed"] else ""),
            ]
        model = next(iter(self.tasks.values())).trace.model
        return [
            f"{model} on {named([*self.tasks])}, by the {told['combine']} of them",
            removed,
            f"retained of all {with_bounds(told['retained'], told['retained_ci'])}",
            *(f"{folder}: {_retained_line(one)}" for folder, one in told["tasks"].items()),
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a step, the first of the full model; of several tasks, a row a step and task."""
        if self.tasks is not None:
            return [
                {
                    "step": step.step,
                    "task": folder,
                    "removed": step.removed,
                    "phase": own["phase"],
                    "accuracy": own["accuracy"],
                    "retained": own["retained"],
                    "collapsed": own["collapsed"],
                    "retained_of_all": step.retained,
                    **bounds("accuracy", own["ci"]),
                    **bounds("retained", own["retained_ci"]),
                    "decision_margin": own["decision_margin"],
                    "chosen": step.step == self.result["chosen_step"],
                }
                for step in self.steps
                for folder, own in step.tasks.items()
            ]
        return [
            {
                "step": step.step,
                "removed": step.removed,
                "phase": step.phase,
                "accuracy": step.evaluation["accuracy"],
                **bounds("accuracy", step.evaluation["ci"]),
                "retained": step.retained,
                "collapsed": step.collapsed,
                **bounds("retained", step.retained_ci),
                "decision_margin": step.evaluation["decision_margin"],
                "objective": step.objective,
                "chosen": step.step == self.result["chosen_step"],
                "block_passes": step.block_passes,
                "seconds": step.seconds,
            }
            for step in self.steps
        ]


def _retained_line(told: dict[str, Any]) -> str:
    return (
        f"accuracy {number(told['full']['accuracy'])} -> {number(told['pruned']['accuracy'])}, "
        f"retained {with_bounds(told['retained'], told['retained_ci'])}"
    )


def read_pruning(run: RunDirectory) -> Pruning:
    """What a finished run holds, of one task or of several."""
    manifest = run.manifest
    told = manifest["result"], "finished", manifest.get("chosen_by")
    if manifest["command"] == PRUNE_TASKS:
        tasks = {name: read_pruning(RunDirectory(run.path / name)) for name in manifest["tasks"]}
        return Pruning([TasksStep(**line) for line in run.steps()], *told, tasks=tasks)
    return Pruning([Step(**line) for line in run.steps()], *told, read_trace(run))


def pruning_of(search: Search, state: str) -> Pruning:
    """A concluded run, as ``prune`` returns it."""
    chosen_by = search.run.manifest.get("chosen_by")
    each = {
        task.folder: Pruning(task.steps, task.run.manifest["result"], state, chosen_by, task.full)
        for task in search.tasks
    }
    if search.together is None:
        return next(iter(each.values()))
    result = search.run.manifest["result"]
    return Pruning(search.together, result, state, chosen_by, tasks=each)


def conclude(search: Search) -> None:
    """Write what a finished search comes to: the ``result`` of its manifests.

    The chosen step is the last one, or, where it lost more than must be kept, the one before; where
    a pattern of the blocks is kept, the last one before that follows it.
    """
    steps = search.steps
    chosen = next((step for step in reversed(steps) if search.may_be_chosen(step)), steps[0])
    each = [_of_task(search, task, chosen.step) for task in search.tasks]
    for task, result in zip(search.tasks, each, strict=True):
        task.run.update(status="finished", result=result)
    if search.together is not None:
        scales = {task.folder: task.scale(search.objective).to_dict() for task in search.tasks}
        result = _of_all(search, chosen, each)
        search.run.update(status="finished", result=result, scales=scales)


def _of_task(search: Search, task: TaskSearch, chosen: int) -> dict[str, Any]:
    """The ``result`` of a run of one task, or of one of several at the step that all chose."""
    steps, chances = task.steps, 1 / task.evaluation.task.options
    loss = largest_loss(
        [step.correct for step in steps],
        [step.removed for step in steps],
        [step.phase for step in steps],
        chances,
    )
    collapsed_at = next((step.step for step in steps if step.collapsed), None)
    result = {
        **choose(steps, chosen),
        "full": {key: steps[0].evaluation[key] for key in ("accuracy", "ci")},
        "collapsed_at_step": collapsed_at,
        "collapse": next((step.collapse for step in steps if step.collapsed), None),
        "cliff": told_fall(steps, chances, search.request.seed),
        "largest_loss": loss and loss.to_dict(),
        "stopped_by": search.ended(search.steps[-1]),
        "racing": summary(search.request.choice.how, steps[1:]) if search.request.races else None,
        "dynamics": run_dynamics([step.dynamics for step in steps], collapsed_at),
        "export": None,
    }
    if search.units.halves is not None:
        result |= {
            "granularity": search.units.granularity,
            "blocks": len(search.units.decoder.blocks),
            "whole_blocks": whole_blocks(result["removed"]),
            "zeroed": lone_halves(result["removed"]),
        }
    return result


def _of_all(search: Search, chosen: TasksStep, each: list[dict[str, Any]]) -> dict[str, Any]:
    """The ``result`` of the whole run of several tasks."""
    request, steps = search.request, search.together
    tasks = {
        task.folder: _short(task, result, chosen.step)
        for task, result in zip(search.tasks, each, strict=True)
    }
    loss = combined_loss(
        [[task.answers(step.step) for task in search.tasks] for step in steps],
        [step.removed for step in steps],
        request.task_weights,
        request.combined_by,
        request.seed,
    )
    smallest = min(one["against_full"]["p_value"] for one in tasks.values())
    return {
        "chosen_step": chosen.step,
        "removed": [step.removed for step in steps[1 : chosen.step + 1]],
        "kept": chosen.kept,
        "combine": request.combined_by,
        "weights": dict(zip(tasks, request.task_weights, strict=True)),
        "retained": chosen.retained,
        "retained_ci": chosen.retained_ci,
        "collapsed": chosen.collapsed,
        "collapsed_at_step": next((step.step for step in steps if step.collapsed), None),
        "largest_loss": loss and loss.to_dict(),
        "against_full": {"p_value": min(1.0, len(tasks) * smallest)},
        "stopped_by": search.ended(steps[-1]),
        "tasks": tasks,
        "guard": _guards(steps[0], chosen),
        "export": None,
    }


def _short(task: TaskSearch, result: dict[str, Any], chosen: int) -> dict[str, Any]:
    """What the result of all says of the chosen model on one task."""
    phases = [step.phase for step in task.steps[1 : chosen + 1]]
    return {
        "task": task.full.task,
        "chance": task.full.chance,
        "evaluation_questions": len(task.steps[0].correct),
        **{
            key: result[key]
            for key in (
                "full",
                "pruned",
                "against_full",
                "retained",
                "retained_ci",
                "retained_debiased",
                "retained_debiased_ci",
                "collapsed",
                "collapsed_how",
                "collapsed_at_step",
            )
        },
        "removed_of_phase": {name: phases.count(name) for name in ("silent", "decisive")},
    }


def _guards(full: Step | TasksStep, chosen: Step | TasksStep) -> dict[str, Any] | None:
    return full.guard and {"full": short_figures(full.guard), "pruned": short_figures(chosen.guard)}


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
        "guard": _guards(steps[0], chosen),
    }
