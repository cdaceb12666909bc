"""Figures of healed models: recovery by depth, Decision Margin before and after, losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from phaseprune.report import style

BEFORE, AFTER = style.UNPHASED, style.DECISIVE


def recovery_figure(ladder: Mapping[str, Any]) -> Figure:
    """Draw retained accuracy before and after healing against the depth that remains.

    Args:
        ladder: The content of `ladder.json`.

    Returns:
        The figure; the fitted broken line and the interval of its knot where one is claimed.
    """
    figure, axes = style.new_figure(4.0)
    rows = sorted(ladder["depths"], key=lambda row: row["remaining"])
    x = np.array([row["remaining"] for row in rows], float)
    for name, key, colour, marker, shift in (
        ("before healing", "retained_before", BEFORE, "s", -0.06),
        ("after healing", "retained_after", AFTER, "o", 0.06),
    ):
        points = [row[key] for row in rows]
        if any(point["value"] is None for point in points):
            continue
        values = np.array([point["value"] for point in points])
        bounds = np.array([point["ci"] or [point["value"]] * 2 for point in points]).T
        axes.errorbar(
            x + shift,
            values,
            yerr=np.abs(bounds - values),
            color=colour,
            marker=marker,
            markersize=5.5,
            linewidth=1.2,
            elinewidth=1,
            capsize=2.5,
            label=name,
        )
    for level in (0, 1):
        axes.axhline(level, color=style.RULE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    _knot(axes, ladder)
    axes.set_xlim(-0.4, ladder["blocks"] + 0.4)
    axes.xaxis.set_major_locator(style.integer_ticks(ladder["blocks"]))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, f"Remaining blocks (of {ladder['blocks']})", "Retained accuracy")
    style.set_title(axes, "Recovery by remaining depth")
    axes.legend(loc="lower right", frameon=False, fontsize=style.NOTE_SIZE)
    return figure


def _knot(axes, ladder: Mapping[str, Any]) -> None:
    levelling = ladder["levelling"]
    if not levelling["found"]:
        return
    axes.axvspan(*levelling["ci"], color=style.INK, alpha=0.08, linewidth=0, label="knot, 95 % CI")
    axes.axvline(
        levelling["depth"],
        color=style.INK,
        linewidth=1.1,
        linestyle=(0, (4, 2)),
        label="levels off",
    )


def margin_change_figure(healing: Mapping[str, Any]) -> Figure:
    """Draw the Decision Margin by readout before and after healing.

    Args:
        healing: The content of `heal.json`.

    Returns:
        The figure, with bands for the 95 % intervals.
    """
    figure, axes = style.new_figure(3.6)
    for when, colour, marker in (("before", BEFORE, "s"), ("after", AFTER, "o")):
        margin = healing[when]["decision_margin_by_readout"]
        x = np.arange(len(margin["mean"]))
        axes.fill_between(
            x, margin["ci_low"], margin["ci_high"], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(
            x,
            margin["mean"],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.3,
            label=f"{when} healing",
        )
    axes.axhline(0, color=style.RULE, linewidth=0.9)
    labels = ["0", *(f"{at}\nblock {block}" for at, block in enumerate(healing["kept"], start=1))]
    every = 1 + (len(labels) - 1) // 12
    places = range(0, len(labels), every)
    axes.set_xticks(list(places), [labels[place] for place in places])
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.set_labels(axes, "Readout of the pruned model", "Decision Margin")
    style.set_title(axes, "Decision Margin before and after healing")
    axes.legend(loc="upper left", frameon=False, fontsize=style.NOTE_SIZE)
    return figure


def loss_figure(healing: Mapping[str, Any]) -> Figure:
    """Draw the losses of training.

    Args:
        healing: The content of `heal.json`.

    Returns:
        The figure.
    """
    figure, axes = style.new_figure(3.0)
    evaluations = healing["training"]["evaluations"]
    trained = [one for one in evaluations if one["training"] is not None]
    axes.plot(
        [one["step"] for one in trained],
        [one["training"] for one in trained],
        color=BEFORE,
        linewidth=1.1,
        label="training batches",
    )
    axes.plot(
        [one["step"] for one in evaluations],
        [one["validation"] for one in evaluations],
        color=AFTER,
        marker="o",
        markersize=3.5,
        linewidth=1.3,
        label="validation",
    )
    axes.axvline(
        healing["training"]["best_step"],
        color=style.INK,
        linewidth=1.0,
        linestyle=(0, (4, 2)),
        label="kept",
    )
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.set_labels(axes, "Step", "Loss (nats)")
    style.set_title(axes, "Losses of healing")
    axes.legend(loc="upper right", frameon=False, fontsize=style.NOTE_SIZE)
    return figure
