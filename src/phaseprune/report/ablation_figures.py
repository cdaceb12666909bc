"""The figure of an ablation: the margin by block, beside that without the block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from phaseprune.report import style
from phaseprune.report.ablate import HEADINGS


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
    shapes = (("removal_margin", "removed", style.MUTED, "x", -0.13),
              ("decision_margin", HEADINGS[result["kind"]], style.INK, "o", 0.13))  # fmt: skip
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
        1.01, full, f"whole model\n{full:+.2f}", transform=axes.get_yaxis_transform(), va="center",
        fontsize=style.NOTE_SIZE, color=style.MUTED,
    )  # fmt: skip
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
        handles=axes.containers, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2,
        frameon=False, fontsize=style.NOTE_SIZE,
    )  # fmt: skip
    swapped = result["kind"] == "swap"
    style.set_labels(
        axes, "Block (swapped with the next one)" if swapped else "Block", "Decision Margin"
    )
    style.set_title(axes, "Decision Margin by ablated block", pad=26 if transition["found"] else 8)
    return figure
