"""The table of commands, and how each ends: 0 done, 2 bad input, 1 a failure of ours."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from phaseprune.cli.ablate import ablate
from phaseprune.cli.check import check
from phaseprune.cli.compare import compare
from phaseprune.cli.demo import demo
from phaseprune.cli.export import export
from phaseprune.cli.heal import heal
from phaseprune.cli.methods import methods
from phaseprune.cli.options import OUTPUT
from phaseprune.cli.paper import paper
from phaseprune.cli.perturb import perturb
from phaseprune.cli.phasewise import phasewise
from phaseprune.cli.plan import plan
from phaseprune.cli.prune import prune
from phaseprune.cli.report import report
from phaseprune.cli.similarity import similarity
from phaseprune.cli.tasks import tasks
from phaseprune.cli.trace import trace
from phaseprune.errors import UserError, near_matches

#: The order of ``phaseprune --help``.
GROUPS = {
    "Start here": (demo, check, tasks, methods),
    "Prune": (prune, plan, compare, heal, export, report),
    "Analyse": (trace, perturb, ablate, similarity, phasewise),
    "The paper": (paper,),
}
#: Name of a command -> function.
COMMANDS = {one.__name__: one for group in GROUPS.values() for one in group}


class Command(TyperCommand):
    """A command whose ``--help`` stands with the other options of what is printed."""

    def get_help_option(self, ctx: Any) -> Any:
        """``--help``."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = OUTPUT
        return found


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for panel, group in GROUPS.items():
    for function in group:
        app.command(function.__name__, cls=Command, rich_help_panel=panel)(function)


def _say_version(asked: bool) -> None:
    if asked:
        from phaseprune import __version__

        print(f"phaseprune {__version__}")
        raise typer.Exit


@app.callback()
def phaseprune(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find where a language model makes up its mind, and prune what comes after."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, prog_name="phaseprune", standalone_mode=False) or 0
    except UserError as error:
        code = _say(f"error: {error.typed}", 2)
    except KeyboardInterrupt:
        code = _say("stopped; the same command goes on from the last finished step", 130)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        code = _usage_error(error, arguments)
        if code is None:
            traceback.print_exc()
            code = _say(f"failure of phaseprune, not of your input: {error}", 1)
    sys.exit(code)


def _usage_error(error: Exception, arguments: list[str]) -> int | None:
    """Say a wrong command, option or value in one sentence; None for any other error."""
    if type(error).__name__ in ("Exit", "Abort", "NoArgsIsHelpError"):
        return getattr(error, "exit_code", 1)
    if not hasattr(error, "format_message"):
        return None
    hint = ""
    if arguments and arguments[0] not in COMMANDS and "Did you mean" not in error.format_message():
        hint = near_matches(arguments[0], COMMANDS)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "phaseprune"
    message = error.format_message().rstrip(". ")
    stop = "" if message.endswith("?") else "."
    return _say(f"error: {message}{stop}{hint} Try '{path} --help'.", 2)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
