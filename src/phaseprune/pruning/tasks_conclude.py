"""What a search by several tasks comes to: the ``result`` of its manifests."""

from __future__ import annotations

from typing import Any

from phaseprune.decision.combined import combined_loss
from phaseprune.decision.guards import short_figures
from phaseprune.pruning.conclude import choose, conclude
from phaseprune.pruning.tasks_steps import TaskSearch, TasksStep, Together


def conclude_together(work: Together, steps: list[TasksStep]) -> dict[str, Any]:
    """The ``result`` of the whole run.

    The chosen step is the last one, or, where it lost more than must be kept, the one before.
    """
    last = steps[-1]
    chosen = steps[-2] if work.breaks(last) else last
    tasks = {task.folder: _of_task(task, chosen.step) for task in work.tasks}
    loss = combined_loss(
        [[task.answers(step.step) for task in work.tasks] for step in steps],
        [step.removed for step in steps],
        work.weights,
        work.how,
        work.seed,
    )
    smallest = min(one["against_full"]["p_value"] for one in tasks.values())
    return {
        "chosen_step": chosen.step,
        "removed": [step.removed for step in steps[1 : chosen.step + 1]],
        "kept": chosen.kept,
        "combine": work.how,
        "weights": {task.folder: task.weight for task in work.tasks},
        "retained": chosen.retained,
        "retained_ci": chosen.retained_ci,
        "collapsed": chosen.collapsed,
        "collapsed_at_step": next((step.step for step in steps if step.collapsed), None),
        "largest_loss": loss and loss.to_dict(),
        "against_full": {"p_value": min(1.0, len(tasks) * smallest)},
        "stopped_by": work.ended(last),
        "tasks": tasks,
        "guard": steps[0].guard
        and {"full": short_figures(steps[0].guard), "pruned": short_figures(chosen.guard)},
        "export": None,
    }


def _of_task(task: TaskSearch, chosen: int) -> dict[str, Any]:
    """What the chosen model comes to on one task."""
    found = choose(task.steps, chosen)
    phases = [step.phase for step in task.steps[1 : chosen + 1]]
    return {
        "task": task.full.task,
        "chance": task.full.chance,
        "evaluation_questions": len(task.steps[0].correct),
        "full": {key: task.steps[0].evaluation[key] for key in ("accuracy", "ci")},
        **{
            key: found[key]
            for key in (
                "pruned", "against_full", "retained", "retained_ci", "retained_debiased",
                "retained_debiased_ci", "collapsed", "collapsed_how",
            )
        },  # fmt: skip
        "collapsed_at_step": next((step.step for step in task.steps if step.collapsed), None),
        "removed_of_phase": {name: phases.count(name) for name in ("silent", "decisive")},
    }


def conclude_task(task: TaskSearch, result: dict[str, Any]) -> None:
    """Write the ``result`` of one task's own run: its figures at the step that all chose."""
    own = conclude(task.search, task.steps) | choose(task.steps, result["chosen_step"])
    task.run.update(status="finished", result=own | {"stopped_by": result["stopped_by"]})
