"""The search: at each step one unit goes, the best for all tasks; then all are looked at again.

This is Iterative Pruning (arXiv 2605.07271) where a chooser tries every unit that is left, and the
same loop with figures at every step where it goes by a ranking.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from phaseprune.decision.combined import Answers, Scale, combine, combined_retained, make_scale
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.dynamics import live_transition
from phaseprune.decision.laco import Mixtures, written
from phaseprune.decision.trace import Trace
from phaseprune.decoder.items import Item, block_of_item, item_in_words, whole_blocks
from phaseprune.decoder.merged import merged_blocks
from phaseprune.decoder.patterns import Pattern
from phaseprune.errors import UserError
from phaseprune.methods.judge import Judge
from phaseprune.methods.objectives import OBJECTIVES, figures
from phaseprune.methods.plain_text import PlainText
from phaseprune.probes.guards import TextGuard
from phaseprune.progress import Progress
from phaseprune.pruning.request import PruneRequest
from phaseprune.pruning.step import Step, TasksStep, model_figures
from phaseprune.pruning.stopping import Stop
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.kept import Kept, LastTrace
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.units import Units


@dataclass(frozen=True)
class TaskSearch:
    """One task of a search.

    Attributes:
        folder: of the task among several.
        run: its own run directory.
        full: the full model's trace on the evaluation questions.
        calibration: questions to choose by.
        evaluation: disjoint questions to report on.
        judge: what candidates are judged on: the calibration questions or plain text.
        kept: states that a step hands on to the next.
        steps: those that are done; takes those that are run.
        evaluated: the last step's trace on the evaluation questions.
        calibrated: and on the calibration questions, where steps are traced on them.
    """

    folder: str
    run: RunDirectory
    full: Trace
    calibration: Prepared
    evaluation: Prepared
    judge: Judge
    kept: Kept
    steps: list[Step]
    evaluated: LastTrace = field(default_factory=LastTrace)
    calibrated: LastTrace = field(default_factory=LastTrace)

    @cached_property
    def _found(self) -> list[dict[str, Any]]:
        """The candidates that an interrupted run has scored, read once."""
        return self.run.candidates()

    def scored(self, number: int) -> list[dict[str, Any]]:
        """The candidates of a step that an interrupted run has scored."""
        return [line for line in self._found if line["step"] == number]

    def keep(self, step: Step) -> None:
        """Keep a finished step."""
        self.steps.append(step)
        self.run.append_step(step.to_dict())

    def scale(self, objective: str) -> Scale:
        """Of an objective, from step 0."""
        full = self.steps[0].calibration[objective]
        return make_scale(objective, full, self.calibration.task.options)

    def answers(self, number: int) -> Answers:
        """Right answers of the model of a step."""
        chances = 1 / self.evaluation.task.options
        return Answers(self.steps[number].correct, self.steps[0].correct, chances)


@dataclass(frozen=True)
class Chosen:
    """The unit that goes at a step.

    Attributes:
        unit: which; None at step 0.
        lines: of each task, what choosing measured of the model without it, its ``block_passes``
            and ``seconds``.
        race: see ``Step.race``.
        merged: blocks that stay and have taken in some of those that are gone.
    """

    unit: Item | None
    lines: Sequence[Mapping[str, Any]]
    race: dict[str, Any] | None = None
    merged: Mixtures = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """What a search works with.

    Attributes:
        request: what was asked for.
        units: what goes one at a time.
        free: those of them that may go.
        stop: when to end.
        run: the whole run.
        tasks: one or several, each with its own questions, rows and kept states.
        together: steps with the figures of all tasks, of several; None of one, whose own steps are
            those of the run.
        text: what is chosen by in place of the calibration questions.
        guard: what each step is looked at by beyond questions; None for nothing.
        pattern: of the blocks' kinds, that the chosen model must follow; None for any.
    """

    request: PruneRequest
    units: Units
    free: tuple[Item, ...]
    stop: Stop
    run: RunDirectory
    tasks: Sequence[TaskSearch]
    together: list[TasksStep] | None = None
    text: PlainText | None = None
    guard: TextGuard | None = None
    pattern: Pattern | None = None

    @property
    def steps(self) -> Sequence[Step | TasksStep]:
        """The finished steps of the run."""
        return self.tasks[0].steps if self.together is None else self.together

    @property
    def removed(self) -> list[Item]:
        """What is gone so far, in order."""
        return [step.removed for step in self.steps[1:]]

    @property
    def objective(self) -> str | None:
        """A name in ``objectives.SIGNS``; None where no candidates are judged."""
        return self.request.choice.method.objective

    @property
    def by_questions(self) -> bool:
        """Whether candidates are judged by figures of questions."""
        return self.objective in OBJECTIVES

    @property
    def protected(self) -> frozenset[Item]:
        """What never goes."""
        return frozenset(self.units.names) - frozenset(self.free)

    def candidates(self, step: Step | TasksStep) -> list[Item]:
        """What may go next after a step."""
        among = step.kept if step.decisive is None else step.decisive
        free = [unit for unit in among if unit in self.free]
        if self.pattern is None:
            return free
        return self.pattern.may_go(step.kept, free, self.stop.most - step.step, self.protected)

    def ended(self, step: Step | TasksStep) -> str | None:
        """Why the search ends with a step; None to go on."""
        reason = self.stop.reason(step.step, step.retained, step.text_loss_rise)
        if reason is None and step.decisive is not None and not self.candidates(step):
            return "no Decisive block is left that may go, by the calibration questions"
        if reason is None and self.pattern is not None and not self.candidates(step):
            return "no block is left that may go and keep the pattern of the blocks"
        return reason

    def may_be_chosen(self, step: Step | TasksStep) -> bool:
        """Whether a search may end with the model of a step."""
        whole = self.pattern is None or self.pattern.is_kept(step.kept)
        return whole and self.stop.broken_by(step.retained, step.text_loss_rise) is None

    def combined(self, values: Sequence[Sequence[float]]) -> np.ndarray:
        """``[n]`` what is left of all tasks together, of ``[T, n]`` objectives."""
        left = [
            task.scale(self.objective).left(own)
            for task, own in zip(self.tasks, values, strict=True)
        ]
        return combine(np.stack(left), self.request.task_weights, self.request.combined_by)

    def named(self, task: TaskSearch, progress: Progress) -> Progress:
        """Tell ``progress`` which task it is, of several."""
        return progress if self.together is None else named(task.folder, progress)


def named(folder: str, progress: Progress) -> Progress:
    """Tell ``progress`` which task it is."""
    return lambda label, *done: progress(f"{folder}: {label}", *done)


class Chooser(Protocol):
    """Says what goes next."""

    def choose(self, search: Search, progress: Progress) -> Chosen:
        """The unit that goes at the step behind the last one."""


def run_search(search: Search, chooser: Chooser, progress: Progress) -> None:
    """Run the steps that are missing, keeping each on disk as soon as it is done.

    Raises:
        UserError: a share of an accuracy is to be kept that is not above chance.
    """
    began = time.perf_counter()
    if not search.steps:
        take_step(search, _full_model(search, progress), progress)
    refuse_keeping(search)
    while search.ended(search.steps[-1]) is None:
        take_step(search, chooser.choose(search, progress), progress)
    search.run.add_timings(prune=time.perf_counter() - began)


def refuse_keeping(search: Search) -> None:
    """Refuse to keep a share of an accuracy that is not above chance.

    Raises:
        UserError: names the task.
    """
    if search.stop.keep_accuracy is None:
        return
    for task in search.tasks:
        if task.steps[0].retained is None:
            leave = "" if search.together is None else "leave the task out, or "
            raise UserError(
                f"{task.full.task}: the full model's accuracy "
                f"{task.steps[0].evaluation['accuracy']:.3f} is not above chance "
                f"{task.full.chance:.3f}, so no share of it can be kept; {leave}give --remove "
                "instead"
            )


def take_step(search: Search, chosen: Chosen, progress: Progress) -> None:
    """Measure the model without the chosen unit too, on each task, and keep that.

    A step of several tasks is kept after those of each, so that what is killed between goes on with
    the task that is missing.
    """
    number = len(search.steps)
    removed = [*search.removed, chosen.unit] if number else []
    with merged_blocks(search.units.decoder, chosen.merged):
        guard = _guarded(search, removed, progress)
        for task, line in zip(search.tasks, chosen.lines, strict=True):
            if len(task.steps) == number:
                own = None if search.together is not None else guard
                told = search.named(task, progress)
                task.keep(_measured(search, task, removed, chosen, line, own, told))
    if search.together is not None:
        search.together.append(_all_tasks(search, number, chosen.unit, guard))
        search.run.append_step(search.together[-1].to_dict())
    search.run.add_timings(search=search.steps[-1].seconds)


def _label(removed: Sequence[Item], what: str = "") -> str:
    """What is done with the model without some units, for ``progress``."""
    if not removed:
        return f"{what}, full model" if what else "full model"
    return f"step {len(removed)}: {what}{' ' if what else ''}without {item_in_words(removed[-1])}"


def _full_model(search: Search, progress: Progress) -> Chosen:
    """Step 0, with the figures of text where candidates are judged by it."""
    lines = []
    for task in search.tasks:
        known = {}
        if search.objective is not None and not search.by_questions:
            raw = search.units.trace(
                task.judge.rows,
                task.judge.needs_vocabulary,
                [],
                output_only=True,
                progress=progress,
                label=_label([], "text"),
            )
            known = task.judge.figures(raw[:, 0])
        lines.append(known | {"block_passes": 0, "seconds": 0.0})
    return Chosen(None, lines)


def _guarded(search: Search, removed: Sequence[Item], progress: Progress) -> dict[str, Any] | None:
    """The figures of guards; in continuations the last step's is the most like this model."""
    if search.guard is None:
        return None
    before = (search.steps[0].guard, search.steps[-1].guard) if removed else (None, None)
    with search.units.without(removed):
        return search.guard.figures(whole_blocks(removed), *before, progress, _label(removed))


def _measured(
    search: Search,
    task: TaskSearch,
    removed: Sequence[Item],
    chosen: Chosen,
    line: Mapping[str, Any],
    guard: dict[str, Any] | None,
    progress: Progress,
) -> Step:
    """The step of one task from what is measured of the model without some units."""
    units, number, seed = search.units, len(task.steps), search.request.seed
    first = task.steps[0] if number else None
    calibration = line
    if first is None or not search.by_questions:
        label = _label(removed, "calibration questions")
        calibration = {**_on_calibration(search, task, removed, progress, label), **line}
    evaluated = task.full.decisions
    if first is not None:
        # Blocks that have taken in others have other weights than at the step before.
        last = LastTrace() if chosen.merged else task.evaluated
        label = _label(removed, "evaluation")
        evaluated = _traced(units, task.evaluation, last, removed, progress, label)
    gone = whole_blocks(removed)
    blocks = [block for block in range(len(units.decoder.blocks)) if block not in gone]
    return Step(
        step=number,
        removed=chosen.unit,
        kept=[unit for unit in units.names if unit not in removed],
        objective=None if search.objective is None else calibration[search.objective],
        calibration={name: calibration[name] for name in OBJECTIVES if name in calibration},
        phase=None if first is None else task.full.transition.phase(block_of_item(chosen.unit)),
        block_passes=line["block_passes"],
        seconds=line["seconds"],
        race=chosen.race,
        guard=guard,
        merged=written(chosen.merged) or None,
        decisive=_decisive(search, task, removed, blocks, progress),
        **model_figures(evaluated, first, blocks, search.stop.most + 1, seed),
    )


def _decisive(
    search: Search,
    task: TaskSearch,
    removed: Sequence[Item],
    blocks: Sequence[int],
    progress: Progress,
) -> list[int] | None:
    """Where only these may go, the Decisive blocks of the model without some, by a trace of it."""
    if search.request.among == "all":
        return None
    prepared = task.calibration
    label = _label(removed, "phases on calibration questions")
    decisions = _traced(search.units, prepared, task.calibrated, removed, progress, label)
    found = live_transition(decisions, blocks, search.request.seed)
    if not removed and not found.found:
        raise UserError(
            f"--among=decisive needs a transition, and the full model has none on the "
            f"{len(prepared.task.questions)} calibration questions: {found.reason}; take more with "
            "--calibration, or leave it out"
        )
    return list(found.decisive_blocks)


def _traced(
    units: Units,
    prepared: Prepared,
    last: LastTrace,
    removed: Sequence[Item],
    progress: Progress,
    label: str,
) -> Decisions:
    """Decisions of the model without some units at its readouts; ``last`` is of the same rows."""
    return prepared.decide(
        last.then(
            removed,
            lambda known: units.trace(
                prepared.rows,
                prepared.needs_vocabulary,
                removed,
                known=known,
                progress=progress,
                label=label,
            ),
        )
    )


def _on_calibration(
    search: Search, task: TaskSearch, removed: Sequence[Item], progress: Progress, label: str
) -> dict[str, float]:
    """All objectives of the model without some units on the calibration questions."""
    prepared = task.calibration
    raw = search.units.trace(
        prepared.rows,
        prepared.needs_vocabulary,
        removed,
        output_only=True,
        progress=progress,
        label=label,
    )
    return figures(prepared.decide(raw))


def _all_tasks(
    search: Search, number: int, unit: Item | None, guard: dict[str, Any] | None
) -> TasksStep:
    """The step of the whole run from those of its tasks."""
    own = [task.steps[number] for task in search.tasks]
    left = combined_retained(
        [task.answers(number) for task in search.tasks],
        search.request.task_weights,
        search.request.combined_by,
        search.request.seed,
    )
    return TasksStep(
        step=number,
        removed=unit,
        kept=own[0].kept,
        objective=float(search.combined([[step.objective] for step in own])[0]),
        retained=left.value,
        retained_ci=list(left.ci) if left.ci else None,
        collapsed=left.collapsed,
        tasks={
            task.folder: {
                "objective": step.objective,
                "left": float(task.scale(search.objective).left(step.objective)),
                "accuracy": step.evaluation["accuracy"],
                "ci": step.evaluation["ci"],
                "decision_margin": step.evaluation["decision_margin"],
                "retained": step.retained,
                "retained_ci": step.retained_ci,
                "collapsed": step.collapsed,
                "phase": step.phase,
            }
            for task, step in zip(search.tasks, own, strict=True)
        },
        block_passes=sum(step.block_passes for step in own),
        seconds=sum(step.seconds for step in own),
        guard=guard,
    )
