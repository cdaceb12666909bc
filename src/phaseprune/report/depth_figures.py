"""Figures of where single questions, and groups of them, are decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from phaseprune.report import style


def decision_depth_figure(trace: Mapping[str, Any]) -> Figure:
    """Draw a histogram of the decision depth, with the phases behind it.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The figure: a bar a readout, and apart from these the questions whose output is wrong, those
        of them that no readout decides rightly in a darker part.
    """
    figure, axes = style.new_figure(2.9)
    depth, last = trace["decision_depth"], trace["blocks"]
    total = len(depth["depth"])
    wrong = depth["wrong_at_the_output"] / total
    never = depth["never_right_count"] / total
    for name, colour, start, stop in style.phase_spans(trace):
        left = -0.5 if start == 0 else start - 0.5
        right = stop - 0.5 if stop < last else last + 0.5
        axes.axvspan(left, right, color=colour, alpha=0.1, linewidth=0, label=f"{name} Phase")
    axes.bar(
        trace["readouts"], [count / total for count in depth["counts"]],
        width=0.86, color=style.INK, label="decision depth",
    )  # fmt: skip
    apart = last + 1.8
    axes.bar([apart], [wrong], width=0.86, color=style.RULE, label="wrong at the output")
    axes.bar([apart], [never], width=0.86, color=style.MUTED, label="right at no readout")
    axes.set_xlim(-0.6, last + 2.4)
    ticks = [tick for tick in style.integer_ticks(last).locs if last - tick > last / 40 - 1]
    axes.set_xticks([*ticks, apart], [*map(str, ticks), "wrong"])
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "First readout that is right for good", "Share of questions")
    found = trace["transition"]["found"]
    style.set_title(axes, "Decision depth", pad=26 if found else 8)
    style.phase_strip(axes, trace, edge=0.5)
    if never:
        axes.legend(
            handles=[bar for bar in axes.containers if bar.get_label() != "decision depth"],
            loc="upper left", frameon=False, fontsize=style.NOTE_SIZE,
        )  # fmt: skip
    return figure


def group_margins_figure(groups: Mapping[str, Mapping[str, Any]], of: str) -> Figure:
    """Draw the Decision Margin by readout of each group of questions.

    Args:
        groups: `by_group` or `by_option_count` of `trace.json`.
        of: What a group is, in words.

    Returns:
        The figure: a row a group, a column a readout, a diverging colour centred at 0, and a mark
        at the transition.
    """
    margins = np.asarray([group["decision_margin"]["mean"] for group in groups.values()])
    rows, columns = margins.shape
    figure, axes = style.new_figure(float(np.clip(1.4 + 0.21 * rows, 1.9, 14)))
    limit = max(float(np.abs(margins).max()), 0.1)
    mesh = axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, margins,
        cmap=colormaps["PRGn"], vmin=-limit, vmax=limit, rasterized=margins.size > 3000,
        edgecolor="white" if columns <= 48 else "none", linewidth=0.5, label="Decision Margin",
    )  # fmt: skip
    found = [
        (group["transition"]["readout"], row)
        for row, group in enumerate(groups.values())
        if group["transition"]["found"]
    ]
    axes.plot(
        [at - 0.5 for at, _ in found], [row for _, row in found], linestyle="none", marker="|",
        markersize=9, markeredgewidth=2, color=style.INK, label="transition",
    )  # fmt: skip
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(columns - 1))
    names = [f"{_shortened(name)} ({group['questions']})" for name, group in groups.items()]
    axes.set_yticks(range(rows), names, fontsize=style.TICK_SIZE if rows <= 30 else 6)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=24, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=style.TICK_SIZE, colors=style.MUTED, labelcolor=style.INK)
    style.set_labels(axes, "Readout (after so many blocks)", "")
    style.set_title(axes, f"Decision Margin by {of}")
    return figure


def _shortened(name: str) -> str:
    text = " ".join(name.split()) or "(empty)"
    return text if len(text) <= 24 else text[:23] + "…"
