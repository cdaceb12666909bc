"""``compare``: methods x numbers of removed blocks x tasks, on the same questions and engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phaseprune.comparison.guards import guard_sets, read_guards
from phaseprune.comparison.orders import check_numbers, method_names, wanted_rankings
from phaseprune.comparison.task import Job, chosen_by_job, conclude_job, run_job
from phaseprune.comparison.text import open_text, settle_guard, settle_text
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.probes.phasewise import check_draws
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.atomic import read_json, write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import task_folders
from phaseprune.runs.result import Result, bounds, draw, named, number
from phaseprune.sweep.recorded import tasks_identity

DEFAULT_DRAWS = 10


@dataclass(frozen=True, repr=False)
class Compared(Result):
    """Methods held against each other on one or several tasks.

    Attributes:
        result: the content of ``compare.json`` (docs/compare.md).
        state: ``new``, ``resumed`` or ``finished`` before with nothing to add.
    """

    result: dict[str, Any]
    state: str = field(default="new")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.result

    def plot(self, task: int = 0):
        """A matplotlib figure of retained accuracy by method and number of removed blocks."""
        return draw("compare_figure", self.result["tasks"][task])

    def _lines(self) -> list[str]:
        tasks = self.result["tasks"]
        lines = [f"{self.result['model']}, {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}"]
        for told in tasks:
            last = told["common_numbers"][-1:]  # before accuracy falls
            best = [one for one in told["by_removed"] if one["removed_blocks"] in last]
            at = "".join(
                f"; best without {one['removed_blocks']} blocks: {named(one['best'], 3)}"
                for one in best
            )
            lines.append(
                f"{told['task']}: {len(told['methods'])} methods, "
                f"{told['evaluation_questions']} questions, full accuracy "
                f"{number(told['full']['accuracy'])}{at}"
            )
        return lines

    def _rows(self) -> list[dict[str, Any]]:
        """A row a task, method and number of removed blocks."""
        return [
            {
                "task": told["task"],
                "method": one["method"],
                "removed_blocks": cell["removed_blocks"],
                "accuracy": cell["accuracy"],
                **bounds("accuracy", cell["accuracy_ci"]),
                "retained": cell["retained"],
                **bounds("retained", cell["retained_ci"]),
                "decision_margin": cell["decision_margin"],
                "collapsed": cell["collapsed"],
                "sets": cell["sets"],
                "block_passes": one["block_passes"],
            }
            for told in self.result["tasks"]
            for one in told["methods"]
            for cell in one["cells"]
        ]


def read_compared(run: RunDirectory) -> Compared:
    """The comparison that a finished run holds."""
    return Compared(read_json(run.path / "compare.json"), "finished")


def compare(
    decoder: Decoder,
    tasks: Sequence[Task],
    *,
    methods: Sequence[str] | None = None,
    remove: Sequence[int] | None = None,
    text: str | Path | None = None,
    guard: Guard | None = None,
    protect: Collection[int] = (),
    draws: int = DEFAULT_DRAWS,
    calibration: int | Sequence[int] | None = None,
    evaluation: int | Sequence[int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    arguments: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
) -> Compared:
    """Let every method choose on calibration questions, and score its choices on others.

    Args:
        decoder: from ``load_model``.
        tasks: from ``load_task``, one or more; the questions of each are split by seed.
        methods: names of ``phaseprune methods``, or ``all``; None for all but the expensive ones
            (``beam``, ``pairwise``, ``evolutionary``, ``laco``). In an unfinished or finished run
            these come beside those that it has. A method that cannot run is left out with the
            reason.
        remove: numbers of removed blocks; None for all that can be.
        text: a file of plain text for the methods that need one, by default the bundled text;
            ``"none"`` leaves these methods out. It can be given later.
        guard: look at each choice beyond questions as well: loss on text, greedy continuations and
            repetition (``probes.guards``), on what follows the part of the text that methods choose
            by; None does not. It can be given later.
        protect: original indices that no method removes.
        draws: orders that ``random`` draws, at least 2.
        calibration: number of questions to choose on, of each task, or one number a task.
        evaluation: number of other questions to report on, of each task, or one number a task.
        seed: of the split, of all that is drawn, and of all intervals.
        out: run directory, what is done in it is not done again. None keeps nothing on disk.
        arguments: the command line, for the manifest.
        note: told in a sentence of what is begun and what is left out.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, or a directory with another run.
    """
    names = method_names(methods)
    check_draws(draws, None)
    blocks, protect = len(decoder.blocks), frozenset(protect)
    numbers = check_numbers(blocks, remove, protect)
    folders = task_folders([task.name for task in tasks])
    sides = [
        split(task, *counts, seed)
        for task, *counts in zip(
            tasks,
            _of_each(calibration, tasks, "calibration"),
            _of_each(evaluation, tasks, "evaluation"),
            strict=True,
        )
    ]
    reading = open_text(decoder, text)
    guarded = guard and open_guard(decoder, guard, reading.path, seed, reading.skip)
    wanted = {name: wanted_rankings(name, blocks, numbers, protect, draws, seed) for name in names}
    on_text = any(one.on_text for rankings in wanted.values() for one in rankings)
    options = {"remove": list(numbers), "protect": sorted(protect), "draws": draws}
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        with run.open(
            tasks_identity("compare", decoder, tasks, folders, sides, seed, options),
            {
                "arguments": arguments,
                "tasks": [task.name for task in tasks],
                "text": None,
                "guard": None,
                "left_out": {},
            },
            adds=True,
        ) as state:
            settle_guard(run, reading, guarded)
            reading = settle_text(run, decoder, reading, on_text, progress)
            added, jobs = False, []
            run.update(status="running")
            for task, folder, (chosen_on, scored_on) in zip(tasks, folders, sides, strict=True):
                job = Job(
                    decoder,
                    RunDirectory(run.path / folder),
                    task,
                    chosen_on,
                    scored_on,
                    numbers,
                    protect,
                    reading,
                    seed,
                    progress,
                )
                added |= run_job(job, run, folder, wanted, options, jobs, note)
                jobs.append(job)
            if guarded:
                chosen = {one for job in jobs for one in chosen_by_job(job)}
                added |= guard_sets(run, guarded, chosen, progress)
            guards = read_guards(run)
            result = {
                "model": decoder.name,
                "blocks": blocks,
                "seed": seed,
                **options,
                "text": run.manifest["text"],
                "guard": run.manifest.get("guard"),
                "tasks": [
                    conclude_job(job, run, folder, guards)
                    for job, folder in zip(jobs, folders, strict=True)
                ],
            }
            write_json(run.path / "compare.json", result)
            run.update(status="finished")
        return Compared(result, "resumed" if state == "finished" and added else state)


def _of_each(
    counts: int | Sequence[int] | None, tasks: Sequence[Task], side: str
) -> Sequence[int | None]:
    """A number of questions for each task."""
    if counts is None or isinstance(counts, int):
        return [counts] * len(tasks)
    if len(counts) not in (1, len(tasks)):
        raise UserError(
            f"--{side} names {len(counts)} numbers of questions for {len(tasks)} tasks; give one "
            "number, or one a task in their order"
        )
    return list(counts) * (len(tasks) // len(counts))
