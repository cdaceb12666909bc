"""``prune`` with several tasks: one order of removal, chosen by all of them together."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.methods.choice import Choice
from phaseprune.methods.plain_text import read_text
from phaseprune.methods.rank import free_blocks
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.progress import Progress
from phaseprune.pruning.prune import Pruning, read_pruning
from phaseprune.pruning.step import Step
from phaseprune.pruning.steps import open_search
from phaseprune.pruning.stopping import Stop, stop_rule
from phaseprune.pruning.tasks_choice import (
    DEFAULT_COMBINE,
    asked_weights,
    check_tasks,
    different_folders,
)
from phaseprune.pruning.tasks_conclude import conclude_task, conclude_together
from phaseprune.pruning.tasks_steps import TaskSearch, TasksStep, Together, run_together
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import PRUNE_TASKS
from phaseprune.runs.result import Result, bounds, draw, named, number, with_bounds
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.recorded import (
    recorded_trace,
    run_identity,
    sides_counted,
    tasks_identity,
)


@dataclass(frozen=True, repr=False)
class TasksPruning(Result):
    """A pruning run with several tasks.

    Attributes:
        tasks: folder -> what the run came to on that task, as a run of its own has it.
        steps: the steps with the combined figures.
        result: that of the manifest (docs/several-tasks.md).
        state: ``new``, ``resumed`` or ``finished`` before.
        chosen_by: the method, what it looked at, and what is protected.
    """

    tasks: dict[str, Pruning]
    steps: list[TasksStep]
    result: dict[str, Any]
    state: str = field(default="new")
    chosen_by: dict[str, Any] | None = None

    @property
    def removed(self) -> list[int]:
        """Original indices of the removed blocks, in order of removal."""
        return self.result["removed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the tasks, combined steps, result, and what chose."""
        return {
            "tasks": {folder: one.to_dict() for folder, one in self.tasks.items()},
            "steps": [step.to_dict() for step in self.steps],
            "result": self.result,
            "chosen_by": self.chosen_by,
        }

    def plot(self):
        """A matplotlib figure: retained by task, and each task's phases with the order."""
        traces = {folder: one.trace.to_dict() for folder, one in self.tasks.items()}
        return draw("tasks_figure", [step.to_dict() for step in self.steps], traces, self.result)

    def _lines(self) -> list[str]:
        told = self.result
        model = next(iter(self.tasks.values())).trace.model
        return [
            f"{model} on {named([*self.tasks])}, by the {told['combine']} of them",
            f"removed {len(self.removed)}: {named(self.removed)}",
            f"retained of all {with_bounds(told['retained'], told['retained_ci'])}",
            *(
                f"{folder}: accuracy {number(one['full']['accuracy'])} -> "
                f"{number(one['pruned']['accuracy'])}, retained "
                f"{with_bounds(one['retained'], one['retained_ci'])}"
                for folder, one in told["tasks"].items()
            ),
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a step and task."""
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


def read_tasks_pruning(run: RunDirectory) -> TasksPruning:
    """What a finished run of several tasks holds."""
    manifest = run.manifest
    each = {folder: read_pruning(RunDirectory(run.path / folder)) for folder in manifest["tasks"]}
    steps = [TasksStep(**line) for line in run.steps()]
    return TasksPruning(each, steps, manifest["result"], "finished", manifest["chosen_by"])


def prune_tasks(
    decoder: Decoder,
    tasks: Sequence[Task],
    choice: Choice,
    *,
    weights: Sequence[float] | None,
    combine: str | None,
    remove: int | None,
    ratio: float | None,
    keep_accuracy: float | None,
    keep_text_loss: float | None,
    protect: Collection[int],
    text: str | Path | None,
    guard: Guard | None,
    calibration: int | None,
    evaluation: int | None,
    seed: int,
    out: str | Path | None,
    arguments: str | None,
    progress: Progress,
) -> TasksPruning:
    """Remove blocks one at a time, each chosen on the calibration questions of all tasks.

    Args:
        decoder: from ``load_model``.
        tasks: two or more from ``load_task``; the questions of each are split by seed.
        choice: what chooses, an exact search by an objective on questions.
        weights: one a task, above 0; None for equal ones.
        combine: ``mean`` (the default) or ``worst``, see ``decision.combined``.
        remove: see ``prune``, and so the others.
        ratio: see there.
        keep_accuracy: share of what is retained of all tasks, combined likewise.
        keep_text_loss: see there.
        protect: see there.
        text: of guards.
        guard: see there; looked at once a step.
        calibration: number of questions of each task to choose on.
        evaluation: number of questions of each task to report on.
        seed: see there.
        out: run directory, with a folder a task.
        arguments: see there.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, or a directory with another run.
    """
    check_tasks(len(tasks), weights, combine, choice)
    combine, weights = combine or DEFAULT_COMBINE, asked_weights(len(tasks), weights)
    folders = different_folders(tasks)
    protect = sorted(set(protect))
    free = free_blocks(decoder, choice.method, protect)
    stop = stop_rule(len(decoder.blocks), remove, ratio, keep_accuracy, keep_text_loss, free)
    guard = Guard() if guard is None and keep_text_loss is not None else guard
    read_text(decoder, text, choice, guard is not None)  # refuses a text that nothing looks at
    sides = [split(task, calibration, evaluation, seed) for task in tasks]
    check_apart(folders, sides)
    rows = [
        (prepare(decoder, chosen_on), prepare(decoder, scored_on, streams=1))
        for chosen_on, scored_on in sides
    ]
    guarded = None if guard is None else open_guard(decoder, guard, text, seed)
    options = {**choice.options, "combine": combine,
               "weights": dict(zip(folders, weights, strict=True)),
               "remove": stop.most, "keep_accuracy": stop.keep_accuracy}  # fmt: skip
    options |= {"protect": protect} if protect else {}
    if guarded:
        options |= guarded.identity | {"keep_text_loss": stop.keep_text_loss}
    options |= choice.how
    told = choice.told(_looked_at(folders, sides, combine, weights), protect)
    noted = {"arguments": arguments, "chosen_by": told}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as opened:
        run = RunDirectory(Path(scratch if out is None else out))
        counts = _summed(rows)
        state = opened.enter_context(
            run.open(
                tasks_identity(PRUNE_TASKS, decoder, tasks, folders, sides, seed, options),
                {**noted, "tasks": folders, **counts},
            )
        )
        shares = kept_shares(decoder, [chosen_on for chosen_on, _ in rows])
        work = Together(
            [
                _open_task(opened, state, decoder, choice, RunDirectory(run.path / folder), folder,
                           task, own, options, noted, weight, free, stop, seed, share, progress)
                for folder, task, own, weight, share in zip(
                    folders, tasks, rows, weights, shares, strict=True
                )
            ],
            combine, stop, seed, guarded,
        )  # fmt: skip
        steps = [TasksStep(**line) for line in run.steps()]
        if state != "finished":
            run_together(run, work, steps, progress)
            result = conclude_together(work, steps)
            for task in work.tasks:
                conclude_task(task, result)
            scales = {task.folder: task.scale.to_dict() for task in work.tasks}
            run.update(status="finished", result=result, scales=scales)
        manifest = run.manifest
        each = {
            task.folder: Pruning(task.full, task.steps, task.run.manifest["result"], state, told)
            for task in work.tasks
        }
        return TasksPruning(each, steps, manifest["result"], state, manifest["chosen_by"])


def check_apart(folders: Sequence[str], sides: Sequence[tuple[Task, Task]]) -> None:
    """Refuse questions that are chosen on in one task and reported on in another.

    Raises:
        UserError: names both tasks.
    """
    for folder, (chosen_on, _) in zip(folders, sides, strict=True):
        seen = {question.content for question in chosen_on.questions}
        for other, (_, scored_on) in zip(folders, sides, strict=True):
            common = sum(question.content in seen for question in scored_on.questions)
            if common:
                raise UserError(
                    f"{common} of the questions that {folder} chooses by would be reported on in "
                    f"{other}; take what both have in common out of one of them"
                )


def kept_shares(decoder: Decoder, rows: Sequence[Prepared]) -> list[int]:
    """Bytes of states that each task may keep from step to step.

    Tasks are swept one after the other, so the largest step of them has to fit beside what all
    keep; that is shared by what a stream of each takes, so that all keep states at like depths.
    """
    budget = min(kept_budget(decoder, each.rows) for each in rows)
    tokens = [each.rows.padded_tokens for each in rows]
    return [budget * own // sum(tokens) for own in tokens]


def _open_task(
    opened: ExitStack, state: str, decoder: Decoder, choice: Choice, run: RunDirectory, folder: str,
    task: Task, rows: tuple[Prepared, Prepared], options: dict[str, Any], noted: dict[str, Any],
    weight: float, free: Sequence[int], stop: Stop, seed: int, share: int, progress: Progress,
) -> TaskSearch:  # fmt: skip
    """One task's part of the run: a run of ``prune`` in its own folder, open as long as ``opened``.

    It may be concluded already where the whole run, in this ``state``, is not.
    """
    chosen_on, scored_on = rows
    counts, inputs = sides_counted(chosen_on, scored_on)
    opened.enter_context(
        run.open(
            run_identity("prune", decoder, task, seed, options | counts),
            {**noted, "task_settings": dict(task.settings), **counts, **inputs},
            adds=state != "finished",
        )
    )
    full = recorded_trace(
        run, decoder, scored_on, seed, lambda label, *done: progress(f"{folder}: {label}", *done),
        "full model, evaluation questions",
    )  # fmt: skip
    search = open_search(
        run, decoder, choice, free, chosen_on, scored_on, None, Stop(stop.most, None),
        full.transition, seed, None,
    )  # fmt: skip
    steps = [Step(**line) for line in run.steps()]
    return TaskSearch(folder, run, full, replace(search, kept=Kept(share)), steps, weight)


def _summed(rows: Sequence[tuple[Prepared, Prepared]]) -> dict[str, int]:
    """What manifests say of the questions as they were put, over tasks and sides."""
    counts: dict[str, int] = {}
    for prepared in (side for sides in rows for side in sides):
        for name, count in prepared.input_counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts


def _looked_at(
    folders: Sequence[str], sides: Sequence[tuple[Task, Task]], combine: str,
    weights: Sequence[float],
) -> str:  # fmt: skip
    """What blocks are chosen on, in words."""
    parts = [
        f"{len(chosen_on.questions)} of {folder}"
        for folder, (chosen_on, _) in zip(folders, sides, strict=True)
    ]
    what = {"mean": "the mean", "worst": "the worst"}[combine]
    weighted = ""
    if len(set(weights)) > 1:
        weighted = f", weights {', '.join(f'{weight:g}' for weight in weights)}"
    return (
        f"calibration questions of several tasks, {', '.join(parts)}, by {what} of what is left of "
        f"each{weighted}"
    )
