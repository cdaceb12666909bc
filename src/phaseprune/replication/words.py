"""What ``paper`` found, in the terminal: verdicts by claim and task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rich.table import Table
from rich.text import Text

from phaseprune.replication.judges import VERDICTS
from phaseprune.report.view import add_row, new_table
from phaseprune.report.words import plural

STYLES = {"agrees": "green", "partly": "yellow", "disagrees": "red", "undecided": "dim"}


def shown_name(model: str) -> str:
    """A model's name for titles: of a file or an absolute path its last part.

    Args:
        model: As it was given.

    Returns:
        The name; hub ids stay as they are.
    """
    file = model.lower().endswith(".gguf")
    name = PurePath(model).name if file or PurePath(model).is_absolute() else model
    return name[: -len(".gguf")] if file else name


def claims_table(found: Mapping[str, Any]) -> Table:
    """Tabulate the verdicts: a row a claim, a column a task.

    Args:
        found: The content of `paper.json`.

    Returns:
        A table; of up to three tasks with short names at most 80 columns.
    """
    table = new_table(
        f"{shown_name(found['model'])} held against the paper (arXiv 2605.07271)",
        "undecided: not significant, or could not be done; numbers are in claims.md",
    )
    table.add_column("The paper says")
    for task in found["tasks"]:
        table.add_column(task["folder"], no_wrap=True)
    for claim in found["claims"]:
        verdicts = [task["claims"][claim["name"]]["verdict"] for task in found["tasks"]]
        add_row(table, claim["title"], *(Text(one, style=STYLES[one]) for one in verdicts))
    return table


def summary_line(found: Mapping[str, Any]) -> str:
    """How many claims of all tasks got which verdict, in one sentence.

    Args:
        found: The content of `paper.json`.

    Returns:
        The sentence.
    """
    verdicts = [claim["verdict"] for task in found["tasks"] for claim in task["claims"].values()]
    counts = Counter(verdicts)
    parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    tasks = plural(len(found["tasks"]), "task")
    return f"{plural(len(found['claims']), 'claim')} on {tasks}: {parts}."


def left_out_lines(found: Mapping[str, Any]) -> list[str]:
    """Say which experiments could not be done, and why.

    Args:
        found: The content of `paper.json`.

    Returns:
        A sentence for each.
    """
    return [
        f"{task['task']}: {name} was left out: {told['reason']}"
        for task in found["tasks"]
        for name, told in task["experiments"].items()
        if told["state"] != "done"
    ]
