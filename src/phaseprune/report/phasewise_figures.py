"""Figure of phase-wise pruning: retained accuracy by phase and number of removed blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.phasewise_words import KIND_NAMES

COLOURS = {"silent": style.SILENT, "decisive": style.DECISIVE, "anywhere": style.UNPHASED}
MARKERS = {"silent": "s", "decisive": "o", "anywhere": "D"}
#: How far the kinds stand beside each other at one number of blocks.
APART = {"silent": -0.16, "anywhere": 0.0, "decisive": 0.16}


def phasewise_figure(result: Mapping[str, Any]) -> Figure:
    """Draw what is retained without sets of blocks of either phase, and from anywhere.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        The figure: a pale point a set, the mean of each kind with its interval in front.
    """
    figure, axes = style.new_figure(3.8)
    rows = result["by_removed"]
    for kind, shift in APART.items():
        for row in rows:
            values = row[kind]["retained_of_sets"]
            axes.plot(
                [row["removed_blocks"] + shift] * len(values), values, linestyle="none",
                marker=".", markersize=5, color=COLOURS[kind], alpha=0.3, label=f"{kind} sets",
            )  # fmt: skip
        numbers = [row["removed_blocks"] + shift for row in rows]
        means = [row[kind]["retained"] for row in rows]
        bounds = [
            row[kind]["retained_ci"] or [mean] * 2 for row, mean in zip(rows, means, strict=True)
        ]
        axes.vlines(
            numbers, [low for low, _ in bounds], [high for _, high in bounds],
            color=COLOURS[kind], linewidth=1.6, label=f"{kind} interval",
        )  # fmt: skip
        axes.plot(
            numbers, means, color=COLOURS[kind], linewidth=1.2, marker=MARKERS[kind],
            markersize=5.5, label=f"removed: {KIND_NAMES[kind]}",
        )  # fmt: skip
    style.level_lines(axes, {"full model": 1.0, "chance": 0.0})
    axes.xaxis.set_major_locator(style.integer_ticks(result["most"]))
    axes.set_xlim(0.5, result["most"] + 0.5)
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Blocks removed at once", "Retained")
    style.set_title(axes, "Retained accuracy by the phase of the removed blocks")
    axes.legend(
        handles=[line for line in axes.lines if line.get_label().startswith("removed: ")],
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False,
        fontsize=style.NOTE_SIZE,
    )  # fmt: skip
    return figure
