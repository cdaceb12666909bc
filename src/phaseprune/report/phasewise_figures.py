"""Figure of phase-wise pruning: what sets of either phase leave, and whether that is depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from phaseprune.report import style
from phaseprune.report.phasewise import (
    COMPARISONS,
    KIND_NAMES,
    compared_in_words,
    comparison,
)

COLOURS = {"silent": style.SILENT, "decisive": style.DECISIVE, "anywhere": style.UNPHASED}
MARKERS = {"silent": "s", "decisive": "o", "anywhere": "D"}
#: How far the kinds stand beside each other at one number of blocks.
APART = {"silent": -0.16, "anywhere": 0.0, "decisive": 0.16}


def phasewise_figure(result: Mapping[str, Any]) -> Figure:
    """Draw what is retained by phase, what each block costs, and the controlled differences.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        The figure. Above, a pale point a set, the mean of each kind with its interval in front, and
        hollow means of the decisions with the label prior taken off; below, the cost of each block
        with the fit at the transition, and the differences between the phases.
    """
    if "controlled" not in result:  # of an older version
        figure, axes = style.new_figure(3.8)
        _retained(axes, result)
        return figure
    figure = Figure(figsize=(style.WIDTH, 7.4), layout="constrained", facecolor="white")
    panels = figure.subplot_mosaic(
        [["retained", "retained"], ["costs", "controls"]], height_ratios=(1.15, 1)
    )
    for axes in panels.values():
        style.plain_axes(axes)
    _retained(panels["retained"], result)
    _costs(panels["costs"], result)
    _controls(panels["controls"], result)
    return figure


def _retained(axes: Axes, result: Mapping[str, Any]) -> None:
    """Retained by number of removed blocks and phase."""
    rows = result["by_removed"]
    debiased = (result.get("debiased") or {}).get("by_removed")
    for kind, shift in APART.items():
        for row in rows:
            values = row[kind]["retained_of_sets"]
            axes.plot(
                [row["removed_blocks"] + shift] * len(values),
                values,
                linestyle="none",
                marker=".",
                markersize=5,
                color=COLOURS[kind],
                alpha=0.3,
                label=f"{kind} sets",
            )
        numbers = [row["removed_blocks"] + shift for row in rows]
        means = [row[kind]["retained"] for row in rows]
        bounds = [
            row[kind]["retained_ci"] or [mean] * 2 for row, mean in zip(rows, means, strict=True)
        ]
        axes.vlines(
            numbers,
            [low for low, _ in bounds],
            [high for _, high in bounds],
            color=COLOURS[kind],
            linewidth=1.6,
            label=f"{kind} interval",
        )
        axes.plot(
            numbers,
            means,
            color=COLOURS[kind],
            linewidth=1.2,
            marker=MARKERS[kind],
            markersize=5.5,
            label=f"removed: {KIND_NAMES[kind]}",
        )
        if debiased:
            axes.plot(
                [number + 0.07 for number in numbers],
                [row[kind]["retained"] for row in debiased],
                color=COLOURS[kind],
                linewidth=1.0,
                linestyle=(0, (3, 2)),
                marker=MARKERS[kind],
                markersize=5.5,
                markerfacecolor="white",
                label=f"debiased: {KIND_NAMES[kind]}",
            )
    style.level_lines(axes, {"full model": 1.0, "chance": 0.0})
    axes.xaxis.set_major_locator(style.integer_ticks(result["most"]))
    axes.set_xlim(0.5, result["most"] + 0.5)
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Blocks removed at once", "Retained")
    style.set_title(axes, "Retained accuracy by the phase of the removed blocks")
    named = ("removed: ", "debiased: ")
    axes.legend(
        handles=[line for line in axes.lines if line.get_label().startswith(named)],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=3,
        frameon=False,
        fontsize=style.NOTE_SIZE,
    )


def _costs(axes: Axes, result: Mapping[str, Any]) -> None:
    """Cost of each block by its place, and the fit on both sides of the transition."""
    for phase in ("silent", "decisive"):
        own = [one for one in result["regression"]["costs"] if one["phase"] == phase]
        blocks, costs = [one["block"] for one in own], [one["cost"] for one in own]
        colour = COLOURS[phase]
        axes.vlines(
            blocks,
            [one["ci"][0] for one in own],
            [one["ci"][1] for one in own],
            color=colour,
            linewidth=1.4,
        )
        axes.plot(
            blocks,
            costs,
            linestyle="none",
            marker=MARKERS[phase],
            markersize=4.5,
            color=colour,
            label=f"cost: {KIND_NAMES[phase]}",
        )
    debiased = (result["debiased"] or {}).get("regression")
    if debiased:
        axes.plot(
            [one["block"] + 0.2 for one in debiased["costs"]],
            [one["cost"] for one in debiased["costs"]],
            linestyle="none",
            marker="o",
            markersize=3.5,
            markerfacecolor="white",
            color=style.MUTED,
            label="cost: debiased",
        )
    fit, readout = result["regression"]["fit"], result["transition"]["readout"]
    if fit:
        blocks = len(result["phases"]["silent"]) + len(result["phases"]["decisive"])
        for phase in ("silent", "decisive"):
            sides = [b for b in fit["blocks"] if b in result["phases"][phase]]
            ends = np.array([min(sides) - 0.5, max(sides) + 0.5])
            depth = (ends - readout + 0.5) / (blocks - 1)
            level = fit["level"]["value"] + (phase == "silent") * fit["jump"]["value"]
            axes.plot(
                ends,
                level + fit["slope"]["value"] * depth,
                color=COLOURS[phase],
                linewidth=1.3,
                label=f"fit: {KIND_NAMES[phase]}",
            )
    axes.axvline(readout - 0.5, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.axhline(0, color=style.MUTED, linewidth=0.9)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Block", "Cost of the block alone, of retained")
    style.set_title(axes, "By depth, and at the transition")


def _controls(axes: Axes, result: Mapping[str, Any]) -> None:
    """The differences between the phases, plain and controlled, raw and debiased."""
    measures = [(result, 0.0, style.INK, style.INK)]
    if result["debiased"]:
        measures = [
            (result, -0.12, style.INK, style.INK),
            (result["debiased"], 0.12, style.INK, "white"),
        ]
    names = [name for name in COMPARISONS if comparison(result, name)]
    for measure, shift, colour, face in measures:
        found = [(place, comparison(measure, name)) for place, name in enumerate(names)]
        found = [(place + shift, one) for place, one in found if one]
        axes.hlines(
            [place for place, _ in found],
            [one["difference_ci"][0] for _, one in found],
            [one["difference_ci"][1] for _, one in found],
            color=colour,
            linewidth=1.4,
        )
        axes.plot(
            [one["difference"] for _, one in found],
            [place for place, _ in found],
            linestyle="none",
            marker="o",
            markersize=5,
            color=colour,
            markerfacecolor=face,
            label="debiased" if face == "white" else "raw",
        )
    axes.axvline(0, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set_yticks(range(len(names)), [_two_lines(compared_in_words(result, n)) for n in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color=style.GRID, linewidth=0.7)
    style.set_labels(axes, "Decisive - Silent, of retained", "")
    style.set_title(axes, "Is it the phase, or the depth?")
    if len(measures) > 1:
        axes.legend(loc="upper left", frameon=False, fontsize=style.NOTE_SIZE, handletextpad=0.2)


def _two_lines(words: str) -> str:
    """Break a label near its middle."""
    parts = words.split()
    if len(words) < 18:
        return words
    broken = [" ".join(parts[:at]) + "\n" + " ".join(parts[at:]) for at in range(1, len(parts))]
    return min(broken, key=lambda one: max(map(len, one.split("\n"))))
