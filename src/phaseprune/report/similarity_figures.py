"""Figures of the similarity of a full and of pruned models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phaseprune.report import style

STATES, DECISIONS = "#1f7a6d", "#8e4585"


def similarity_figure(found: Mapping[str, Any]) -> Figure:
    """Draw similarity at the outputs by removed blocks, or of a single model by readout.

    Args:
        found: The content of `similarity.json`.

    Returns:
        The figure, with 95 % intervals as bands.
    """
    return _by_step(found) if found["run"] else _by_readout(found["models"][0])


def _by_step(found: Mapping[str, Any]) -> Figure:
    figure, axes = style.new_figure(3.8)
    models = found["models"]
    steps = list(range(1, len(models) + 1))
    for name, label, colour, marker in (
        ("cka_output", "CKA of hidden states, outputs", STATES, "o"),
        ("js_beyond_chance", "JS similarity of decisions beyond chance, outputs", DECISIONS, "s"),
    ):
        _band(axes, steps, _series(models, name), label, colour, marker)
    axes.plot(
        steps,
        _floats([model["cka_mean"]["mean"] for model in models]),
        color=STATES,
        linewidth=1.1,
        linestyle=(0, (4, 2)),
        label="mean CKA behind the same blocks",
    )
    axes.plot(
        steps,
        _floats([model["retained"] for model in models]),
        color=style.INK,
        linewidth=1.1,
        linestyle=(0, (1, 1.5)),
        label="accuracy retained",
    )
    collapsed = [step for step, model in zip(steps, models, strict=True) if model["collapsed"]]
    if collapsed:
        axes.axvspan(
            collapsed[0] - 0.5,
            steps[-1] + 0.5,
            color=style.INK,
            alpha=0.06,
            linewidth=0,
            label="collapsed",
            zorder=0,
        )
    axes.set_xlim(0.5, steps[-1] + 0.5)
    _finish(axes, steps[-1], "Removed blocks")
    style.set_title(axes, "Hidden states and decisions of the pruned models")
    return figure


def _by_readout(model: Mapping[str, Any]) -> Figure:
    figure, axes = style.new_figure(3.8)
    readouts = model["readouts"]
    for name, label, colour, marker in (
        ("cka_diagonal", "CKA of hidden states", STATES, "o"),
        ("js_diagonal", "JS similarity of decisions", DECISIONS, "s"),
        ("cosine_diagonal", "cosine of decisions", style.MUTED, "^"),
    ):
        parts = [_floats(model[name][part]) for part in ("mean", "ci_low", "ci_high")]
        _band(axes, readouts, parts, label, colour, marker)
    for block in model["removed"]:
        axes.axvspan(
            block,
            block + 1,
            color=style.REMOVED,
            alpha=0.6,
            linewidth=0,
            zorder=0,
            label="removed blocks" if block == model["removed"][0] else "_",
        )
    blocks = len(model["cka"]) - 1
    axes.set_xlim(-0.5, blocks + 0.5)
    _finish(axes, blocks, "Readout (after so many blocks)")
    style.set_title(axes, "The full and the pruned model behind the same blocks")
    return figure


def similarity_matrices_figure(model: Mapping[str, Any]) -> Figure:
    """Draw CKA and JS similarity of every readout of the full with every one of a pruned model.

    Args:
        model: One of the `models` of `similarity.json`.

    Returns:
        The figure: two maps on one scale, rows the full model's readouts.
    """
    figure = Figure(figsize=(style.WIDTH, 4.1), layout="constrained", facecolor="white")
    pair = figure.subplots(1, 2, sharey=True)
    names = (("cka", "CKA of hidden states"), ("js", "JS similarity of decisions"))
    readouts = model["readouts"]
    every = 1 + (len(readouts) - 1) // 16
    for axes, (name, title) in zip(pair, names, strict=True):
        values = np.array(model[name], dtype=float)
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(values),
            cmap=colormaps["viridis"].with_extremes(bad=style.REMOVED),
            vmin=0,
            vmax=1,
            rasterized=values.size > 3000,
            label=title,
        )
        axes.plot(
            np.arange(len(readouts)) + 0.5,
            np.array(readouts) + 0.5,
            linestyle="none",
            marker=".",
            markersize=3,
            color="white",
            label="same block",
        )
        axes.set_xticks(np.arange(len(readouts))[::every] + 0.5, readouts[::every])
        rows = style.integer_ticks(len(values) - 1).locs
        axes.set_yticks([row + 0.5 for row in rows], rows)
        axes.tick_params(labelsize=style.TICK_SIZE - 1, colors=style.MUTED, labelcolor=style.INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        style.set_labels(axes, "Pruned model's readout", "Full model's readout")
        style.set_title(axes, title)
    pair[1].set_ylabel("")
    bar = figure.colorbar(mesh, ax=list(pair), pad=0.015, aspect=24, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=style.TICK_SIZE, colors=style.MUTED, labelcolor=style.INK)
    return figure


def _series(models: Sequence[Mapping[str, Any]], name: str) -> list[np.ndarray]:
    return [
        _floats([model[name][part] for model in models]) for part in ("mean", "ci_low", "ci_high")
    ]


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """Numbers with NaN for None, which leaves a gap in a line."""
    return np.array(values, dtype=float)


def _band(
    axes: Axes,
    x: Sequence[int],
    parts: Sequence[np.ndarray],
    label: str,
    colour: str,
    marker: str,
) -> None:
    mean, low, high = parts
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, label="_interval")
    axes.plot(x, mean, color=colour, linewidth=1.6, marker=marker, markersize=4, label=label)


def _finish(axes: Axes, last: int, x_label: str) -> None:
    low = min((float(np.nanmin(line.get_ydata())) for line in axes.lines), default=0.0)
    axes.set_ylim(min(-0.05, low - 0.05) if np.isfinite(low) else -0.05, 1.06)
    axes.axhline(0, color=style.MUTED, linewidth=0.9, label="_zero")
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.set_labels(axes, x_label, "Similarity")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=2,
        frameon=False,
        fontsize=style.NOTE_SIZE,
    )
