"""Figures of a trace: by readout, by question and by group of questions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.trace import SHAPES, ends_in_words, phases_line

#: Label of curves with the label prior taken off.
DEBIASED = "debiased"


def decision_margin_figure(trace: Mapping[str, Any]) -> Figure:
    """Draw the Decision Margin by readout, with its 95 % interval, the phases and the transition.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The figure; of letters also with the label prior taken off, in which the transition is
        found. Without a transition it carries the reason instead of phases.
    """
    figure, axes = style.new_figure(3.7)
    margin, last = trace["decision_margin"], trace["blocks"]
    axes.axhline(0, color=style.MUTED, linewidth=0.9, label="zero")
    debiased = trace.get("debiased")
    _curve(axes, trace["readouts"], margin, "Decision Margin")
    others = [margin["ci_low"], margin["ci_high"], [0.0, 0.1]]
    named = {}
    if debiased:
        named |= {"Decision Margin": "as the model answers", DEBIASED: "less the label prior"}
        of = debiased["decision_margin"]
        _curve(axes, trace["readouts"], of, DEBIASED, style.DEBIASED)
        others += [of["ci_low"], of["ci_high"]]
    if trace.get("lens"):
        named["plain logit lens"] = "plain logit lens"
        others.append(trace["lens"]["decision_margin"]["mean"])
        axes.plot(
            trace["readouts"],
            others[-1],
            color=style.MUTED,
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            label="plain logit lens",
        )
    # Without a transition the reason stands on the left.
    _legend(axes, named, "upper left" if trace["transition"]["found"] else "upper right")
    low, high = style.padded(*others)
    found = trace["transition"]["found"]
    high += 0 if found else 0.3 * (high - low)
    axes.set_ylim(max(low, -1.04), min(high, 1.04 if found else 1.4))
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.set_labels(axes, "Readout (after so many blocks)", "Decision Margin")
    if found:
        style.set_title(axes, "Decision Margin by readout", pad=22)
        _shade_phases(axes, trace)
        _mark_transition(axes, trace["transition"], last)
    else:
        style.set_title(axes, "Decision Margin by readout")
        _note(axes, phases_line(trace), width=70)
    return figure


def option_frequency_figure(trace: Mapping[str, Any]) -> Figure:
    """Draw the Option Frequency by readout as stacked bars, the gold shares as a last bar apart.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The figure; every option is one group of bars, labelled with the option's label.
    """
    figure, axes = style.new_figure(3.1)
    shares = np.asarray(trace["option_frequency"], dtype=float)
    gold = np.asarray(trace["gold_frequency"], dtype=float)
    last, labels = trace["blocks"], trace["option_labels"]
    positions = [*trace["readouts"], last + 1.8]
    heights = np.vstack([shares, gold])
    floor = np.zeros(len(positions))
    edge = 0.8 if last <= 48 else 0.3
    handles = []
    for option, colour in enumerate(style.option_colours(len(labels))):
        handles.append(
            axes.bar(
                positions,
                heights[:, option],
                bottom=floor,
                width=0.92,
                color=colour,
                edgecolor="white",
                linewidth=edge,
                label=f"option {option}",
            )
        )
        floor = floor + heights[:, option]
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, last + 2.4)
    ticks = [tick for tick in style.integer_ticks(last).locs if last - tick > last / 40 - 1]
    axes.set_xticks([*ticks, last + 1.8], [*map(str, ticks), "gold"])
    style.percent_axis(axes)
    style.set_labels(axes, "Readout (after so many blocks)", "Share of questions")
    legend = axes.legend(
        handles[::-1],
        [_shortened(label) for label in labels][::-1],
        title="Option",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=style.NOTE_SIZE,
        title_fontsize=style.NOTE_SIZE,
        ncols=1 + (len(labels) - 1) // 14,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    strip = trace["transition"]["found"]
    style.set_title(axes, "Option Frequency by readout", pad=26 if strip else 8)
    style.phase_strip(axes, trace, edge=0.5)
    return figure


def accuracy_by_readout_figure(trace: Mapping[str, Any]) -> Figure:
    """Draw the accuracy by readout with its 95 % interval, and chance.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The figure.
    """
    figure, axes = style.new_figure(2.6)
    accuracy, last = trace["accuracy"], trace["blocks"]
    _curve(axes, trace["readouts"], accuracy, "accuracy")
    axes.set_xlim(-0.5, last + 0.5)
    series = [accuracy]
    if trace.get("debiased"):
        series.append(trace["debiased"]["accuracy"])
        _curve(axes, trace["readouts"], series[-1], DEBIASED, style.DEBIASED)
        _legend(axes, {"accuracy": "as the model answers", DEBIASED: "less the label prior"})
    bounds = [[bound for one in series for bound in one[end]] for end in ("ci_low", "ci_high")]
    axes.set_ylim(*style.accuracy_limits(*bounds, trace["chance"]))
    style.level_lines(axes, {"chance": trace["chance"]})
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Readout (after so many blocks)", "Accuracy")
    strip = trace["transition"]["found"]
    style.set_title(axes, "Accuracy by readout", pad=26 if strip else 8)
    style.phase_strip(axes, trace)
    return figure


def _curve(
    axes: Axes,
    readouts: Sequence[int],
    interval: Mapping[str, Sequence[float]],
    label: str,
    colour: str = style.INK,
) -> None:
    """Draw a mean over readouts with its interval as a band."""
    axes.fill_between(
        readouts,
        interval["ci_low"],
        interval["ci_high"],
        color=colour,
        alpha=0.18,
        linewidth=0,
        label="95 % interval" if colour == style.INK else f"{label}, 95 % interval",
    )
    axes.plot(
        readouts,
        interval["mean"],
        color=colour,
        linewidth=1.6,
        marker="o",
        markersize=4 if len(readouts) <= 49 else 2.5,
        label=label,
    )


def _legend(axes: Axes, named: Mapping[str, str], place: str = "upper left") -> None:
    """Name some lines, by their labels."""
    lines = {line.get_label(): line for line in axes.lines}
    if named:
        axes.legend(
            [lines[label] for label in named],
            list(named.values()),
            loc=place,
            frameon=False,
            fontsize=style.NOTE_SIZE,
        )


def _shade_phases(axes: Axes, trace: Mapping[str, Any]) -> None:
    transition, last = trace["transition"], trace["blocks"]
    levels = (transition["silent_level"], transition["decisive_level"])
    blocks = (transition["silent_blocks"], transition["decisive_blocks"])
    sides = ((-0.5, "left"), (last + 0.5, "right"))
    for (name, colour, start, stop), level, of, (x, align) in zip(
        style.phase_spans(trace), levels, blocks, sides, strict=True
    ):
        left, right = (x, stop) if align == "left" else (start, x)
        axes.axvspan(left, right, color=colour, alpha=0.1, linewidth=0, label=f"{name} Phase")
        if level is not None:
            axes.plot(
                [left, right],
                [level, level],
                color=colour,
                linewidth=1.3,
                linestyle=(0, (5, 2)),
                label=f"{name} level",
            )
        span = f"blocks {of[0]}-{of[-1]}" if len(of) > 1 else f"block {of[0]}" if of else "no block"
        axes.text(
            x,
            1.02,
            f"{name} Phase, {span}",
            transform=axes.get_xaxis_transform(),
            ha=align,
            va="bottom",
            fontsize=style.NOTE_SIZE,
            color=colour,
        )


def _mark_transition(axes: Axes, transition: Mapping[str, Any], last: int) -> None:
    at, shape = transition["readout"], transition.get("shape")
    label = f"transition at readout {at}"
    if shape in ("gradual", "several", "unclear"):
        label = f"{SHAPES[shape]}: {ends_in_words(transition['rise'], shape)}\nsplit at {at}"
    if transition["ci"]:
        low, high = transition["ci"]
        axes.axvspan(low, high, color=style.INK, alpha=0.1, linewidth=0, label="transition CI")
        label += f"\n95 % CI {low} to {high}"
    else:
        high = at
    axes.axvline(at, color=style.INK, linewidth=1.2, linestyle=(0, (2, 2)), label="transition")
    right = max(high, at) <= 0.66 * last
    x, y = (max(high, at), 0.04) if right else (min(at, (transition["ci"] or [at])[0]), 0.96)
    axes.annotate(
        label,
        (x, y),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        xytext=(6 if right else -6, 0),
        ha="left" if right else "right",
        va="bottom" if right else "top",
        fontsize=style.NOTE_SIZE,
        color=style.INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def _note(axes: Axes, text: str, width: int) -> None:
    axes.text(
        0.02,
        0.96,
        textwrap.fill(text, width),
        transform=axes.transAxes,
        va="top",
        fontsize=style.NOTE_SIZE,
        color=style.INK,
        parse_math=False,
        bbox={"facecolor": "white", "edgecolor": style.RULE, "alpha": 0.9, "pad": 4},
    )


def _shortened(label: str, most: int = 18) -> str:
    text = " ".join(str(label).split()) or "(empty)"
    return text if len(text) <= most else text[: most - 1] + "…"


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
        trace["readouts"],
        [count / total for count in depth["counts"]],
        width=0.86,
        color=style.INK,
        label="decision depth",
    )
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
            loc="upper left",
            frameon=False,
            fontsize=style.NOTE_SIZE,
        )
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
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        margins,
        cmap=colormaps["PRGn"],
        vmin=-limit,
        vmax=limit,
        rasterized=margins.size > 3000,
        edgecolor="white" if columns <= 48 else "none",
        linewidth=0.5,
        label="Decision Margin",
    )
    found = [
        (group["transition"]["readout"], row)
        for row, group in enumerate(groups.values())
        if group["transition"]["found"]
    ]
    axes.plot(
        [at - 0.5 for at, _ in found],
        [row for _, row in found],
        linestyle="none",
        marker="|",
        markersize=9,
        markeredgewidth=2,
        color=style.INK,
        label="transition",
    )
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(columns - 1))
    names = [f"{_shortened(name, 24)} ({group['questions']})" for name, group in groups.items()]
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
