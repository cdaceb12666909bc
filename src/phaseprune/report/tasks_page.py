"""What the report of a pruning run with several tasks shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phaseprune.report.collapse_words import step_marks
from phaseprune.report.guard_figures import guards_figure
from phaseprune.report.run_files import read_json, read_run
from phaseprune.report.svg import inline_svg
from phaseprune.report.tasks_figure import tasks_figure
from phaseprune.report.tasks_words import CAPTION, phases_lines, task_cell, tasks_lines
from phaseprune.report.words import DASH, percent, percent_with_interval, plural, signed
from phaseprune.runs.atomic import read_json_lines


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
