"""A pruning run with several tasks as tables and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.table import Table

from phaseprune.report.collapse import collapse_kind_words, largest_loss, step_marks
from phaseprune.report.guards import guard_lines
from phaseprune.report.trace import phases_line
from phaseprune.report.view import WIDTH, add_row, interval_cell, new_table
from phaseprune.report.words import (
    PHASE_NAMES,
    accuracy_line,
    blocks_in_words,
    percent,
    percent_with_interval,
)

#: Columns that the step, the block, the figure of all tasks and marks take.
OWN_WIDTH = 45
#: Of a task's column.
LEAST_WIDTH, MOST_WIDTH = 8, 16
CAPTION = (
    "Retained on the evaluation questions: of all tasks together with its 95 % interval, and of "
    "each; S or D: the removed block is Silent or Decisive for the task"
)


def tasks_tables(
    steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any]
) -> Iterator[Table]:
    """Tabulate the steps, a column a task.

    Args:
        steps: The lines of `steps.jsonl` of the whole run.
        result: The result of its manifest.

    Yields:
        Tables of at most 80 columns, several where the tasks do not fit into one.
    """
    parts = _parts(list(steps[0]["tasks"]))
    for number, folders in enumerate(parts):
        last = number == len(parts) - 1
        table = new_table("Pruning steps: retained %", CAPTION if last else None)
        table.add_column("Step", justify="right")
        table.add_column("Block", justify="right")
        table.add_column(f"{result['combine']} [CI]", justify="right", no_wrap=True)
        for folder in folders:
            table.add_column(folder, justify="right", max_width=MOST_WIDTH, overflow="fold")
        table.add_column("", width=16)
        for step in steps:
            add_row(
                table,
                str(step["step"]),
                "full" if step["removed"] is None else str(step["removed"]),
                interval_cell(step["retained"], step["retained_ci"], 0),
                *(task_cell(step["tasks"][folder]) for folder in folders),
                ", ".join(step_marks(step, result)),
            )
        yield table


def _parts(folders: Sequence[str]) -> list[list[str]]:
    """The tasks of each table."""
    parts: list[list[str]] = [[]]
    left = WIDTH - OWN_WIDTH
    for folder in folders:
        width = 1 + min(MOST_WIDTH, max(LEAST_WIDTH, cell_len(folder)))
        if parts[-1] and width > left:
            parts.append([])
            left = WIDTH - OWN_WIDTH
        parts[-1].append(folder)
        left -= width
    return parts


def task_cell(task: Mapping[str, Any]) -> str:
    """What is retained of a task at a step, and the letter of the removed block's phase.

    Args:
        task: Its entry in a line of `steps.jsonl`.

    Returns:
        As ``92 D``; where retained is not defined, the accuracy as ``acc. 31 D``.
    """
    value = percent(task["retained"], 0)
    if task["retained"] is None:
        value = f"acc. {percent(task['accuracy'], 0)}"
    return f"{value} {PHASE_NAMES.get(task['phase'], ' ')[0]}"


def tasks_lines(
    steps: Sequence[Mapping[str, Any]],
    traces: Mapping[str, Mapping[str, Any]],
    result: Mapping[str, Any],
    chosen_by: Mapping[str, Any] | None,
) -> list[str]:
    """Say what the run came to.

    Args:
        steps: The lines of `steps.jsonl` of the whole run.
        traces: Folder -> the content of its `trace.json`.
        result: The result of the manifest.
        chosen_by: That of the manifest.

    Returns:
        Sentences.
    """
    return [
        _removed_line(result),
        *([chosen_by["in_words"]] if chosen_by else []),
        *(
            f"{folder}: {accuracy_line(one, one['chance'], one['evaluation_questions'])} "
            f"{_retained_words(one)}"
            for folder, one in result["tasks"].items()
        ),
        _together_line(result),
        _loss_line(steps, result),
        *([line] if (line := differing_line(traces)) else []),
        *guard_lines(result),
    ]


def phases_lines(traces: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each task where the full model decides."""
    return [f"{folder}: {phases_line(trace)}" for folder, trace in traces.items()]


def differing_blocks(traces: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Blocks that are Decisive for one task and Silent for another.

    Args:
        traces: Folder -> the content of its `trace.json`.

    Returns:
        Original indices in order; tasks without a transition have no phases.
    """
    found = [one["transition"] for one in traces.values() if one["transition"]["found"]]
    silent = {block for one in found for block in one["silent_blocks"]}
    return sorted(silent & {block for one in found for block in one["decisive_blocks"]})


def differing_line(traces: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Say which blocks are Decisive for one task and Silent for another; None if not told."""
    if sum(one["transition"]["found"] for one in traces.values()) < 2:
        return None
    blocks = differing_blocks(traces)
    if not blocks:
        return "No block is Decisive for one task and Silent for another."
    text = blocks_in_words(blocks)
    verb = "is" if len(blocks) == 1 else "are"
    return f"{text[0].upper()}{text[1:]} {verb} Decisive for one task and Silent for another."


def _removed_line(result: Mapping[str, Any]) -> str:
    removed = result["removed"]
    total = len(removed) + len(result["kept"])
    if not removed:
        return f"No block of {total} was removed."
    was, noun = ("was", "block") if len(removed) == 1 else ("were", "blocks")
    order = ", ".join(map(str, removed))
    counts: dict[str, list[str]] = {}
    for folder, one in result["tasks"].items():
        if any(one["removed_of_phase"].values()):
            told = " and ".join(
                f"{one['removed_of_phase'][phase]} {name}" for phase, name in PHASE_NAMES.items()
            )
            counts.setdefault(told, []).append(folder)
    parts = [f"{told} for {_listed(folders)}" for told, folders in counts.items()]
    phases = f" By phase: {'; '.join(parts)}." if parts else ""
    return f"{len(removed)} of {total} blocks {was} removed: {noun} {order}.{phases}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _retained_words(task: Mapping[str, Any]) -> str:
    if task["retained"] is None:
        return "Retained is not defined: the full model is not better than chance."
    text = f"Retained {percent_with_interval(task['retained'], task['retained_ci'])}"
    value = task.get("retained_debiased")
    if value is not None:
        debiased = percent_with_interval(value, task["retained_debiased_ci"])
        text += f", without the label prior {debiased}"
    if task["collapsed"]:
        text += ", collapsed" + collapse_kind_words(
            task.get("collapsed_how"), task, task["evaluation_questions"], told=True
        )
    return f"{text}."


def _together_line(result: Mapping[str, Any]) -> str:
    name = f"the {result['combine']} of the tasks"
    if len(set(result["weights"].values())) > 1:
        weights = ", ".join(f"{one} {weight:g}" for one, weight in result["weights"].items())
        name += f" (weights: {weights})"
    if result["retained"] is None:
        return f"Retained, {name}, is not defined: on one task the full model is not above chance."
    retained = percent_with_interval(result["retained"], result["retained_ci"])
    return f"Retained, {name}: {retained}."


def _loss_line(steps: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> str:
    """The largest one-step loss: one of many, and no cliff for being the largest."""
    loss = largest_loss(result)
    if not loss:
        if result["retained"] is None:
            return "Where it falls cannot be told, as retained is not defined."
        return "No step loses any of what is retained."
    of: dict[str, list[str]] = {}
    for folder, one in steps[loss["step"]]["tasks"].items():
        if one["phase"]:
            of.setdefault(PHASE_NAMES[one["phase"]], []).append(folder)
    phases = [f"{name} for {_listed(folders)}" for name, folders in of.items()]
    of_phases = f" ({', '.join(phases)})" if phases else ""
    interval = ""
    if loss["loss_ci"]:
        low, high = loss["loss_ci"]
        interval = f" (95 % CI {percent(low)} to {percent(high)}, not corrected for the choice)"
    return (
        f"Of all steps, step {loss['step']}, the removal of block {loss['removed']}{of_phases}, "
        f"loses most of the {result['combine']}: {percent(loss['loss'])} points{interval}."
    )
