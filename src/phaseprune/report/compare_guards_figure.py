"""Figure of the guards of compared methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.compare_figures import looks

_PANELS = {
    "text_loss_rise": "Loss on text, rise",
    "agreement": "Greedy tokens equal",
    "repetition": "Repeated 4-grams",
}


def guarded_figure(task: Mapping[str, Any]) -> Figure:
    """Draw what guards found of each method against the number of removed blocks.

    Args:
        task: A task's entry in `compare.json`, with guards.

    Returns:
        The figure: a panel a figure, a line a method as in the figure of retained accuracy; the
        rise on an axis that is linear up to a doubling and logarithmic beyond.
    """
    methods = task["methods"]
    rows = -(-len(methods) // 4)
    figure = Figure(
        figsize=(8.6, 3.3 + 0.18 * rows), layout="constrained", facecolor="white"
    )  # fmt: skip
    drawn = looks([one["method"] for one in methods])
    for axes, (name, title) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        style.plain_axes(axes)
        for one in methods:
            points = [
                (cell["removed_blocks"], cell["guard"][name])
                for cell in one["cells"]
                if cell.get("guard")
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True), label=one["method"], **drawn[one["method"]],
                    linewidth=1.2, markersize=3.6,
                )  # fmt: skip
        if name == "text_loss_rise":
            axes.set_yscale("symlog", linthresh=1)
        else:
            axes.set_ylim(-0.03, 1.03)
        axes.axhline(
            task["full"]["guard"][name], color=style.RULE, linewidth=0.9, linestyle=(0, (1, 2)),
            zorder=0,
        )  # fmt: skip
        axes.xaxis.set_major_locator(style.integer_ticks(2 * max(task["numbers"])))
        axes.grid(axis="y", color=style.GRID, linewidth=0.7)
        style.percent_axis(axes)
        style.set_labels(axes, "Removed blocks", "")
        style.set_title(axes, title)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines
             if line.get_label() in drawn}  # fmt: skip
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False,
        fontsize=style.NOTE_SIZE, handlelength=3.4, labelspacing=0.35,
    )  # fmt: skip
    return figure
