"""``compare``: methods x numbers of removed blocks x tasks, on the same questions and engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.folders import task_folders
from phaseprune.search.compare_orders import check_numbers, method_names, wanted_rankings
from phaseprune.search.compare_task import Job, conclude_job, run_job
from phaseprune.search.phasewise import check_draws
from phaseprune.search.plain_text import read_windows
from phaseprune.sweep.recorded import run_identity

DEFAULT_DRAWS = 10


@dataclass(frozen=True)
class Compared:
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
        from phaseprune.report.figures import compare_figure

        return compare_figure(self.result["tasks"][task])


def compare(
    decoder: Decoder,
    tasks: Sequence[Task],
    *,
    methods: Sequence[str] | None = None,
    remove: Sequence[int] | None = None,
    text: str | Path | None = None,
    protect: Collection[int] = (),
    draws: int = DEFAULT_DRAWS,
    calibration: int | None = None,
    evaluation: int | None = None,
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
        methods: names of ``phaseprune methods``, or ``all``; None for all but the dear ones
            (``beam``, ``pairwise``, ``evolutionary``). In an unfinished or finished run these come
            beside those that it has. A method that cannot run is left out with the reason.
        remove: numbers of removed blocks; None for all that can be.
        text: a file of plain text, for the methods that need one; it can be given later.
        protect: original indices that no method removes.
        draws: orders that ``random`` draws, at least 2.
        calibration: number of questions to choose on, of each task.
        evaluation: number of other questions to report on, of each task.
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
    sides = [split(task, calibration, evaluation, seed) for task in tasks]
    told = None if text is None else read_windows(decoder, text).identity
    options = {"remove": list(numbers), "protect": sorted(protect), "draws": draws}
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        state = run.begin(
            _identity(decoder, tasks, folders, sides, seed, options),
            {"arguments": arguments, "tasks": [task.name for task in tasks], "text": told,
             "left_out": {}},
        )  # fmt: skip
        _keep_text(run, told)
        added, entries = False, []
        with run.work():
            run.update(status="running")
            for task, folder, (chosen_on, scored_on) in zip(tasks, folders, sides, strict=True):
                job = Job(decoder, RunDirectory(run.path / folder), task, chosen_on, scored_on,
                           numbers, protect, text, seed, progress)  # fmt: skip
                wanted = {
                    name: wanted_rankings(name, blocks, numbers, protect, draws, seed)
                    for name in names
                }
                added |= run_job(job, run, folder, wanted, options, note)
                entries.append(conclude_job(job, run, folder))
            result = {
                "model": decoder.name, "blocks": blocks, "seed": seed, **options, "text": told
                or run.manifest["text"], "tasks": entries,
            }  # fmt: skip
            write_json(run.path / "compare.json", result)
            run.update(status="finished")
        return Compared(result, "resumed" if state == "finished" and added else state)


def _identity(
    decoder: Decoder, tasks: Sequence[Task], folders: Sequence[str],
    sides: Sequence[tuple[Task, Task]], seed: int, options: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Which run it is. Methods and text are no part of it, so that they can be added later."""
    counts = {
        f"{side} questions of {folder}": len(part.questions)
        for folder, both in zip(folders, sides, strict=True)
        for side, part in zip(("calibration", "evaluation"), both, strict=True)
    }
    told = {
        f"{folder} {key}": value
        for folder, task in zip(folders, tasks, strict=True)
        for key, value in task.identity.items()
        if key != "name"
    }
    return run_identity("compare", decoder, tasks[0], seed, options | counts) | {
        "task": {"name": ", ".join(task.name for task in tasks), **told},
        "prompt_format": "; ".join(dict.fromkeys(task.prompt_format for task in tasks)),
    }


def _keep_text(run: RunDirectory, told: dict[str, Any] | None) -> None:
    """Keep which text the run looks at.

    Raises:
        UserError: it looked at another one before.
    """
    before = run.manifest["text"]
    if told is None or before == told:
        return
    if before is not None:
        raise UserError(
            f"{run.path} holds another run: its --text had the fingerprint "
            f"{before['text_fingerprint'][:12]} and now has {told['text_fingerprint'][:12]}; give "
            "another --out, or the text of before"
        )
    run.update(text=told)
