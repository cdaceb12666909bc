"""What a person sees: progress on stderr, tables on stdout; or JSON alone on stdout."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phaseprune import progress as progress_module
from phaseprune.errors import UserError


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

    def show(self, lines: Iterable[Any]) -> None:
        """Print lines and tables for people; a line that is None is none."""
        for line in lines:
            if line is not None:
                self.say(line)

    def note_state(self, state: str, run: Path | str) -> None:
        """Say of a run that was ``finished`` before that nothing was computed now."""
        if state == "finished":
            self.note(f"{run} was finished before; this is its result")

    def end(self, result: Any, *following: str, report: Path | None = None) -> None:
        """The last lines: where the report is and what to type next; or the result as JSON."""
        if report is not None:
            self.say(f"report: {report}")
        self.next(*following)
        self.result(result)

    def next(self, *commands: str) -> None:
        """The next commands to type."""
        self.say()
        for number, command in enumerate(commands):
            lead = "next:" if number == 0 else "     "
            self.say(f"[dim]{lead}[/] [bold]{escape(command)}[/]", whole=True)

    def status(self, text: str) -> AbstractContextManager:
        """A sign of life on stderr while something is read; silent under ``--quiet``."""
        return nullcontext() if self.quiet else self.err.status(text)

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


def name_list(text: str, option: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        UserError: there is none.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UserError(f"{option} {text!r} names nothing; give one name or several, as a,b")
    return found


def number_list(text: str, option: str, must: str) -> list[int]:
    """The numbers in a list with commas or spaces.

    Args:
        text: as typed.
        option: that it was typed for.
        must: what the option must do or be, for the error.

    Raises:
        UserError: a part is no whole number.
    """
    try:
        return [int(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"{option} {text!r} must {must}") from None


def block_list(text: str | None, option: str = "--protect") -> list[int]:
    """The blocks that an option names; none where it is not given.

    Raises:
        UserError: they are no numbers.
    """
    return [] if text is None else number_list(text, option, "be block indices, as 20,26,7")


def command_line(*words: Any) -> str:
    """A command that can be typed again."""
    return shlex.join(["phaseprune", *map(str, words)])
