"""Colours, axes and the phase strip that every figure shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from phaseprune.report.words import percent

SILENT = "#2f6db3"
DECISIVE = "#c2560c"
UNPHASED = "#6b7280"
INK = "#1f2933"
MUTED = "#5b6673"
RULE = "#c4cad2"
GRID = "#e8ebef"
REMOVED = "#d5d9df"
#: What is less the label prior, beside ``INK`` as the model answers.
DEBIASED = "#2c8a5a"

PHASE_COLOURS = {"silent": SILENT, "decisive": DECISIVE, None: UNPHASED}
PHASE_MARKERS = {"silent": "s", "decisive": "o", None: "D"}

WIDTH = 7.6
TITLE_SIZE = 11
LABEL_SIZE = 9.5
TICK_SIZE = 8.5
NOTE_SIZE = 8.5
LEAST_ACCURACY_SPAN = 0.4
STRIP_OFFSET = 5
STRIP_WIDTH = 4

_OPTION_RAMP = LinearSegmentedColormap.from_list(
    "phaseprune_options", ["#173f4d", "#3c8187", "#8cbfae", "#d3e6c8"]
)


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Make a white figure with one plain axes, without pyplot.

    Args:
        height: Height in inches.
        width: Width in inches.

    Returns:
        The figure and its axes, without top and right spines.
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Axes) -> None:
    """Take top and right spines away, and set ticks in the style of all.

    Args:
        axes: The axes.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(labelsize=TICK_SIZE, colors=MUTED, labelcolor=INK, length=3)
    axes.set_axisbelow(True)


def set_title(axes: Axes, text: str, pad: float = 8) -> None:
    """Put a left-aligned title over the axes.

    Args:
        axes: The axes.
        text: The title.
        pad: Points between the axes and the title.
    """
    axes.set_title(text, loc="left", fontsize=TITLE_SIZE, color=INK, pad=pad, fontweight="bold")


def set_labels(axes: Axes, x: str, y: str) -> None:
    """Name both axes.

    Args:
        axes: The axes.
        x: Name of the x axis.
        y: Name of the y axis.
    """
    axes.set_xlabel(x, fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(y, fontsize=LABEL_SIZE, color=INK)


def integer_ticks(last: int) -> FixedLocator:
    """Place ticks at whole numbers 0 … `last`, thinned so that their labels never touch.

    Args:
        last: The largest number on the axis.

    Returns:
        A locator for that axis.
    """
    step = 1 if last <= 24 else 2 if last <= 48 else 5 if last <= 110 else 10
    return FixedLocator(list(range(0, last + 1, step)))


def percent_axis(axes: Axes) -> None:
    """Write the y axis, which holds shares from 0 to 1, in per cent.

    Args:
        axes: The axes.
    """
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def option_colours(count: int) -> list[str]:
    """Pick colours for options, dark to light in the order of the options.

    Args:
        count: Number of options.

    Returns:
        One hex colour an option.
    """
    return [to_hex(_OPTION_RAMP(i / max(count - 1, 1))) for i in range(count)]


def phase_spans(trace: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Say where the phases lie on an axis of readouts.

    A phase reaches over its blocks, and block i leads from readout i to readout i + 1, so the two
    phases meet at the transition.

    Args:
        trace: The content of `trace.json`.

    Returns:
        (name, colour, first readout, last readout) for Silent and Decisive, empty without a
        transition.
    """
    transition = trace["transition"]
    if not transition["found"]:
        return []
    at, last = transition["readout"], trace["blocks"]
    return [("Silent", SILENT, 0, at), ("Decisive", DECISIVE, at, last)]


def phase_strip(axes: Axes, trace: Mapping[str, Any], edge: float = 0.0) -> None:
    """Draw a named strip over the axes that shows the phases of the full model.

    Args:
        axes: Axes whose x axis holds readouts.
        trace: The content of `trace.json`.
        edge: How far the cell of a readout reaches to its left; 0.5 where readouts are cells.
    """
    spans = phase_spans(trace)
    if not spans:
        return
    meeting, last = spans[0][3] - edge, trace["blocks"] + 0.5
    above = axes.get_xaxis_transform() + ScaledTranslation(
        0, STRIP_OFFSET / 72, axes.figure.dpi_scale_trans
    )
    ends = ((-0.5, meeting, "left"), (meeting, last, "right"))
    for (name, colour, _, _), (left, right, side) in zip(spans, ends, strict=True):
        axes.plot(
            [left, right],
            [1, 1],
            transform=above,
            clip_on=False,
            color=colour,
            linewidth=STRIP_WIDTH,
            solid_capstyle="butt",
            label=f"{name} strip",
        )
        axes.annotate(
            name,
            (left if side == "left" else right, 1),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            xytext=(0, STRIP_OFFSET + STRIP_WIDTH),
            ha=side,
            va="bottom",
            fontsize=NOTE_SIZE,
            color=colour,
        )


def level_lines(axes: Axes, levels: Mapping[str, float]) -> None:
    """Draw named horizontal lines of accuracy, the names right of the axes and pushed apart.

    Args:
        axes: The axes, with their limits set.
        levels: Name and accuracy, at most two.
    """
    bottom, top = axes.get_ylim()
    close = len(levels) == 2 and abs(np.diff(list(levels.values()))[0]) < 0.15 * (top - bottom)
    ordered = sorted(levels.items(), key=lambda level: -level[1])
    for order, (name, value) in enumerate(ordered):
        axes.axhline(value, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label=name)
        align = "center" if not close else "bottom" if order == 0 else "top"
        axes.text(
            1.01,
            value,
            f"{name}\n{percent(value)} %",
            transform=axes.get_yaxis_transform(),
            va=align,
            fontsize=NOTE_SIZE,
            color=MUTED,
        )


def padded(*series: Sequence[float]) -> tuple[float, float]:
    """Find limits that leave some air around values.

    Args:
        *series: The values.

    Returns:
        The lower and upper limit.
    """
    values = np.concatenate([np.asarray(one, dtype=float) for one in series])
    low, high = float(values.min()), float(values.max())
    return low - 0.08 * (high - low), high + 0.08 * (high - low)


def accuracy_limits(
    low: Sequence[float], high: Sequence[float], chance: float
) -> tuple[float, float]:
    """Find limits for accuracies: never so narrow that noise looks large.

    Args:
        low: Lower bounds.
        high: Upper bounds.
        chance: Accuracy of guessing, which must be seen too.

    Returns:
        The lower and upper limit.
    """
    bottom, top = padded(low, high, [chance])
    missing = max(LEAST_ACCURACY_SPAN - (top - bottom), 0) / 2
    return max(bottom - missing, -0.02), min(top + missing, 1.03)
