"""Figures of a pruning run: what falls by removed blocks, on one task and on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from phaseprune.decoder.items import short_item, whole_blocks
from phaseprune.report import style
from phaseprune.report.collapse import FALL_MARKS, fall_range, fall_steps, fitted_fall
from phaseprune.report.words import nouns_of, percent

MARKER_NUMBERS_UP_TO = 34
#: State of a model without a found transition -> marker and label; None in older versions' runs.
NO_TRANSITION = {
    "gone": ("x", "gone"),
    "unclear": ("$?$", "cannot be told"),
    None: ("x", "none found"),
}
#: Name of a line -> its colour and dashes.
LINES = {
    "accuracy on questions": (style.INK, "-"),
    "tokens equal to the full model's": (style.SILENT, (0, (4, 2))),
    "repeated 4-grams": (style.DECISIVE, (0, (1, 1.5))),
}
#: Of the lines of tasks.
_MARKERS = "osD^vPX*"
_COLOURS = ("#2c8a5a", "#8a4fa3", "#b0392e", "#1f8a9c", "#8b6b1f", "#4b5cc4")
_DASHES = ("solid", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))


def pruning_figure(
    steps: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    chance: float | None = None,
) -> Figure:
    """Draw evaluation accuracy against the number of removed blocks.

    Args:
        steps: The lines of `steps.jsonl`, the first of the full model.
        result: The result of a finished run, or None while it is running: then neither a fall nor
            a chosen step is marked.
        chance: Accuracy of guessing, for its line; `trace.json` holds it. Without it, it follows
            from what the steps say is retained.

    Returns:
        The figure. Each removed block's index stands at its point; the colour and the shape of the
        point tell its phase. Of letters there is a second line, with the label prior taken off. The
        fitted fall is dark (between the steps of a cliff, over those of a slope), its interval
        pale.
    """
    figure, axes = style.new_figure(4.0)
    chance = _implied_chance(steps) if chance is None else chance
    numbers = [step["step"] for step in steps]
    accuracy = [step["evaluation"]["accuracy"] for step in steps]
    low, high = _bounds([step["evaluation"] for step in steps])
    axes.fill_between(
        numbers, low, high, color=style.INK, alpha=0.12, linewidth=0, label="95 % interval"
    )
    axes.plot(numbers, accuracy, color=style.MUTED, linewidth=1.2, label="evaluation accuracy")
    debiased = [step["evaluation"].get("debiased") for step in steps]
    if all(debiased):
        axes.plot(
            numbers,
            [one["accuracy"] for one in debiased],
            color=style.DEBIASED,
            linewidth=1.4,
            linestyle=(0, (4, 1.5)),
            label="less the label prior",
        )
        bounds = _bounds(debiased)
        axes.fill_between(
            numbers,
            *bounds,
            color=style.DEBIASED,
            alpha=0.12,
            linewidth=0,
            label="debiased, 95 % interval",
        )
        low, high = low + bounds[0], high + bounds[1]
    last = max(numbers[-1], 1)
    axes.set_xlim(-0.6, last + 0.6)
    axes.set_ylim(*style.accuracy_limits(low, high, accuracy[0] if chance is None else chance))
    _removed_markers(axes, steps)
    levels = {"full model": accuracy[0]} | ({} if chance is None else {"chance": chance})
    style.level_lines(axes, levels)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    nouns = nouns_of(steps, result)
    style.set_labels(axes, f"Removed {nouns}", "Evaluation accuracy")
    style.set_title(axes, f"Accuracy by number of removed {nouns}", pad=36 if result else 8)
    if result:
        _mark_result(axes, steps, result, last)
    if len(steps) > 1:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=3,
            frameon=False,
            fontsize=style.NOTE_SIZE,
            handletextpad=0.3,
            markerscale=0.6 if len(steps) <= MARKER_NUMBERS_UP_TO else 1,
            handles=[
                line
                for line in axes.lines
                if line.get_label().startswith(("removed: ", "less the label prior"))
            ],
        )
    return figure


def _bounds(figures: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Lower and upper bounds of accuracies; the accuracy itself where there are none."""
    bounds = [one.get("ci") or [one["accuracy"]] * 2 for one in figures]
    return [low for low, _ in bounds], [high for _, high in bounds]


def margin_heatmap_figure(
    steps: Sequence[Mapping[str, Any]], trace: Mapping[str, Any] | None
) -> Figure:
    """Draw the Decision Margin by readout for the model of every pruning step.

    Args:
        steps: The lines of `steps.jsonl`, the first of the full model.
        trace: The content of `trace.json`, for the phases of the full model; None without it.

    Returns:
        The figure: a row a step, a column a readout, a diverging colour centred at 0. The cell
        after a removed block is grey and struck through, as it only repeats the one before it.
    """
    margins = np.asarray([step["decision_margin_by_readout"] for step in steps], dtype=float)
    rows, columns = margins.shape
    gone = np.zeros(margins.shape, dtype=bool)
    removed: list = []
    for row, step in enumerate(steps):
        removed += [] if step["removed"] is None else [step["removed"]]
        gone[row, [block + 1 for block in whole_blocks(removed)]] = True
    figure, axes = style.new_figure(float(np.clip(1.5 + 0.21 * rows, 2.6, 8.5)))
    limit = max(float(np.abs(margins).max()), 0.1)
    mesh = axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_array(margins, gone),
        cmap=colormaps["PRGn"].with_extremes(bad=style.REMOVED),
        vmin=-limit,
        vmax=limit,
        edgecolor="white" if columns <= 48 else "none",
        linewidth=0.5,
        rasterized=margins.size > 3000,
        label="Decision Margin",
    )
    strokes = [[(x - 0.3, y + 0.3), (x + 0.3, y - 0.3)] for y, x in np.argwhere(gone)]
    axes.add_collection(
        LineCollection(strokes, colors=style.MUTED, linewidths=0.7, label="removed blocks"),
        autolim=False,
    )
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.xaxis.set_major_locator(style.integer_ticks(columns - 1))
    _step_ticks(axes, steps)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=24, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=style.TICK_SIZE, colors=style.MUTED, labelcolor=style.INK)
    bar.set_label("Decision Margin", fontsize=style.LABEL_SIZE, color=style.INK)
    found = trace is not None and trace["transition"]["found"]
    letters = " (S Silent, D Decisive)" if found else ""
    what = "Removed block" if nouns_of(steps, None) == "blocks" else "Removed half"
    style.set_labels(axes, "Readout (after so many blocks)", what + letters)
    style.set_title(axes, "Decision Margin by readout at every step", pad=26 if found else 8)
    if found:
        style.phase_strip(axes, trace, edge=0.5)
        axes.axvline(
            trace["transition"]["readout"] - 0.5,
            color=style.INK,
            linewidth=1.3,
            linestyle=(0, (4, 2)),
            label="transition",
        )
    return figure


def _removed_markers(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    numbered = len(steps) <= MARKER_NUMBERS_UP_TO
    scale = 1 if len(steps) <= 25 else 0.84
    axes.plot(
        [steps[0]["step"]],
        [steps[0]["evaluation"]["accuracy"]],
        linestyle="none",
        marker="o",
        markersize=7 if numbered else 5,
        color=style.INK,
        label="full model point",
    )
    names = {"silent": "Silent block", "decisive": "Decisive block", None: "block of no phase"}
    for phase, name in names.items():
        points = [
            (step["step"], step["evaluation"]["accuracy"])
            for step in steps
            if step["removed"] is not None and step["phase"] == phase
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                label=f"removed: {name}",
                marker=style.PHASE_MARKERS[phase],
                color=style.PHASE_COLOURS[phase],
                markersize=scale * (12 if phase is None else 13.5) if numbered else 4.5,
            )
    bottom, top = axes.get_ylim()
    for order, step in enumerate(steps[1:], start=1):
        accuracy = step["evaluation"]["accuracy"]
        fall = steps[order - 1]["evaluation"]["accuracy"] - accuracy
        placed = {"xytext": (0, 0), "ha": "center", "va": "center_baseline"}
        if not numbered and fall > 0.06 * (top - bottom):
            placed = {"xytext": (4, 1), "ha": "left", "va": "bottom"}
        elif not numbered:
            up = order % 2 == 0
            placed = {
                "xytext": (0, 6 if up else -6),
                "ha": "center",
                "va": "bottom" if up else "top",
            }
        axes.annotate(
            short_item(step["removed"]),
            (step["step"], accuracy),
            textcoords="offset points",
            fontsize=7.5 * scale if numbered else 6.5,
            color="white" if numbered else style.PHASE_COLOURS[step["phase"]],
            **placed,
        )


def _mark_result(
    axes: Axes, steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any], last: int
) -> None:
    chosen, fall = result["chosen_step"], fitted_fall(result)
    axes.axvline(
        chosen,
        color=style.INK,
        linewidth=1.1,
        linestyle=(0, (2, 2)),
        label="chosen step",
        zorder=1.5,
    )
    notes = [(chosen, 1.09, f"chosen: {chosen} removed, {percent(result['pruned']['accuracy'])} %")]
    if fall and fall["found"]:
        name, at = FALL_MARKS[fall.get("kind")], fall_steps(fall)
        spans = [(step - 1, step) for step in at] if name == "cliff" else [(at[0] - 1, at[-1])]
        low, high = fall_range(fall)
        for span, label, alpha in (
            ((low - 1, high), f"{name}, 95 % interval", 0.05),
            *((span, name, 0.09) for span in spans),
        ):
            axes.axvspan(*span, color=style.INK, alpha=alpha, linewidth=0, label=label, zorder=0)
        notes.append(((at[0] + at[-1] - 1) / 2, 1.02, _fall_note(name, fall, at)))
    for x, y, text in notes:
        axes.text(
            x,
            y,
            text,
            transform=axes.get_xaxis_transform(),
            va="bottom",
            color=style.INK,
            ha="left" if x < 0.3 * last else "right" if x > 0.7 * last else "center",
            fontsize=style.NOTE_SIZE,
        )


def _fall_note(name: str, fall: Mapping[str, Any], at: Sequence[int]) -> str:
    """Name a fall, with its steps and its levels."""
    steps = f"step {at[0]}" if len(at) == 1 else f"steps {at[0]} to {at[-1]}"
    if fall.get("kind") == "several cliffs":
        name, steps = "cliffs", f"steps {at[0]} and {at[-1]}"
    if fall.get("kind") == "unclear":
        name = "a cliff or a slope"
    return (
        f"{name}: {steps}, from {percent(fall['before'], 0)} to {percent(fall['after'], 0)} % "
        "retained"
    )


def _step_ticks(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    every = 1 + (len(steps) - 1) // 40
    rows = list(range(0, len(steps), every))
    letters = {"silent": " S", "decisive": " D", None: ""}
    labels = [
        "full"
        if steps[row]["removed"] is None
        else f"{short_item(steps[row]['removed'])}{letters[steps[row]['phase']]}"
        for row in rows
    ]
    axes.set_yticks(rows, labels)
    axes.tick_params(axis="y", length=0)
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        step = steps[row]
        label.set_color(
            style.INK if step["removed"] is None else style.PHASE_COLOURS[step["phase"]]
        )


def _implied_chance(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Solve retained = (accuracy - chance) / (full - chance) for chance."""
    full = steps[0]["evaluation"]["accuracy"]
    told = [
        (step["retained"], step["evaluation"]["accuracy"])
        for step in steps
        if step["retained"] is not None and abs(1 - step["retained"]) > 1e-6
    ]
    if not told:
        return None
    retained, accuracy = min(told)
    return (accuracy - retained * full) / (1 - retained)


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
            low - 1,
            high,
            color=style.INK,
            alpha=0.09,
            linewidth=0,
            label=f"{FALL_MARKS[fall.get('kind')]}, 95 % interval",
        )
    if result["collapsed_at_step"] is not None:
        axes.axvline(
            result["collapsed_at_step"],
            color=style.DECISIVE,
            linewidth=1.2,
            linestyle=(0, (2, 2)),
            label="collapsed",
        )
    steps = [one["step"] for one in found]
    axes.vlines(
        steps,
        [one["ci"][0] for one in found],
        [one["ci"][1] for one in found],
        color=style.INK,
        linewidth=1.6,
        label="transition, 95 % interval",
    )
    axes.plot(
        steps,
        [one["readout"] for one in found],
        color=style.INK,
        linewidth=0.8,
        marker="o",
        markersize=5,
        label="transition",
    )
    for state, (marker, label) in NO_TRANSITION.items():
        at = [one["step"] for one in without if one.get("state") == state]
        if at:
            axes.plot(
                at,
                [0] * len(at),
                linestyle="none",
                marker=marker,
                color=style.UNPHASED,
                markersize=6,
                label=label,
            )
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.yaxis.set_major_locator(style.integer_ticks(blocks))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    removed = f"Removed {nouns_of([], result)}"
    style.set_labels(axes, removed, "Readout of the transition")
    style.set_title(axes, "Transition of the pruned models")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=5,
        frameon=False,
        fontsize=style.NOTE_SIZE,
        columnspacing=1.2,
        handletextpad=0.4,
    )
    return figure


def guards_figure(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw text loss, agreement and repetition beside accuracy, by the number of removed blocks.

    Args:
        steps: The lines of `steps.jsonl`; those without guards are left out.

    Returns:
        The figure: on the left the loss on plain text with the full model's as a level, on the
        right shares; bands are 95 % intervals.
    """
    steps = [step for step in steps if step.get("guard")]
    figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    numbers = [step["step"] for step in steps]
    guards = [step["guard"] for step in steps]
    for axes in (left, right):
        style.plain_axes(axes)
        last = max(numbers[-1], 1)
        axes.set_xlim(-0.3, last + 0.3)
        axes.xaxis.set_major_locator(style.integer_ticks(2 * last if last > 12 else last))
        axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    losses = [guard["text_loss"] for guard in guards]
    _line(
        left,
        numbers,
        losses,
        [guard["text_loss_ci"] for guard in guards],
        "text loss",
        style.INK,
        "-",
    )
    left.axhline(
        losses[0], color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)), label="full model"
    )
    left.annotate(
        "full model",
        (0.98, losses[0]),
        xycoords=left.get_yaxis_transform(),
        xytext=(0, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=style.NOTE_SIZE,
        color=style.MUTED,
    )
    style.set_labels(left, "Removed blocks", "Loss, nats a token")
    style.set_title(left, "Loss on plain text")
    evaluations = [step["evaluation"] for step in steps]
    shares = (
        [(one["accuracy"], one.get("ci")) for one in evaluations],
        [(guard["agreement"], guard["agreement_ci"]) for guard in guards],
        [(guard["repetition"], guard["repetition_ci"]) for guard in guards],
    )
    for (name, (colour, dashes)), line in zip(LINES.items(), shares, strict=True):
        values, bounds = zip(*line, strict=True)
        _line(right, numbers, values, bounds, name, colour, dashes)
    right.set_ylim(-0.02, 1.03)
    style.percent_axis(right)
    style.set_labels(right, "Removed blocks", "")
    style.set_title(right, "Questions and continuations")
    right.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=1,
        frameon=False,
        fontsize=style.NOTE_SIZE,
        handles=[line for line in right.lines if line.get_label() in LINES],
    )
    return figure


def _line(
    axes: Axes,
    numbers: Sequence[int],
    values: Sequence[float],
    bounds: Sequence[Sequence[float] | None],
    name: str,
    colour: str,
    dashes: Any,
) -> None:
    both = [pair or (value, value) for value, pair in zip(values, bounds, strict=True)]
    low, high = zip(*both, strict=True)
    axes.fill_between(numbers, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(
        numbers,
        values,
        color=colour,
        linestyle=dashes,
        linewidth=1.4,
        marker=".",
        markersize=5,
        label=name,
    )


def tasks_figure(
    steps: Sequence[Mapping[str, Any]],
    traces: Mapping[str, Mapping[str, Any]],
    result: Mapping[str, Any] | None,
) -> Figure:
    """Draw retained by task against removed blocks, and below each task's phases with the order.

    Args:
        steps: The lines of `steps.jsonl` of the whole run.
        traces: Folder -> the content of its `trace.json`.
        result: The result of the manifest, or None while the run is not finished.

    Returns:
        The figure: a line a task and, in ink with its interval, all together; where a task's full
        model is not above chance its accuracy stands in its line's place. In the strips below, the
        number in a cell is the place at which the block was removed.
    """
    height = 3.5 + 0.9 + 0.33 * len(traces)
    figure = Figure(figsize=(style.WIDTH, height), layout="constrained", facecolor="white")
    top, below = figure.subplots(2, 1, height_ratios=[3.5, 0.6 + 0.33 * len(traces)])
    style.plain_axes(top)
    style.plain_axes(below)
    _draw_retained(top, steps, list(traces), result)
    _draw_phases(below, steps, traces)
    return figure


def _draw_retained(
    axes: Axes,
    steps: Sequence[Mapping[str, Any]],
    folders: Sequence[str],
    result: Mapping[str, Any] | None,
) -> None:
    numbers = [step["step"] for step in steps]
    last = max(numbers[-1], 1)
    for place, folder in enumerate(folders):
        own = [step["tasks"][folder] for step in steps]
        defined = own[0]["retained"] is not None
        axes.plot(
            numbers,
            [one["retained" if defined else "accuracy"] for one in own],
            label=folder if defined else f"{folder} (accuracy)",
            linewidth=1.3,
            markersize=4.5,
            color=to_hex(_COLOURS[place % len(_COLOURS)]),
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle=_DASHES[place // len(_COLOURS) % len(_DASHES)],
        )
    if steps[0]["retained"] is not None:
        values = [step["retained"] for step in steps]
        bounds = [
            step["retained_ci"] or [value] * 2 for step, value in zip(steps, values, strict=True)
        ]
        low, high = zip(*bounds, strict=True)
        axes.fill_between(
            numbers, low, high, color=style.INK, alpha=0.1, linewidth=0, label="95 % interval"
        )
        axes.plot(
            numbers,
            values,
            color=style.INK,
            linewidth=2.2,
            zorder=3,
            label=f"all tasks, {result['combine']}" if result else "all tasks",
        )
    for level in (0, 1):
        axes.axhline(level, color=style.RULE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    if result:
        axes.axvline(
            result["chosen_step"],
            color=style.INK,
            linewidth=1.1,
            linestyle=(0, (2, 2)),
            label="chosen step",
            zorder=1.5,
        )
    axes.set_xlim(-0.3, last + 0.3)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Removed blocks", "Retained")
    style.set_title(axes, "Retained accuracy by task")
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=style.NOTE_SIZE,
        handlelength=2.8,
        labelspacing=0.4,
    )


def _draw_phases(
    axes: Axes, steps: Sequence[Mapping[str, Any]], traces: Mapping[str, Mapping[str, Any]]
) -> None:
    places = {step["removed"]: step["step"] for step in steps if step["removed"] is not None}
    blocks = max(trace["blocks"] for trace in traces.values())
    for row, trace in enumerate(traces.values()):
        decisive = trace["transition"]["decisive_blocks"]
        for block in range(blocks):
            phase = "decisive" if block in decisive else "silent"
            phase = phase if trace["transition"]["found"] else None
            gone = block in places
            axes.add_patch(
                Rectangle(
                    (block - 0.45, row - 0.4),
                    0.9,
                    0.8,
                    linewidth=0,
                    color=style.PHASE_COLOURS[phase],
                    alpha=0.3 if gone else 0.85,
                )
            )
            if gone:
                axes.text(
                    block,
                    row,
                    str(places[block]),
                    ha="center",
                    va="center_baseline",
                    fontsize=7 if blocks <= 40 else 5,
                    color=style.INK,
                )
    axes.set_xlim(-0.6, blocks - 0.4)
    axes.set_ylim(len(traces) - 0.5, -0.5)
    axes.set_yticks(range(len(traces)), [_short_name(name) for name in traces])
    axes.xaxis.set_major_locator(style.integer_ticks(blocks - 1))
    axes.tick_params(axis="y", length=0)
    style.set_labels(axes, "Block (pale: removed, the number says when)", "")
    style.set_title(axes, "Phases by task, and the order of removal")
    names = {"silent": "Silent", "decisive": "Decisive", None: "no phases"}
    found = {trace["transition"]["found"] for trace in traces.values()}
    shown = [
        *(("silent", "decisive") if True in found else ()),
        *((None,) if False in found else ()),
    ]
    axes.legend(
        handles=[Patch(color=style.PHASE_COLOURS[one], label=names[one]) for one in shown],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=style.NOTE_SIZE,
    )


def _short_name(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
