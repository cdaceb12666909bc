"""The table of commands, and how each ends: 0 done, 2 bad input, 1 a failure of ours."""

from __future__ import annotations

import sys
import traceback

import typer

from phaseprune.cli import (
    ablate,
    check,
    compare,
    demo,
    export,
    heal,
    methods,
    paper,
    perturb,
    phasewise,
    plan,
    prune,
    report,
    similarity,
    tasks,
    trace,
)
from phaseprune.errors import UserError, near_matches

#: Command -> function. The order is that of ``phaseprune --help``.
COMMANDS = {
    "demo": demo.demo,
    "check": check.check,
    "trace": trace.trace,
    "plan": plan.plan,
    "prune": prune.prune,
    "perturb": perturb.perturb,
    "ablate": ablate.ablate,
    "similarity": similarity.similarity,
    "phasewise": phasewise.phasewise,
    "compare": compare.compare,
    "heal": heal.heal,
    "paper": paper.paper,
    "export": export.export,
    "report": report.report,
    "tasks": tasks.tasks,
    "methods": methods.methods,
}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Find where a language model makes up its mind, and prune what comes after.",
)
for name, function in COMMANDS.items():
    app.command(name)(function)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(arguments, prog_name="phaseprune", standalone_mode=False) or 0
    except UserError as error:
        code = _say(f"error: {error}", 2)
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
    return _say(f"error: {message}.{hint} Try '{path} --help'.", 2)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
