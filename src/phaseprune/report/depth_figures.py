"""Figure of the decision depth: where single questions are decided for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
