"""What every pruning run of one task begins and ends with, whatever it removes one at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.methods.choice import Choice
from phaseprune.methods.plain_text import PlainText, looked_at, read_text
from phaseprune.probes.guards import Guard, TextGuard, open_guard
from phaseprune.progress import Progress
from phaseprune.pruning.step import Step
from phaseprune.pruning.stopping import Stop
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import Prepared, label_tokens, prepare
from phaseprune.sweep.recorded import phases_option, recorded_trace, run_identity, sides_counted


@dataclass(frozen=True)
class OpenRun:
    """A pruning run that is begun or gone on with.

    Attributes:
        run: its directory.
        state: ``new``, ``resumed`` or ``finished``.
        calibration_task: the questions to choose on,
        calibration: and their rows;
        evaluation: rows of the questions to report on.
        text: to choose by in place of the calibration questions.
        guard: what each step is looked at by beyond questions.
        full: the full model's trace.
        steps: the finished ones; takes those that are run.
    """

    run: RunDirectory
    state: str
    calibration_task: Task
    calibration: Prepared
    evaluation: Prepared
    text: PlainText | None
    guard: TextGuard | None
    full: Trace
    steps: list[Step]

    def finish(
        self, run_steps: Callable[[], None], conclude: Callable[[], dict[str, Any]]
    ) -> tuple[Trace, list[Step], dict[str, Any], str, dict[str, Any] | None]:
        """Run what is missing, and give the arguments of ``prune.Pruning``."""
        if self.state != "finished":
            run_steps()
            self.run.update(status="finished", result=conclude())
        manifest = self.run.manifest
        return self.full, self.steps, manifest["result"], self.state, manifest.get("chosen_by")


@contextmanager
def open_run(
    decoder: Decoder,
    task: Task,
    choice: Choice,
    stop: Stop,
    candidates: AbstractContextManager[Decoder],
    tell: Callable[[str | None], dict[str, Any]],
    *,
    options: Mapping[str, Any],
    protect: Sequence[int],
    text: str | Path | None,
    guard: Guard | None,
    calibration: int | None,
    evaluation: int | None,
    seed: int,
    transition: Transition | None,
    out: str | Path | None,
    arguments: str | None,
    progress: Progress,
) -> Iterator[OpenRun]:
    """Begin a pruning run, or go on with it, up to the full model's trace.

    Args:
        decoder: the model.
        task: its questions are split by seed.
        choice: what chooses.
        stop: when to end.
        candidates: gives the model whose parts are candidates, while these run as such.
        tell: from what is looked at, the manifest's ``chosen_by``.
        options: of the run's identity, beside those of every run.
        protect: rising.
        text: this and all that follows: see ``prune.prune``.
        guard: see there.
        calibration: see there.
        evaluation: see there.
        seed: see there.
        transition: see there.
        out: see there.
        arguments: see there.
        progress: see there.

    Raises:
        UserError: questions or a text that do not do, or a directory with another run.
    """
    guard = Guard() if guard is None and stop.keep_text_loss is not None else guard
    calibration_task, evaluation_task = split(task, calibration, evaluation, seed)
    with candidates as view:
        calibration_rows = prepare(view, calibration_task)
        chosen_by = read_text(view, text, choice, guard is not None)
    evaluation_rows = prepare(decoder, evaluation_task, streams=1)
    guarded = None
    if guard is not None:
        guarded = open_guard(decoder, guard, text, seed, chosen_by.tokens if chosen_by else 0)
    counts, inputs = sides_counted(calibration_rows, evaluation_rows)
    known = {**choice.options, "remove": stop.most, "keep_accuracy": stop.keep_accuracy}
    known |= ({"protect": list(protect)} if protect else {}) | dict(options)
    known |= (chosen_by.identity if chosen_by else {}) | phases_option(transition)
    if guarded:
        known |= guarded.identity | {"keep_text_loss": stop.keep_text_loss}
    identity = run_identity("prune", decoder, task, seed, known | choice.how | counts)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        told = tell(looked_at(choice, calibration_task, chosen_by))
        settings = {
            "task_settings": dict(task.settings), "chosen_by": told,
            "label_tokens": label_tokens(decoder, evaluation_task),
        }  # fmt: skip
        extra = {"arguments": arguments, **settings, **counts, **inputs}
        with run.open(identity, extra) as state:
            full = recorded_trace(
                run, decoder, evaluation_rows, seed, progress, "full model, evaluation questions",
                transition,
            )  # fmt: skip
            steps = [Step(**line) for line in run.steps()]
            yield OpenRun(run, state, calibration_task, calibration_rows, evaluation_rows,
                          chosen_by, guarded, full, steps)  # fmt: skip
