"""What a person sees: progress on stderr, tables on stdout; or JSON alone on stdout."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phaseprune import progress as progress_module
from phaseprune.errors import UserError
from phaseprune.runs.directory import default_run_path


class Screen:
    """Where a command prints.

    ``say`` prints for people on stdout and nothing under ``--json`` or ``--quiet``; ``note`` prints
    on stderr unless ``--quiet``.
    """

    def __init__(self, as_json: bool, quiet: bool):
        self.as_json, self.quiet = as_json, quiet
        self.out = Console(highlight=False, soft_wrap=False)
        self.err = Console(stderr=True, highlight=False)

    def say(self, *what: Any, whole: bool = False) -> None:
        """Print for people; ``whole`` lines are left for the terminal to fold, to be copied."""
        if not (self.as_json or self.quiet):
            self.out.print(*what, soft_wrap=whole)

    def note(self, text: str) -> None:
        """One line about what goes on, on stderr."""
        if not self.quiet:
            self.err.print(text, style="dim", markup=False)

    def result(self, value: Any) -> None:
        """The result, where ``--json`` asks for it."""
        if self.as_json:
            print(json.dumps(value, allow_nan=False))

    def next(self, *commands: str) -> None:
        """The next commands to type."""
        self.say()
        for number, command in enumerate(commands):
            lead = "next:" if number == 0 else "     "
            self.say(f"[dim]{lead}[/] [bold]{escape(command)}[/]", whole=True)

    @contextmanager
    def progress(self) -> Iterator[progress_module.Progress]:
        """A progress bar with the time left, on stderr; silent under ``--quiet``."""
        if self.quiet:
            yield progress_module.silent
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            tasks: dict[str, Any] = {}

            def listen(label: str, done: float, total: float) -> None:
                if label not in tasks:
                    for task in tasks.values():
                        bar.remove_task(task)
                    tasks.clear()
                    tasks[label] = bar.add_task(label, total=total)
                bar.update(tasks[label], completed=done, total=total)

            yield listen


def load_checked(name: str, screen: Screen, **options: Any):
    """``load_model`` with transformers' own bars and warnings off, and a line of ours instead."""
    with screen.err.status(f"loading {name} …") if not screen.quiet else _nothing():
        if screen.quiet or name.endswith(".gguf"):  # its de-quantiser has a bar that nothing stops
            os.environ.setdefault("TQDM_DISABLE", "1")
        from phaseprune.decoder.load import load_model, silence_transformers

        silence_transformers()
        decoder = load_model(name, **options)
    for remark in decoder.pipeline.remarks:
        screen.note(f"{name}: {remark}")
    placed = decoder.placement.described(name)
    if placed:
        screen.note(placed)
    return decoder


def name_list(text: str, option: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        UserError: there is none.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UserError(f"{option} {text!r} names nothing; give one name or several, as a,b")
    return found


def block_list(text: str, option: str = "--remove") -> list[int]:
    """The blocks that an option names.

    Raises:
        UserError: they are no numbers.
    """
    try:
        return [int(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"{option} {text!r} must be block indices, as 20,26,7") from None


def command_line(*words: Any) -> str:
    """A command that can be typed again."""
    return shlex.join(["phaseprune", *map(str, words)])


def task_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's options (its ``locals()``) that say how ``load_task`` puts questions."""
    from inspect import signature

    from phaseprune.questions.catalog import load_task

    names = [name for name in signature(load_task).parameters if name not in ("name", "limit")]
    return {name: options[name] for name in names if name in options}


def load_questions(screen: Screen, name: str, limit: int | None, settings: dict[str, Any]):
    """``load_task``; what files were recognised as, and what to know of them, is said on stderr."""
    from phaseprune.questions.catalog import load_task

    task = load_task(name, limit=limit, **settings)
    if task.recognised:
        screen.note(f"{name} is read as {task.recognised}")
    for note in task.notes:
        screen.note(f"{name}: {note}")
    return task


def prompt_words(settings: dict[str, Any], scoring: str) -> list[str]:
    """Those settings of ``load_task`` that are not its defaults, as words of a command line."""
    from inspect import signature

    from phaseprune.questions.catalog import load_task

    defaults = signature(load_task).parameters
    words = []
    for name, value in (settings | {"scoring": scoring}).items():
        if value != defaults[name].default:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return words


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


@contextmanager
def _nothing() -> Iterator[None]:
    yield
