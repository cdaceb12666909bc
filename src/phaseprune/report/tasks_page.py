"""What the report of a pruning run with several tasks shows, and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from phaseprune.report import style
from phaseprune.report.collapse import step_marks
from phaseprune.report.guard_figures import guards_figure
from phaseprune.report.prune import CAPTION, phases_lines, task_cell, tasks_lines
from phaseprune.report.run_files import read_json, read_run
from phaseprune.report.svg import inline_svg
from phaseprune.report.words import DASH, percent, percent_with_interval, plural, signed
from phaseprune.runs.atomic import read_json_lines

_MARKERS = "osD^vPX*"
_COLOURS = ("#2c8a5a", "#8a4fa3", "#b0392e", "#1f8a9c", "#8b6b1f", "#4b5cc4")
_DASHES = ("solid", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))


def tasks_page(run: Path) -> dict[str, Any] | None:
    """Make the sentences, tiles, tables and figures of the page.

    Args:
        run: The run directory.

    Returns:
        Those by name, or None where there is no finished step.

    Raises:
        UserError: A file of it, or of a task's folder, cannot be read.
    """
    manifest = read_json(run / "manifest.json", ("tasks", "result"))
    steps = read_json_lines(run / "steps.jsonl")
    if not steps:
        return None
    traces = {folder: read_run(run / folder)["trace"] for folder in manifest["tasks"]}
    result = manifest["result"]
    if result:
        lines = tasks_lines(steps, traces, result, manifest.get("chosen_by"))
    else:
        retained = percent_with_interval(steps[-1]["retained"], steps[-1]["retained_ci"])
        lines = [f"{plural(len(steps) - 1, 'block')} removed so far; retained of all tasks is now "
                 f"{retained}."]  # fmt: skip
    return {
        "sentences": [*lines[:1], *phases_lines(traces), *lines[1:]],
        "tiles": _tiles(result) if result else [],
        "figures": _figures(steps, traces, result),
        "tables": [_table(steps, list(traces), result)],
    }


def _tiles(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    total = len(result["removed"]) + len(result["kept"])
    return [
        ("Removed", str(len(result["removed"])), f"of {total} blocks"),
        _tile(f"Retained, {result['combine']}", result),
        *(_tile(f"Retained, {folder}", one) for folder, one in result["tasks"].items()),
    ]


def _tile(name: str, one: Mapping[str, Any]) -> tuple[str, str, str]:
    if one["retained"] is None:
        return name, DASH, "not defined"
    below = "no interval"
    if one["retained_ci"]:
        below = f"95 % CI {' to '.join(percent(bound) for bound in one['retained_ci'])}"
    return name, f"{percent(one['retained'])} %", below


def _figures(
    steps: Sequence[Mapping[str, Any]], traces: Mapping[str, Mapping[str, Any]],
    result: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:  # fmt: skip
    drawn = [(
        "tasks", tasks_figure(steps, traces, result),
        "What is left of each task's accuracy above chance, on evaluation questions. In the strips "
        "below, the same block can be Silent for one task and Decisive for another; the number in "
        "a pale cell is the place at which it was removed.",
    )]  # fmt: skip
    if any(step["guard"] for step in steps):
        drawn.append((
            "guards", guards_figure([_with_mean_accuracy(step) for step in steps]),
            "What the questions do not ask for. Accuracy is the plain mean over the tasks.",
        ))  # fmt: skip
    return [
        {"name": name, "svg": inline_svg(figure, name, caption), "caption": caption}
        for name, figure, caption in drawn
    ]


def _with_mean_accuracy(step: Mapping[str, Any]) -> dict[str, Any]:
    accuracies = [one["accuracy"] for one in step["tasks"].values()]
    return {**step, "evaluation": {"accuracy": sum(accuracies) / len(accuracies), "ci": None}}


def _table(
    steps: Sequence[Mapping[str, Any]], folders: Sequence[str], result: Mapping[str, Any] | None
) -> dict[str, Any]:
    guarded = any(step["guard"] for step in steps)
    rows = []
    for step in steps:
        marks = step_marks(step, result)
        cells = [
            str(step["step"]),
            "full model" if step["removed"] is None else str(step["removed"]),
            percent(step["objective"]),
            _with_bounds(step["retained"], step["retained_ci"]),
            *(task_cell(step["tasks"][folder]) for folder in folders),
            *([_rise(step)] if guarded else []),
            ", ".join(marks),
        ]
        rows.append([{"text": cell, "strong": "chosen" in marks} for cell in cells])
    return {
        "name": "Steps",
        "head": ["Step", "Removed block", "Objective % (calibration)", "Retained % (all)",
                 *folders, *(["Text loss, rise %"] if guarded else []), ""],
        "rows": rows,
        "notes": [
            f"{CAPTION}. The objective is what is left of the objective of all tasks together on "
            "the calibration questions, by which blocks are chosen.",
        ],
    }  # fmt: skip


def _with_bounds(value: float | None, bounds: Sequence[float] | None) -> str:
    if not bounds:
        return percent(value)
    return f"{percent(value)} ({' to '.join(percent(bound) for bound in bounds)})"


def _rise(step: Mapping[str, Any]) -> str:
    return signed(100 * step["guard"]["text_loss_rise"], 1) if step["guard"] else DASH


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
    axes.set_yticks(range(len(traces)), [_short_name(name) for name in traces])
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


def _short_name(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
