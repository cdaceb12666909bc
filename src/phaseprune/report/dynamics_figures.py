"""Figure of the dynamics of pruning: the transition of every pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.collapse import FALL_MARKS, fall_range, fitted_fall
from phaseprune.report.item_words import nouns_of

#: State of a model without a found transition -> marker and label; None in older versions' runs.
NO_TRANSITION = {
    "gone": ("x", "gone"), "unclear": ("$?$", "cannot be told"), None: ("x", "none found"),
}  # fmt: skip


def dynamics_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the transition of the model of every pruning step, and where there is none.

    Args:
        result: The result of a finished prune run with `dynamics`.

    Returns:
        The figure: a point a step with its interval; below, crosses where the transition is gone
        and question marks where that cannot be told; the interval of the fitted fall as a band, the
        collapse as a line.
    """
    figure, axes = style.new_figure(3.0)
    dynamics = result["dynamics"]
    blocks = result.get("blocks") or len(result["removed"]) + len(result["kept"])
    found = [one for one in dynamics["transitions"] if one["found"]]
    without = [one for one in dynamics["transitions"] if not one["found"]]
    last = max(len(dynamics["transitions"]) - 1, 1)
    axes.set_xlim(-0.6, last + 0.6)
    axes.set_ylim(-0.08 * blocks, blocks + 0.5)
    fall = fitted_fall(result)
    if fall and fall["found"]:
        low, high = fall_range(fall)
        axes.axvspan(
            low - 1, high, color=style.INK, alpha=0.09, linewidth=0,
            label=f"{FALL_MARKS[fall.get('kind')]}, 95 % interval",
        )  # fmt: skip
    if result["collapsed_at_step"] is not None:
        axes.axvline(
            result["collapsed_at_step"], color=style.DECISIVE, linewidth=1.2, linestyle=(0, (2, 2)),
            label="collapsed",
        )  # fmt: skip
    steps = [one["step"] for one in found]
    axes.vlines(
        steps, [one["ci"][0] for one in found], [one["ci"][1] for one in found],
        color=style.INK, linewidth=1.6, label="transition, 95 % interval",
    )  # fmt: skip
    axes.plot(
        steps, [one["readout"] for one in found], color=style.INK, linewidth=0.8, marker="o",
        markersize=5, label="transition",
    )  # fmt: skip
    for state, (marker, label) in NO_TRANSITION.items():
        at = [one["step"] for one in without if one.get("state") == state]
        if at:
            axes.plot(
                at, [0] * len(at), linestyle="none", marker=marker, color=style.UNPHASED,
                markersize=6, label=label,
            )  # fmt: skip
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.yaxis.set_major_locator(style.integer_ticks(blocks))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    removed = f"Removed {nouns_of([], result)}"
    style.set_labels(axes, removed, "Readout of the transition")
    style.set_title(axes, "Transition of the pruned models")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=5, frameon=False,
        fontsize=style.NOTE_SIZE, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip
    return figure
