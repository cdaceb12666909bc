"""What commands have in common: from questions and a model to a run, its report and what is shown.

A command that measures a model on questions is a ``Run``, and takes these steps in this order:

    run = Run("ablate", model, questions, output)   # a model needs its task
    check_kind(kind)                                # what is asked for is refused here, ...
    task = run.load_questions()                     # ... or here: before the weights are loaded
    decoder = run.load_model()
    ablated = run.work(ablate, decoder, task, kind=kind, seed=questions.seed)
    run.show(ablation_view(ablated.to_dict(), ...))
    run.end(ablated.to_dict(), run.like("prune", "--keep-accuracy", 0.9))
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaseprune.cli.options import ModelOptions, QuestionOptions, RunOptions
from phaseprune.cli.screen import Screen, command_line, name_list
from phaseprune.errors import UserError
from phaseprune.runs.directory import default_run_path

if TYPE_CHECKING:
    from phaseprune.report.view import View


class Run:
    """A command that measures a model on questions and keeps what it found in a run directory.

    Attributes:
        screen: where it prints.
        task: what ``--task`` names, or the bundled task for the bundled model.
        path: the run directory.
    """

    def __init__(
        self, command: str, model: ModelOptions, questions: QuestionOptions, output: RunOptions
    ):
        """Take a command's options.

        Raises:
            UserError: no task is named, and there is none by default.
        """
        self.screen = Screen(output.as_json, output.quiet)
        self.task = task_name(model.name, questions.task)
        self.path = run_path(output.out, command, model.name, self.task)
        self._model, self._questions = model, questions
        self._scoring: str | None = None

    def task_names(self) -> list[str]:
        """The tasks where there may be several: a file's name is one, commas and all.

        Raises:
            UserError: there is none.
        """
        return [self.task] if isfile(self.task) else name_list(self.task, "--task")

    def load_questions(self, name: str | None = None):
        """The task's questions, or those of one of the tasks."""
        questions = load_questions(self.screen, name or self.task, self._questions.keywords())
        self._scoring = self._scoring or questions.scoring
        return questions

    def load_model(self):
        """The model, ready to be run."""
        return load_model(self.screen, self._model.name, self._model.keywords())

    def work(self, function: Callable, *inputs: Any, **options: Any):
        """What ``function`` finds, with a progress bar; it writes into the run directory.

        Of a run that was finished before, nothing is computed, and that is said.
        """
        with self.screen.progress() as progress:
            found = function(
                *inputs, **options, out=self.path, arguments=typed_command(), progress=progress
            )
        self.screen.note_state(found.state, self.path)
        return found

    def show(self, view: View, notes: Iterable[str] = ()) -> None:
        """A view of the result; notes, and what was done to the questions, on stderr."""
        from phaseprune.report.words import input_lines
        from phaseprune.runs.directory import RunDirectory

        self.screen.show(view.terminal())
        for line in [*notes, *input_lines(RunDirectory(self.path).manifest)]:
            self.screen.note(line)

    def end(self, result: Any, *following: str) -> None:
        """Write the report; say where it is and what to type next, or the result as JSON."""
        from phaseprune.report.page import write_report

        self.screen.end(result, *following, report=write_report(self.path))

    def like(self, command: str, *words: Any, task: str | None = None) -> str:
        """Another command on the same model and questions, put alike; or on one of the tasks."""
        prompt = self._questions.words(self._scoring)
        return command_line(command, self._model.name, "--task", task or self.task, *prompt, *words)


def load_model(screen: Screen, name: str, keywords: Mapping[str, Any]):
    """``load_model`` with transformers' own bars and warnings off, and a line of ours instead."""
    with screen.status(f"loading {name} …"):
        if screen.quiet or name.endswith(".gguf"):  # its de-quantiser has a bar that nothing stops
            os.environ.setdefault("TQDM_DISABLE", "1")
        from phaseprune.decoder.load import load_model, silence_transformers

        silence_transformers()
        decoder = load_model(name, **keywords)
    for remark in decoder.pipeline.remarks:
        screen.note(f"{name}: {remark}")
    placed = decoder.placement.described(name)
    if placed:
        screen.note(placed)
    return decoder


def load_questions(screen: Screen, name: str, keywords: Mapping[str, Any]):
    """``load_task``; what files were recognised as, and what to know of them, is said on stderr."""
    from phaseprune.questions.catalog import load_task

    task = load_task(name, **keywords)
    if task.recognised:
        screen.note(f"{name} is read as {task.recognised}")
    for note in task.notes:
        screen.note(f"{name}: {note}")
    return task


def run_path(out: Path | None, command: str, model: str, task: str) -> Path:
    """The run directory: as given, or one that belongs to this very command line."""
    words = [word for word in sys.argv[1:] if word not in ("--json", "--quiet")]
    return out or default_run_path(command, model, task, words)


def task_name(model: str, task: str | None) -> str:
    """The task: as given, or the bundled one for the bundled model.

    Raises:
        UserError: another model without a task.
    """
    if task is None and model != "demo":
        raise UserError(
            "name the questions with --task: a file of them (as .jsonl or .csv), or `demo` (which "
            "only the bundled model can know)"
        )
    return task or "demo"


def typed_command() -> str:
    """The command line of this process, as it would be typed again."""
    return command_line(*sys.argv[1:])
