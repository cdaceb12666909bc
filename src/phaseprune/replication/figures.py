"""The verdicts on all claims as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

#: Verdict -> colour; readable without colours too, as the word stands in each field.
COLOURS = {
    "agrees": "#bfe3cf",
    "partly": "#f3e5a8",
    "disagrees": "#f4c1bc",
    "undecided": "#e3e6ea",
}


def verdicts_figure(found: Mapping[str, Any]) -> Figure:
    """Draw a field for each claim and task.

    Args:
        found: The content of `paper.json`.

    Returns:
        The figure.
    """
    claims, tasks = found["claims"], found["tasks"]
    figure = Figure(figsize=(4 + 1.7 * len(tasks), 0.6 + 0.36 * len(claims)), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, len(tasks))
    axes.set_ylim(len(claims), 0)
    for row, claim in enumerate(claims):
        for column, task in enumerate(tasks):
            verdict = task["claims"][claim["name"]]["verdict"]
            axes.add_patch(_field(column, row, COLOURS[verdict]))
            axes.text(column + 0.5, row + 0.5, verdict, ha="center", va="center", fontsize=9)
    axes.set_xticks(
        [column + 0.5 for column in range(len(tasks))],
        [task["task"] for task in tasks],
        parse_math=False,
    )
    axes.set_yticks([row + 0.5 for row in range(len(claims))], [one["title"] for one in claims])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _field(column: int, row: int, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.02, row + 0.05), 0.96, 0.9, color=colour, linewidth=0)
