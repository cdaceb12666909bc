"""Figure of a pruning run with several tasks: what each retains, and each one's phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from phaseprune.report import style

_MARKERS = "osD^vPX*"
_COLOURS = ("#2c8a5a", "#8a4fa3", "#b0392e", "#1f8a9c", "#8b6b1f", "#4b5cc4")
_DASHES = ("solid", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))


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
    axes: Axes, steps: Sequence[Mapping[str, Any]], folders: Sequence[str],
    result: Mapping[str, Any] | None,
) -> None:  # fmt: skip
    numbers = [step["step"] for step in steps]
    last = max(numbers[-1], 1)
    for place, folder in enumerate(folders):
        own = [step["tasks"][folder] for step in steps]
        defined = own[0]["retained"] is not None
        axes.plot(
            numbers, [one["retained" if defined else "accuracy"] for one in own],
            label=folder if defined else f"{folder} (accuracy)", linewidth=1.3, markersize=4.5,
            color=to_hex(_COLOURS[place % len(_COLOURS)]),
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle=_DASHES[place // len(_COLOURS) % len(_DASHES)],
        )  # fmt: skip
    if steps[0]["retained"] is not None:
        values = [step["retained"] for step in steps]
        bounds = [step["retained_ci"] or [value] * 2 for step, value in zip(steps, values,
                                                                         strict=True)]
        low, high = zip(*bounds, strict=True)
        axes.fill_between(numbers, low, high, color=style.INK, alpha=0.1, linewidth=0,
                          label="95 % interval")  # fmt: skip
        axes.plot(
            numbers, values, color=style.INK, linewidth=2.2, zorder=3,
            label=f"all tasks, {result['combine']}" if result else "all tasks",
        )  # fmt: skip
    for level in (0, 1):
        axes.axhline(level, color=style.RULE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    if result:
        axes.axvline(result["chosen_step"], color=style.INK, linewidth=1.1,
                     linestyle=(0, (2, 2)), label="chosen step", zorder=1.5)  # fmt: skip
    axes.set_xlim(-0.3, last + 0.3)
    axes.xaxis.set_major_locator(style.integer_ticks(last))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(axes, "Removed blocks", "Retained")
    style.set_title(axes, "Retained accuracy by task")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
                fontsize=style.NOTE_SIZE, handlelength=2.8, labelspacing=0.4)  # fmt: skip


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
                    (block - 0.45, row - 0.4), 0.9, 0.8, linewidth=0,
                    color=style.PHASE_COLOURS[phase], alpha=0.3 if gone else 0.85,
                )
            )  # fmt: skip
            if gone:
                axes.text(block, row, str(places[block]), ha="center", va="center_baseline",
                          fontsize=7 if blocks <= 40 else 5, color=style.INK)  # fmt: skip
    axes.set_xlim(-0.6, blocks - 0.4)
    axes.set_ylim(len(traces) - 0.5, -0.5)
    axes.set_yticks(range(len(traces)), [_short(name) for name in traces])
    axes.xaxis.set_major_locator(style.integer_ticks(blocks - 1))
    axes.tick_params(axis="y", length=0)
    style.set_labels(axes, "Block (pale: removed, the number says when)", "")
    style.set_title(axes, "Phases by task, and the order of removal")
    names = {"silent": "Silent", "decisive": "Decisive", None: "no phases"}
    found = {trace["transition"]["found"] for trace in traces.values()}
    shown = [*(("silent", "decisive") if True in found else ()), *((None,) if False in found
                                                                   else ())]
    axes.legend(
        handles=[Patch(color=style.PHASE_COLOURS[one], label=names[one]) for one in shown],
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=style.NOTE_SIZE,
    )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
