"""``prune``: Iterative Pruning in a run directory that can be killed and gone on with."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.search.conclude import conclude
from phaseprune.search.iterative import first_step, next_steps
from phaseprune.search.judge import Judge, question_judge, text_judge
from phaseprune.search.method import search_options
from phaseprune.search.objectives import check_objective
from phaseprune.search.plain_text import read_text
from phaseprune.search.racing import make_racing
from phaseprune.search.step import Search, Step
from phaseprune.search.stopping import stop_rule
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.precision import faster_products
from phaseprune.sweep.recorded import phases_option, recorded_trace, run_identity


@dataclass(frozen=True)
class Pruning:
    """A pruning run: the full model's trace, the steps, and what they come to.

    ``result`` is that of the manifest: the chosen step, the blocks removed up to it in order,
    accuracy of the full and the pruned model, retained, collapse and cliff. ``state`` says whether
    the run was ``new``, ``resumed`` or ``finished`` before.
    """

    trace: Trace
    steps: list[Step]
    result: dict[str, Any]
    state: str = field(default="new")

    @property
    def removed(self) -> list[int]:
        """Original indices of the removed blocks, in order of removal."""
        return self.result["removed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: trace, steps and result."""
        return {
            "trace": self.trace.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "result": self.result,
        }

    def plot(self):
        """A matplotlib figure of accuracy against removed blocks."""
        from phaseprune.report.figures import pruning_figure

        return pruning_figure([step.to_dict() for step in self.steps], self.result)


def prune(
    decoder: Decoder,
    task: Task,
    *,
    remove: int | None = None,
    ratio: float | None = None,
    keep_accuracy: float | None = None,
    keep_text_loss: float | None = None,
    objective: str = "decision_margin",
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
) -> Pruning:
    """Remove blocks one at a time, choosing on calibration, reporting on evaluation questions.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; its questions are split by seed.
        remove: number of blocks to remove.
        ratio: or share of the blocks to remove.
        keep_accuracy: share of the accuracy above chance that must remain. With none of these rules
            the search keeps 0.9 of it (see ``stopping.stop_rule``).
        keep_text_loss: the most that the loss on the guards' text may rise, as a share of the full
            model's loss; brings guards with it.
        objective: ``decision_margin``, ``accuracy`` or ``loss`` on the calibration questions, or
            ``text_loss``.
        search: ``exact`` scores every candidate on all calibration questions (or the whole text);
            ``racing`` drops those early that are significantly worse.
        race_alpha: of racing: probability with which a step may choose a block that is worse than
            the best by more than the tolerance; 0.05 by default.
        race_tolerance: of racing: in units of the objective; 0.02 by default.
        race_dtype: of racing: of the matrix products while candidates race, ``own`` (the model's),
            ``bfloat16``, or by default ``auto``, the faster one here by a quick measurement.
        text: a file of plain text: of ``text_loss``, to choose by; of guards, to measure on, by
            default the bundled one. With both, guards take what follows the part chosen by.
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
    check_objective(objective)
    how = search_options(search, race_alpha, race_tolerance, race_dtype)
    stop = stop_rule(len(decoder.blocks), remove, ratio, keep_accuracy, keep_text_loss)
    guard = Guard() if guard is None and keep_text_loss is not None else guard
    calibration_task, evaluation_task = split(task, calibration, evaluation, seed)
    calibration_rows = prepare(decoder, calibration_task)
    evaluation_rows = prepare(decoder, evaluation_task, streams=1)
    chosen_by = read_text(decoder, text, objective, guard is not None)
    guarded = None
    if guard is not None:
        guarded = open_guard(decoder, guard, text, seed, chosen_by.tokens if chosen_by else 0)
    counts = {
        "calibration_questions": len(calibration_task.questions),
        "evaluation_questions": len(evaluation_task.questions),
    }
    inputs = {
        name: count + evaluation_rows.input_counts[name]
        for name, count in calibration_rows.input_counts.items()
    }
    options = {"objective": objective, "remove": stop.most, "keep_accuracy": stop.keep_accuracy}
    options |= (chosen_by.identity if chosen_by else {}) | phases_option(transition)
    if guarded:
        options |= guarded.identity | {"keep_text_loss": stop.keep_text_loss}
    identity = run_identity("prune", decoder, task, seed, options | how | counts)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        state = run.begin(
            identity,
            {"arguments": arguments, "task_settings": dict(task.settings), **counts, **inputs},
        )
        full = recorded_trace(
            run, decoder, evaluation_rows, seed, progress, "full model, evaluation questions",
            transition,
        )  # fmt: skip
        judge = question_judge(decoder, calibration_rows)
        if chosen_by:
            judge = text_judge(decoder, chosen_by.windows, chosen_by.rows)
        racing = None
        if search == "racing":
            racing = make_racing(
                decoder, judge, objective, how, seed, race_products(run, decoder, judge, how)
            )
        kept = Kept(kept_budget(decoder, judge.rows))
        work = Search(
            decoder, calibration_rows, evaluation_rows, objective, stop, full.transition, seed,
            judge, kept, racing, guarded,
        )  # fmt: skip
        steps = [Step(**line) for line in run.steps()]
        if state != "finished":
            with run.work():
                _search(run, work, full, steps, progress)
            run.update(status="finished", result=conclude(work, steps))
        return Pruning(full, steps, run.manifest["result"], state)


def race_products(
    run: RunDirectory, decoder: Decoder, judge: Judge, how: dict[str, Any]
) -> torch.dtype | None:
    """The dtype of matrix products in races, measured once a run; None is the model's own."""
    if "race_products" not in run.manifest:
        wanted, found, gain = how["race_dtype"], None, None
        if wanted == "bfloat16":
            found = torch.bfloat16
        elif wanted == "auto" and how["tolerance"] > 0:
            found, gain = faster_products(decoder, judge.rows)
        name = str(found).removeprefix("torch.") if found else None
        run.update(race_products={"dtype": name, "times_faster": gain})
    name = run.manifest["race_products"]["dtype"]
    return getattr(torch, name) if name else None


def _search(
    run: RunDirectory, search: Search, full: Trace, steps: list[Step], progress: Progress
) -> None:
    """Run the steps that are missing, keeping each on disk as soon as it is done."""
    began = time.perf_counter()
    if not steps:
        steps.append(first_step(search, full.decisions, progress))
        run.append_step(steps[0].to_dict())
    if search.stop.keep_accuracy is not None and steps[0].retained is None:
        raise UserError(
            f"{full.task}: the full model's accuracy {steps[0].evaluation['accuracy']:.3f} is not "
            f"above chance {full.chance:.3f}, so no share of it can be kept; give --remove instead"
        )
    scored = run.candidates()
    for step in next_steps(
        search,
        list(steps),
        lambda number: [line for line in scored if line["step"] == number],
        run.append_candidates,
        progress,
    ):
        steps.append(step)
        run.append_step(step.to_dict())
        run.add_timings(search=step.seconds)
    run.add_timings(prune=time.perf_counter() - began)
