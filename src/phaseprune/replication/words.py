"""What ``paper`` found, in the terminal: verdicts by claim and task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from phaseprune.replication.judges import VERDICTS
from phaseprune.report.view import Cell, Column, Table, View
from phaseprune.report.words import plural


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


def paper_view(found: Mapping[str, Any]) -> View:
    """Show what was found, claim by claim.

    Args:
        found: The content of `paper.json`.

    Returns:
        The view.
    """
    return View([claims_table(found), summary_line(found), *left_out_lines(found)])


def claims_table(found: Mapping[str, Any]) -> Table:
    """Tabulate the verdicts: a row a claim, a column a task.

    Args:
        found: The content of `paper.json`.

    Returns:
        The table; of up to three tasks with short names it has at most 80 columns.
    """
    verdicts = {
        task["folder"]: [task["claims"][claim["name"]]["verdict"] for claim in found["claims"]]
        for task in found["tasks"]
    }
    return Table(
        f"{shown_name(found['model'])} held against the paper (arXiv 2605.07271)",
        [
            Column(
                "The paper says",
                [claim["title"] for claim in found["claims"]],
                left=True,
                wrap=True,
            ),
            *(
                Column(folder, [Cell(one, one) for one in of], left=True)
                for folder, of in verdicts.items()
            ),
        ],
        "undecided: not significant, or could not be done; numbers are in claims.md",
    )


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
