"""The steps of a search by several tasks: one block a step, the best for all of them together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.combined import (
    Answers,
    Scale,
    best_place,
    combine,
    combined_retained,
    make_scale,
)
from phaseprune.decision.trace import Trace
from phaseprune.errors import UserError
from phaseprune.probes.guards import TextGuard
from phaseprune.progress import Progress
from phaseprune.pruning.iterative import Chosen, first_step, next_steps, score_candidates
from phaseprune.pruning.step import Search, Step
from phaseprune.pruning.stopping import Stop
from phaseprune.runs.directory import RunDirectory


@dataclass(frozen=True)
class TasksStep:
    """One step, as a line of ``steps.jsonl`` of the whole run; step 0 is the full model.

    ``objective`` is what is left of all tasks together on the calibration questions, by which the
    block was chosen (1 for the full model), ``retained`` the same of the accuracy above chance on
    the evaluation questions; None where a task's full model is not above chance. ``tasks`` has of
    each folder its own ``objective``, what is ``left`` of it, ``accuracy`` with ``ci``,
    ``decision_margin``, ``retained`` with ``retained_ci``, ``collapsed`` (all on evaluation
    questions but the first two) and the ``phase`` of the block for it. ``block_passes`` are those
    of all tasks, each over its own rows.
    """

    step: int
    removed: int | None
    kept: list[int]
    objective: float
    retained: float | None
    retained_ci: list[float] | None
    collapsed: bool
    tasks: dict[str, dict[str, Any]]
    block_passes: int
    seconds: float
    guard: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The line of ``steps.jsonl``."""
        return asdict(self)

    @property
    def text_loss_rise(self) -> float | None:
        """Of the guards, as a share of the full model's loss; None without guards."""
        return self.guard and self.guard["text_loss_rise"]


@dataclass(frozen=True)
class TaskSearch:
    """One task of the search.

    Attributes:
        folder: of the task in the run.
        run: its own run directory.
        full: the full model's trace on its evaluation questions.
        search: what its steps work with.
        steps: those that are done; takes those that are run.
        weight: of the task.
    """

    folder: str
    run: RunDirectory
    full: Trace
    search: Search
    steps: list[Step]
    weight: float

    def keep(self, step: Step) -> None:
        """Keep a finished step."""
        self.steps.append(step)
        self.run.append_step(step.to_dict())

    @property
    def scale(self) -> Scale:
        """Of its objective, from step 0."""
        objective = self.search.objective
        full = self.steps[0].calibration[objective]
        return make_scale(objective, full, self.search.calibration.task.options)

    def answers(self, number: int) -> Answers:
        """Right answers of the model of a step."""
        chances = 1 / self.search.evaluation.task.options
        return Answers(self.steps[number].correct, self.steps[0].correct, chances)


@dataclass(frozen=True)
class Together:
    """What a search by several tasks works with.

    Attributes:
        tasks: each with its own questions, rows and kept states.
        how: ``mean`` or ``worst``, see ``decision.combined.combine``.
        stop: when to end.
        seed: of intervals.
        guard: what each step is looked at by beyond questions; None for nothing.
    """

    tasks: Sequence[TaskSearch]
    how: str
    stop: Stop
    seed: int
    guard: TextGuard | None = None

    @property
    def weights(self) -> list[float]:
        """One a task."""
        return [task.weight for task in self.tasks]

    def combined(self, values: Sequence[Sequence[float]]) -> np.ndarray:
        """``[n]`` what is left of all tasks together, of ``[T, n]`` objectives."""
        left = [task.scale.left(own) for task, own in zip(self.tasks, values, strict=True)]
        return combine(np.stack(left), self.weights, self.how)

    def ended(self, step: TasksStep) -> str | None:
        """Why the search ends with a step; None to go on."""
        return self.stop.reason(step.step, step.retained, step.text_loss_rise)

    def breaks(self, step: TasksStep) -> bool:
        """Whether a step has lost more than must be kept."""
        return self.stop.broken_by(step.retained, step.text_loss_rise) is not None


def run_together(
    run: RunDirectory, work: Together, steps: list[TasksStep], progress: Progress
) -> None:
    """Run the steps that are missing, keeping each on disk as soon as it is done.

    A step of the whole run is kept after those of its tasks, so that what is killed between goes on
    with the task that is missing.

    Args:
        run: the whole run.
        work: what to work with.
        steps: the finished ones; takes those that are run.
        progress: told of each block pass.

    Raises:
        UserError: a share of an accuracy is to be kept that is not above chance on some task.
    """
    began = time.perf_counter()

    def keep(block: int | None, guard: dict[str, Any] | None) -> None:
        step = make_tasks_step(work, len(steps), block, guard)
        run.append_step(step.to_dict())
        run.add_timings(search=step.seconds)
        steps.append(step)

    for task in work.tasks:
        if not task.steps:
            task.keep(first_step(task.search, task.full.decisions, named(task, progress)))
    check_keepable(work)
    if not steps:
        guard = work.guard and work.guard.figures(progress=progress, label="full model")
        keep(None, guard)
    while work.ended(steps[-1]) is None:
        number, live = len(steps), steps[-1].kept
        scored = [scored_candidates(task, live, number, progress) for task in work.tasks]
        block = choose_block(work, scored)
        for task, lines in zip(work.tasks, scored, strict=True):
            if len(task.steps) == number:
                task.keep(_remove(task, lines, block, progress))
        removed = [step.removed for step in steps[1:]]
        guard = work.guard and work.guard.figures(
            [*removed, block], steps[0].guard, steps[-1].guard, progress,
            f"step {number}: without block {block}",
        )  # fmt: skip
        keep(block, guard)
    run.add_timings(prune=time.perf_counter() - began)


def named(task: TaskSearch, progress: Progress) -> Progress:
    """Tell ``progress`` which task it is."""

    def listen(label: str, done: float, total: float) -> None:
        progress(f"{task.folder}: {label}", done, total)

    return listen


def check_keepable(work: Together) -> None:
    """Refuse to keep a share of what is not above chance.

    Raises:
        UserError: names the tasks.
    """
    if work.stop.keep_accuracy is None:
        return
    for task in work.tasks:
        if task.steps[0].retained is None:
            raise UserError(
                f"{task.full.task}: the full model's accuracy "
                f"{task.steps[0].evaluation['accuracy']:.3f} is not above chance "
                f"{task.full.chance:.3f}, so no share of it can be kept; leave the task out, or "
                "give --remove instead"
            )


def scored_candidates(
    task: TaskSearch, live: list[int], number: int, progress: Progress
) -> list[dict[str, Any]]:
    """The candidates of a step on one task, read back where an interrupted run has them."""
    lines = [line for line in task.run.candidates() if line["step"] == number]
    free = task.search.candidates(live)
    if len(lines) != len(free):
        lines = score_candidates(task.search, live, free, number, named(task, progress))
        task.run.append_candidates(lines)
    return lines


def choose_block(work: Together, scored: Sequence[Sequence[dict[str, Any]]]) -> int:
    """The block without which most is left of all tasks together; of equal ones the lowest."""
    objective = work.tasks[0].search.objective
    combined = work.combined([[line[objective] for line in lines] for lines in scored])
    return scored[0][best_place(combined)]["block"]


def _remove(
    task: TaskSearch, lines: Sequence[dict[str, Any]], block: int, progress: Progress
) -> Step:
    """The step of one task that removes a block which all tasks chose."""
    line = next(line for line in lines if line["block"] == block)
    chosen = Chosen(block, line, line["block_passes"], line["seconds"])
    return next(
        next_steps(task.search, task.steps, lambda *step: chosen, named(task, progress))
    )


def make_tasks_step(
    work: Together, number: int, block: int | None, guard: dict[str, Any] | None
) -> TasksStep:
    """The line of a step of the whole run from those of its tasks."""
    own = [task.steps[number] for task in work.tasks]
    objective = work.tasks[0].search.objective
    values = [step.calibration[objective] for step in own]
    left = combined_retained(
        [task.answers(number) for task in work.tasks], work.weights, work.how, work.seed
    )
    return TasksStep(
        step=number,
        removed=block,
        kept=own[0].kept,
        objective=float(work.combined([[value] for value in values])[0]),
        retained=left.value,
        retained_ci=list(left.ci) if left.ci else None,
        collapsed=left.collapsed,
        tasks={
            task.folder: {
                "objective": value,
                "left": float(task.scale.left(value)),
                "accuracy": step.evaluation["accuracy"],
                "ci": step.evaluation["ci"],
                "decision_margin": step.evaluation["decision_margin"],
                "retained": step.retained,
                "retained_ci": step.retained_ci,
                "collapsed": step.collapsed,
                "phase": step.phase,
            }
            for task, step, value in zip(work.tasks, own, values, strict=True)
        },
        block_passes=sum(step.block_passes for step in own),
        seconds=sum(step.seconds for step in own),
        guard=guard,
    )
