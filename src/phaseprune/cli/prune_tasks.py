"""What ``phaseprune prune`` reads and shows where there are several tasks."""

from __future__ import annotations

from os.path import isfile

from phaseprune.cli.console import Screen, name_list
from phaseprune.errors import UserError


def task_names(text: str) -> list[str]:
    """The tasks that ``--task`` names: a file's name is one, commas and all.

    Raises:
        UserError: it names none.
    """
    return [text] if isfile(text) else name_list(text, "--task")


def task_weights(text: str | None) -> list[float] | None:
    """The weights that ``--weights`` gives; None where it is not given.

    Raises:
        UserError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"--weights {text!r} must be numbers, one a task, as 2,1,1") from None


def show_tasks(screen: Screen, pruning: dict) -> None:
    """Print the steps of a pruning run with several tasks and what they come to."""
    from phaseprune.report.guard_words import guards_table
    from phaseprune.report.tasks_words import phases_lines, tasks_lines, tasks_tables

    steps, result = pruning["steps"], pruning["result"]
    traces = {folder: one["trace"] for folder, one in pruning["tasks"].items()}
    for line in phases_lines(traces):
        screen.say(line)
    for table in tasks_tables(steps, result):
        screen.say(table)
    if guards := guards_table(steps):
        screen.say(guards)
    screen.say(f"the search ended: {result['stopped_by']}")
    for line in tasks_lines(steps, traces, result, pruning["chosen_by"]):
        screen.say(line)
    if result["export"]:
        screen.say(
            f"exported: {result['export']['path']}, reloaded from disk, max |Δ logits| "
            f"{result['export']['max_abs_logit_difference']:.2g}"
        )
