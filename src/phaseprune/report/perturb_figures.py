"""Figures of a perturbation: the margin by the readout of the noise, and where it halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.ablate import HEADINGS

_RAMP = LinearSegmentedColormap.from_list(
    "phaseprune_noise", ["#1f2933", "#3b5f7d", "#5b97a6", "#9dbf8a", "#e0b04a", "#c2560c"]
)


def perturbation_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the Decision Margin at the output by the readout of the noise, a line a level.

    Args:
        result: The content of `perturbation.json`.

    Returns:
        The figure; bands are 95 % intervals over questions.
    """
    figure, axes = style.new_figure(3.9)
    margin, readouts, noise = result["decision_margin"], result["readouts"], result["noise"]
    mean, low, high = (np.array(margin[part]).T for part in ("mean", "ci_low", "ci_high"))
    axes.axhline(0, color=style.MUTED, linewidth=0.9, label="zero")
    for level, variance in enumerate(noise):
        colour = _RAMP(level / max(len(noise) - 1, 1))
        axes.fill_between(readouts, low[level], high[level], color=colour, alpha=0.12, linewidth=0)
        axes.plot(
            readouts,
            mean[level],
            color=colour,
            linewidth=1.5,
            marker="o" if level else None,
            markersize=3 if len(readouts) <= 49 else 2,
            linestyle="-" if level else (0, (4, 2)),
            label=f"{variance:g}" if level else "none",
        )
    axes.axhline(
        mean[0, 0] / 2, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="½ of none"
    )
    bottom, top = style.padded(low.ravel(), high.ravel(), [0.0, 0.1])
    axes.set_ylim(max(bottom, -1.04), min(top, 1.04))
    _readout_axis(axes, result)
    lines = [line for line in axes.lines if line.get_label() != "zero"]
    axes.legend(
        handles=[line for line in lines if not line.get_label().endswith("strip")],
        title="noise σ²",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=style.NOTE_SIZE,
        title_fontsize=style.NOTE_SIZE,
    )
    style.set_labels(axes, "Readout at which the noise is put in", "Decision Margin at the output")
    style.set_title(axes, "Decision Margin with noise", pad=_pad(result))
    return figure


def halving_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the noise that halves the Decision Margin by readout, and what the paper says.

    Args:
        result: The content of `perturbation.json`.

    Returns:
        The figure, with a logarithmic axis of noise. A triangle at the top is a readout at which
        no level halves the margin; a bar without an end goes beyond the largest level.
    """
    figure, axes = style.new_figure(3.3)
    noise, transition = result["noise"], result["transition"]
    least, most = noise[1], noise[-1]
    top = most * 1.6
    for entry in result["halving"]:
        at, value = entry["readout"], entry["value"]
        low, high = entry["ci_low"], entry["ci_high"]
        if value is None and not (entry["reason"] or "").startswith("no level"):
            continue
        phase = None
        if transition["found"]:
            phase = "silent" if at < transition["readout"] else "decisive"
        colour = style.PHASE_COLOURS[phase]
        if low is not None:
            ends = [max(low, least / 4), top if high is None else max(high, least / 4)]
            axes.plot([at, at], ends, color=colour, linewidth=1.4, label=f"interval {at}")
        axes.plot(
            [at],
            [top if value is None else max(value, least / 4)],
            color=colour,
            marker="^" if value is None else style.PHASE_MARKERS[phase],
            markersize=5,
            linestyle="",
            label=f"readout {at}",
        )
    axes.set_yscale("log")
    axes.set_ylim(least / 4, most * 2)
    ticks = [level for level in noise if level > 0]
    axes.set_yticks([*ticks, top], [*(f"{level:g}" for level in ticks), f">{most:g}"])
    axes.minorticks_off()
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    for name in ("silent", "decisive"):
        claim = result["paper"][name]
        if least / 4 <= claim["noise"] <= most * 2:
            axes.axhline(
                claim["noise"],
                color=style.PHASE_COLOURS[name],
                linewidth=0.9,
                linestyle=(0, (1, 2)),
                label=f"paper, {name}",
            )
            words = f"paper: {name.title()}\n{claim['finding']} {claim['noise']:g}"
            axes.text(
                1.01,
                claim["noise"],
                words,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=style.NOTE_SIZE,
                color=style.PHASE_COLOURS[name],
            )
    _readout_axis(axes, result)
    style.set_labels(axes, "Readout at which the noise is put in", "Noise σ²")
    style.set_title(axes, "Noise at which the Decision Margin halves", pad=_pad(result))
    return figure


def _readout_axis(axes: Axes, result: Mapping[str, Any]) -> None:
    last = result["readouts"][-1]
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    style.phase_strip(axes, result, edge=0.5)


def _pad(result: Mapping[str, Any]) -> float:
    return 26 if result["transition"]["found"] else 8


def ablation_figure(result: Mapping[str, Any]) -> Figure:
    """Draw the Decision Margin of each block's ablation and of its removal.

    Args:
        result: The content of `ablation.json`.

    Returns:
        The figure; bars are 95 % intervals over questions.
    """
    figure, axes = style.new_figure(3.5)
    axes.axhline(0, color=style.MUTED, linewidth=0.9, label="zero")
    blocks = np.array(result["blocks"])
    shapes = (
        ("removal_margin", "removed", style.MUTED, "x", -0.13),
        ("decision_margin", HEADINGS[result["kind"]], style.INK, "o", 0.13),
    )
    for name, label, colour, marker, shift in shapes:
        mean, low, high = (np.array(result[name][part]) for part in ("mean", "ci_low", "ci_high"))
        axes.errorbar(
            blocks + shift,
            mean,
            yerr=np.maximum([mean - low, high - mean], 0),
            color=colour,
            marker=marker,
            markersize=5 if len(blocks) <= 48 else 3,
            linestyle="",
            linewidth=1.2,
            label=label,
        )
    full = result["full"]["decision_margin"]["mean"]
    axes.axhline(full, color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="whole")
    axes.text(
        1.01,
        full,
        f"whole model\n{full:+.2f}",
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=style.NOTE_SIZE,
        color=style.MUTED,
    )
    bounds = [result[name][part] for name, *_ in shapes for part in ("ci_low", "ci_high")]
    bottom, top = style.padded(*bounds, [0.0, 0.1, full])
    axes.set_ylim(max(bottom, -1.04), min(top, 1.08))
    last = int(blocks[-1])
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    transition = result["transition"]
    style.phase_strip(axes, {"transition": transition, "blocks": last}, edge=0.5)
    axes.legend(
        handles=axes.containers,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=2,
        frameon=False,
        fontsize=style.NOTE_SIZE,
    )
    swapped = result["kind"] == "swap"
    style.set_labels(
        axes, "Block (swapped with the next one)" if swapped else "Block", "Decision Margin"
    )
    style.set_title(axes, "Decision Margin by ablated block", pad=26 if transition["found"] else 8)
    return figure
