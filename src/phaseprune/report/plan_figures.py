"""The figure of a plan: what is read off, and the influence that adds up, by removed blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report import style


def plan_figure(result: Mapping[str, Any]) -> Figure:
    """Draw a plan against the number of removed blocks.

    Args:
        result: The content of `plan.json`.

    Returns:
        The figure: what is retained as read off what the other blocks add, the influence of the
        removed ones together, and the budget with its interval.
    """
    figure, axes = style.new_figure(3.6)
    rows, budget = result["rows"], result["budget"]
    numbers = [row["removed_blocks"] for row in rows]
    read = [row["read_off"]["retained"] for row in rows]
    if budget["blocks"] is not None:
        axes.axvspan(
            budget["low"] + 0.5,
            budget["high"] + 0.5,
            color=style.GRID,
            linewidth=0,
            label="budget, interval",
        )
        axes.axvline(
            budget["blocks"] + 0.5,
            color=style.INK,
            linewidth=1.2,
            linestyle=(0, (3, 2)),
            label=f"budget: {budget['blocks']} blocks",
        )
        axes.plot(
            numbers,
            read,
            color=style.INK,
            linewidth=1.4,
            marker="o",
            markersize=4.5,
            label="retained, read off",
        )
    together = [row["influence_together"] for row in rows]
    axes.plot(
        numbers,
        together,
        color=style.MUTED,
        linewidth=1.4,
        marker="s",
        markersize=4,
        label="influence together",
    )
    style.level_lines(axes, {"full model": 1.0, "chance": 0.0})
    axes.set_ylim(-0.15, 1.15)
    axes.set_xlim(0.5, len(rows) + 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(len(rows)))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    for row in rows:
        colour = {"silent": style.SILENT, "decisive": style.DECISIVE}.get(
            row["phase"], style.UNPHASED
        )
        axes.text(
            row["removed_blocks"],
            -0.11,
            str(row["block"]),
            ha="center",
            va="center",
            fontsize=style.NOTE_SIZE,
            color=colour,
        )
    style.set_labels(axes, "Blocks removed (coloured: which one goes)", "Share")
    style.set_title(axes, "What is predicted by one run of the full model")
    handles, labels = axes.get_legend_handles_labels()
    own = [
        handle
        for handle, label in zip(handles, labels, strict=True)
        if label not in ("full model", "chance")
    ]
    axes.legend(
        handles=own,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=2,
        frameon=False,
        fontsize=style.NOTE_SIZE,
    )
    return figure
