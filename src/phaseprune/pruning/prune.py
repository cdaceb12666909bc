"""``prune``: blocks removed one at a time, in a run directory that can be gone on with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import model_pattern
from phaseprune.decoder.items import Item
from phaseprune.errors import UserError
from phaseprune.methods.choice import find_choice
from phaseprune.methods.objectives import check_letters
from phaseprune.methods.rank import check_measurable, free_blocks, rank_looking_at
from phaseprune.methods.registry import check_length
from phaseprune.probes.guards import Guard
from phaseprune.progress import Progress, silent
from phaseprune.pruning.conclude import conclude
from phaseprune.pruning.granularity import check_choice, prune_halves
from phaseprune.pruning.open_run import open_run
from phaseprune.pruning.step import Step
from phaseprune.pruning.steps import open_search, run_steps
from phaseprune.pruning.stopping import stop_rule
from phaseprune.pruning.tasks_choice import check_tasks
from phaseprune.questions.question import Task
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, bounds, draw, named, number, with_bounds
from phaseprune.sweep.recorded import read_trace

if TYPE_CHECKING:
    from phaseprune.pruning.tasks_together import TasksPruning


@dataclass(frozen=True, repr=False)
class Pruning(Result):
    """A pruning run: the full model's trace, the steps, and what they come to.

    ``result`` is that of the manifest: the chosen step, the blocks removed up to it in order,
    accuracy of the full and the pruned model, retained, collapse and cliff. ``state`` says whether
    the run was ``new``, ``resumed`` or ``finished`` before. ``chosen_by`` is the manifest's: the
    method, what it looked at, and what is protected.
    """

    trace: Trace
    steps: list[Step]
    result: dict[str, Any]
    state: str = field(default="new")
    chosen_by: dict[str, Any] | None = None

    @property
    def removed(self) -> list[Item]:
        """Original indices of the removed blocks (or names of halves), in order of removal."""
        return self.result["removed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: trace, steps, result, and what chose."""
        return {
            "trace": self.trace.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "result": self.result,
            "chosen_by": self.chosen_by,
        }

    def _lines(self) -> list[str]:
        told, trace = self.result, self.trace
        collapsed = f"; collapsed ({told['collapsed_how'] or 'of texts'})"
        return [
            f"{trace.model} on {trace.task} ({len(trace.question_ids)} evaluation questions, "
            f"{trace.scoring})",
            f"removed {len(self.removed)}: {named(self.removed)}",
            f"accuracy {number(told['full']['accuracy'])} -> "
            f"{number(told['pruned']['accuracy'])}, retained "
            f"{with_bounds(told['retained'], told['retained_ci'])}"
            + (collapsed if told["collapsed"] else ""),
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a step, the first of the full model."""
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

    def plot(self):
        """A matplotlib figure of accuracy against removed blocks."""
        return draw("pruning_figure", [step.to_dict() for step in self.steps], self.result)


def read_pruning(run: RunDirectory) -> Pruning:
    """What a finished run holds."""
    manifest, steps = run.manifest, [Step(**line) for line in run.steps()]
    return Pruning(
        read_trace(run), steps, manifest["result"], "finished", manifest.get("chosen_by")
    )


def prune(
    decoder: Decoder,
    task: Task | Sequence[Task],
    *,
    weights: Sequence[float] | None = None,
    combine: str | None = None,
    remove: int | None = None,
    ratio: float | None = None,
    keep_accuracy: float | None = None,
    keep_text_loss: float | None = None,
    method: str | None = None,
    objective: str | None = None,
    protect: Collection[int] = (),
    granularity: str = "block",
    among: str = "all",
    keep_period: bool = False,
    search: str = "exact",
    race_alpha: float | None = None,
    race_tolerance: float | None = None,
    race_dtype: str | None = None,
    text: str | Path | None = None,
    guard: Guard | None = None,
    calibration: int | None = None,
    evaluation: int | None = None,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Pruning | TasksPruning:
    """Remove blocks one at a time, choosing on calibration, reporting on evaluation questions.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; its questions are split by seed. Of several (a sequence), blocks
            are chosen by all together, and the result is a ``tasks_together.TasksPruning``.
        weights: of several tasks, one a task; by default equal.
        combine: of several tasks, ``mean`` (the default) or ``worst`` of what is left of each.
        remove: number of blocks to remove.
        ratio: or share of the blocks to remove.
        keep_accuracy: share of the accuracy above chance that must remain. With none of these rules
            the search keeps 0.9 of it (see ``stopping.stop_rule``).
        keep_text_loss: the most that the loss on the guards' text may rise, as a share of the full
            model's loss; brings guards with it.
        method: what chooses, a name in ``methods.METHODS``; one that ranks blocks looks at the
            calibration questions, or at ``text``, before the first step. None for the search by
            ``objective``.
        objective: of a search: ``decision_margin`` (the default), ``debiased_margin`` (of letters:
            without the label prior), ``accuracy`` or ``loss`` on the calibration questions, or
            ``text_loss``.
        protect: original indices of blocks that are never removed.
        among: of an exact search: ``all`` blocks may go, or only the ``decisive`` ones of the model
            as it is, by a trace on the calibration questions before each step.
        keep_period: of an exact search: keep the pattern that the blocks follow by their kinds (as
            a full attention every sixth block), which some programs take by position. Blocks go a
            period at a time, one by one: the first freely, those after it so that the pattern is
            whole again; or from the end. The chosen step is one at which it is whole.
        granularity: what is removed one at a time: ``block``, or halves of blocks: ``attention``,
            ``mlp`` or ``sublayer`` (both kinds), named as ``7.attention``; ``remove`` and ``ratio``
            are of these then, and ``protect`` keeps both halves of a block.
        search: ``exact`` scores every candidate on all calibration questions (or the whole text);
            ``racing`` drops those early that are significantly worse.
        race_alpha: of racing: probability with which a step may choose a block that is worse than
            the best by more than the tolerance; 0.05 by default.
        race_tolerance: of racing: in units of the objective; 0.02 by default.
        race_dtype: of racing: of the matrix products while candidates race, ``own`` (the model's),
            ``bfloat16``, or by default ``auto``, the faster one here by a quick measurement.
        text: a file of plain text: of ``text_loss`` and of methods that look at text, to choose by;
            of guards, to measure on, by default the bundled one. With both, guards take what
            follows the part chosen by.
        guard: look at each step beyond questions as well: loss on text, greedy continuations and
            repetition (``probes.guards``); None does not.
        calibration: number of questions to choose on.
        evaluation: number of questions to report on.
        seed: of the split and of all intervals.
        transition: the phases, where they were found on other (more) questions; by default they
            are found on the evaluation questions.
        out: run directory; an unfinished run in it goes on, a finished one is read. None keeps
            nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, or a directory with another run.
    """
    choice = find_choice(method, objective, search, race_alpha, race_tolerance, race_dtype)
    tasks = [task] if isinstance(task, Task) else list(task)
    check_tasks(len(tasks), weights, combine, choice, granularity)
    choice.check_among(among, granularity, len(tasks), keep_period)
    check_letters(
        choice.method.objective, {one.scoring for one in tasks}, choice.how.get("search")
    )
    if len(tasks) > 1:
        from phaseprune.pruning.tasks_together import prune_tasks

        if transition is not None:
            raise UserError("a transition is of one task; leave it out of a search by several")
        return prune_tasks(
            decoder, tasks, choice, weights=weights, combine=combine, remove=remove, ratio=ratio,
            keep_accuracy=keep_accuracy, keep_text_loss=keep_text_loss, protect=protect, text=text,
            guard=guard, calibration=calibration, evaluation=evaluation, seed=seed, out=out,
            arguments=arguments, progress=progress,
        )  # fmt: skip
    (task,) = tasks
    check_length(choice.method, remove is not None or ratio is not None)
    protect = sorted(set(protect))
    check_choice(granularity, choice)
    if granularity != "block":
        rules = dict(remove=remove, ratio=ratio, keep_accuracy=keep_accuracy,
                     keep_text_loss=keep_text_loss)  # fmt: skip
        return Pruning(*prune_halves(
            decoder, task, granularity, choice, rules, protect=protect, text=text, guard=guard,
            calibration=calibration, evaluation=evaluation, seed=seed, transition=transition,
            out=out, arguments=arguments, progress=progress,
        ))  # fmt: skip
    free = free_blocks(decoder, choice.method, protect)
    stop = stop_rule(len(decoder.blocks), remove, ratio, keep_accuracy, keep_text_loss, free)
    check_measurable(decoder, choice.method, free, stop.most)
    pattern = model_pattern(decoder) if keep_period else None
    narrowed = ({} if among == "all" else {"among": among}) | (
        {"keep_period": True} if keep_period else {}
    )
    with open_run(
        decoder, task, choice, stop, nullcontext(decoder),
        lambda on: choice.told(on, protect, among, pattern),
        options=narrowed, protect=protect, text=text, guard=guard,
        calibration=calibration, evaluation=evaluation, seed=seed, transition=transition, out=out,
        arguments=arguments, progress=progress,
    ) as opened:  # fmt: skip
        work = open_search(
            opened.run, decoder, choice, free, opened.calibration, opened.evaluation, opened.text,
            stop, opened.full.transition, seed, opened.guard, among, pattern,
        )  # fmt: skip
        rank = partial(
            rank_looking_at, decoder, choice, opened.calibration_task, opened.text, free, stop.most,
            seed,
        )  # fmt: skip
        return Pruning(*opened.finish(
            partial(run_steps, opened.run, work, opened.full, opened.steps, rank, progress),
            partial(conclude, work, opened.steps),
        ))  # fmt: skip
