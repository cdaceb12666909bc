"""A pruning run, of one task or of several: what was removed, what it cost, and where it falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decision.laco import merged_words
from phaseprune.decoder.items import item_in_words
from phaseprune.report.collapse import (
    collapse_kind_words,
    collapse_line,
    dynamics_lines,
    evaluation_questions,
    fall_lines,
    largest_loss,
    paired_line,
    step_marks,
)
from phaseprune.report.guards import guard_lines, guards_table
from phaseprune.report.trace import (
    full_model,
    green_line,
    phases_line,
    trace_figures,
    transition_tile,
)
from phaseprune.report.view import (
    PAGE,
    TERMINAL,
    Cell,
    Column,
    Estimate,
    Figure,
    Item,
    Table,
    Tile,
    View,
    only,
    phase_cell,
    share_tile,
)
from phaseprune.report.words import (
    DEBIASED_NOTE,
    PHASE_NAMES,
    blocks_in_words,
    exported_line,
    nouns_of,
    percent,
    percent_with_interval,
    plural,
    signed,
)

Pruning = Mapping[str, Any]
Steps = Sequence[Mapping[str, Any]]
Result = Mapping[str, Any]


def prune_view(pruning: Pruning) -> View:
    """Show a pruning run.

    Args:
        pruning: As `Pruning.to_dict`: ``steps``, ``result``, ``chosen_by``, and ``trace`` or, of
            several tasks, ``tasks``. A run that is not finished has a ``result`` of None, and one
            that is read from its files may have a ``trace`` of None.

    Returns:
        Its view.
    """
    steps, result, several = pruning["steps"], pruning["result"], "tasks" in pruning
    if result:
        told = tasks_lines(pruning) if several else task_lines(pruning)
    else:
        told = so_far_lines(steps, several)
    trace = pruning.get("trace")
    return View(
        [
            *phases_lines(traces_of(pruning)),
            steps_table(steps, result),
            guards_table(steps),
            *(only(TERMINAL, [ended_line(result)]) if result else []),
            *told,
            *(only(TERMINAL, export_lines(result)) if result else []),
            *(full_model(trace) if trace else []),
        ],
        _tasks_tiles(result) if several else _tiles(pruning),
        _tasks_figures(pruning) if several else _figures(pruning),
    )


def traces_of(pruning: Pruning) -> dict[str, Mapping[str, Any]]:
    """The traces of the full model by the task's folder; a single task needs no name."""
    if "tasks" in pruning:
        return {folder: one["trace"] for folder, one in pruning["tasks"].items()}
    return {"": pruning["trace"]} if pruning["trace"] else {}


def phases_lines(traces: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each task where the full model decides."""
    return [
        f"{folder}: {phases_line(trace)}" if folder else phases_line(trace)
        for folder, trace in traces.items()
    ]


def task_lines(pruning: Pruning) -> list[Item]:
    """Say what a finished run on one task came to; as of ``prune_view``."""
    steps, result, trace = pruning["steps"], pruning["result"], pruning["trace"] or {}
    questions = trace.get("questions") or evaluation_questions(steps)
    dynamics = dynamics_lines(result, trace.get("option_labels"), questions)
    return [
        removed_line(steps, result),
        *merged_lines(steps, result),
        chosen_line(pruning),
        accuracy_line(result, trace.get("chance"), questions),
        collapse_line(result, steps),
        *fall_lines(result, steps),
        *guard_lines(result),
        *only(PAGE, [paired_line(result), *dynamics]),
        racing_line(result["racing"]) if result.get("racing") else None,
    ]


def tasks_lines(pruning: Pruning) -> list[Item]:
    """Say what a finished run on several tasks came to; as of ``prune_view``."""
    steps, result = pruning["steps"], pruning["result"]
    return [
        removed_line(steps, result),
        chosen_line(pruning),
        *(
            f"{folder}: {accuracy_line(one, one['chance'], one['evaluation_questions'])} "
            f"{_retained_words(one)}"
            for folder, one in result["tasks"].items()
        ),
        _together_line(result),
        _loss_line(steps, result),
        differing_line(traces_of(pruning)),
        *guard_lines(result),
    ]


def ended_line(result: Result) -> str | None:
    """Say why the search ended; None of an older version's run."""
    return f"the search ended: {result['stopped_by']}" if "stopped_by" in result else None


def chosen_line(pruning: Pruning) -> str | None:
    """Say by what the blocks were chosen; None of an older version's run."""
    return pruning["chosen_by"]["in_words"] if pruning.get("chosen_by") else None


def so_far_lines(steps: Steps, several: bool) -> list[str]:
    """Say how far a run is that is not finished."""
    last = steps[-1]
    if several:
        count = plural(len(steps) - 1, "block")
        retained = percent_with_interval(last["retained"], last["retained_ci"])
        return [f"{count} removed so far; retained of all tasks is now {retained}."]
    accuracy = percent_with_interval(last["evaluation"]["accuracy"], last["evaluation"].get("ci"))
    count = sum(step["removed"] is not None for step in steps)
    nouns = nouns_of(steps, None)
    removed = plural(count, "block") if nouns == "blocks" else f"{count} {nouns}"
    return [f"{removed} removed so far; evaluation accuracy is now {accuracy}."]


def export_lines(result: Result) -> list[str]:
    """Say where the pruned model is and how near it is to what was measured."""
    exported = result.get("export")
    return [exported_line(exported), *exported.get("zeroed_in_words", ())] if exported else []


def steps_table(steps: Steps, result: Result | None = None) -> Table:
    """Tabulate the steps of a pruning run.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished run, for the chosen step and where retained falls.

    Returns:
        The table. Of letters the terminal shows what is retained with the label prior taken off in
        place of the accuracy's interval. Several tasks have a column each.
    """
    what = "Block" if nouns_of(steps, None) == "blocks" else "Half"
    marks = [step_marks(step, result) for step in steps]
    several = "tasks" in steps[0]
    caption, notes, columns = (_tasks_columns if several else _task_columns)(steps, result)
    return Table(
        "Pruning steps: retained %" if several else "Pruning steps",
        [
            Column("Step", [str(step["step"]) for step in steps]),
            Column(
                what,
                [
                    Cell("full", page="full model")
                    if step["removed"] is None
                    else str(step["removed"])
                    for step in steps
                ],
                page=f"Removed {what.lower()}",
            ),
            *columns,
            Column(
                "",
                [Cell("", tags=of) for of in marks],
                left=True,
                **({"least": 16, "most": 16} if several else {"fill": True}),
            ),
        ],
        caption,
        notes=notes,
        name="steps",
        page_title="Steps",
        marked=[row for row, of in enumerate(marks) if {"chosen", "cliff"} & set(of)],
    )


def _task_columns(steps: Steps, result: Result | None) -> tuple[str, list[str], list[Column]]:
    """Caption, notes and columns of a single task's steps."""
    letters = any(step.get("retained_debiased_ci") for step in steps)
    half = nouns_of(steps, None) != "blocks"
    evaluations = [step["evaluation"] for step in steps]
    caption = "Accuracy, DM and retained on the evaluation questions"
    columns = [
        Column(
            "Phase",
            [
                phase_cell(step["phase"], none="" if step["removed"] is None else "–")
                for step in steps
            ],
            left=True,
        ),
        Column(
            "Acc. %" if letters else "Accuracy % [CI]",
            [Estimate(one["accuracy"], one.get("ci"), 1) for one in evaluations],
            page="Accuracy %",
            narrow=letters,
        ),
        Column(
            "Calibration accuracy %",
            [percent(step["calibration"]["accuracy"]) for step in steps],
            only=PAGE,
        ),
        Column("DM", [signed(one["decision_margin"]) for one in evaluations]),
        Column(
            "Retained %\n[95 % CI]" if letters else "Retained % [CI]",
            [Estimate(step["retained"], step.get("retained_ci")) for step in steps],
        ),
    ]
    if letters:
        columns.append(
            Column(
                "debiased %\n[95 % CI]",
                [
                    Estimate(step.get("retained_debiased"), step.get("retained_debiased_ci"))
                    for step in steps
                ],
                page="Retained %, debiased",
            )
        )
    columns += [
        Column(
            "Passes of a half" if half else "Block passes",
            [f"{step['block_passes']:,}" for step in steps],
            only=PAGE,
        ),
        Column("Seconds", [f"{step['seconds']:.1f}" for step in steps], only=PAGE),
    ]
    notes = ["Every interval is of the evaluation questions, on which no block is chosen, at 95 %."]
    return f"{caption}; {DEBIASED_NOTE}" if letters else caption, notes, columns


def _tasks_columns(steps: Steps, result: Result | None) -> tuple[str, list[str], list[Column]]:
    """Caption, notes and columns of several tasks' steps."""
    columns = [
        Column(
            "Objective % (calibration)", [percent(step["objective"]) for step in steps], only=PAGE
        ),
        Column(
            f"{(result or {}).get('combine', 'all')} [CI]",
            [Estimate(step["retained"], step["retained_ci"]) for step in steps],
            page="Retained % (all)",
        ),
        *(
            Column(folder, [task_cell(step["tasks"][folder]) for step in steps], part=True, most=16)
            for folder in steps[0]["tasks"]
        ),
    ]
    caption = (
        "Retained on the evaluation questions: of all tasks together with its 95 % interval, and "
        "of each; S or D: the removed block is Silent or Decisive for the task"
    )
    notes = [
        "The objective is what is left of the objective of all tasks together on the "
        "calibration questions, by which blocks are chosen."
    ]
    return caption, notes, columns


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


def removed_line(steps: Steps, result: Result) -> str:
    """Say what the chosen step removed, of which phase, and what it means for an export.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished prune run.

    Returns:
        One to three sentences.
    """
    removed, nouns = result["removed"], nouns_of(steps, result)
    total, blocks = len(removed) + len(result["kept"]), nouns == "blocks"
    if not removed:
        none = f"No block of {total}" if blocks else f"None of {total} {nouns}"
        return f"{none} was removed."
    was, noun = ("was", "block") if len(removed) == 1 else ("were", "blocks")
    order = ", ".join(map(item_in_words, removed))
    if blocks:
        order = f"{noun} {', '.join(map(str, removed))}"
    of_phases, by_task = "", ""
    if "tasks" in result:
        by_task = _phases_by_task(result)
    else:
        phases = [step["phase"] for step in steps if step["removed"] in removed]
        counts = [
            f"{phases.count(phase)} {name}"
            for phase, name in PHASE_NAMES.items()
            if phase in phases
        ]
        of_phases = f" ({', '.join(counts)})" if counts else ""
    return (
        f"{len(removed)} of {total} {nouns} {was} removed{of_phases}: {order}."
        + by_task
        + ("" if blocks else _halves_in_export(result))
    )


def _phases_by_task(result: Result) -> str:
    counts: dict[str, list[str]] = {}
    for folder, one in result["tasks"].items():
        if any(one["removed_of_phase"].values()):
            told = " and ".join(
                f"{one['removed_of_phase'][phase]} {name}" for phase, name in PHASE_NAMES.items()
            )
            counts.setdefault(told, []).append(folder)
    parts = [f"{told} for {_listed(folders)}" for told, folders in counts.items()]
    return f" By phase: {'; '.join(parts)}." if parts else ""


def _halves_in_export(result: Result) -> str:
    whole, zeroed, text = result["whole_blocks"], result["zeroed"], ""
    if whole:
        gone = blocks_in_words(whole)
        have = "has lost both halves and is" if len(whole) == 1 else "have lost both halves and are"
        text = f" {gone[0].upper()}{gone[1:]} {have} deleted in an exported checkpoint."
    if zeroed:
        text += (
            f" The weights of the {'other' if whole else 'removed'} "
            f"{'half' if len(zeroed) == 1 else 'halves'} become zeros there"
            f"{'' if whole else ' when it is exported'}, which saves neither bytes nor time unless "
            "a runtime skips them."
        )
    return text


def merged_lines(steps: Steps, result: Result) -> list[str]:
    """Say what the weights of merged blocks are a sum of at the chosen step.

    Args:
        steps: The lines of `steps.jsonl`.
        result: The result of a finished prune run.

    Returns:
        One sentence; none of a run that merged nothing.
    """
    merged = steps[result["chosen_step"]].get("merged")
    if not merged:
        return []
    return [f"Weights of blocks that took removed ones in: {'; '.join(merged_words(merged))}."]


def accuracy_line(result: Mapping[str, Any], chance: float | None, questions: int | None) -> str:
    """Compare the pruned model with the full one.

    Args:
        result: The result of a finished prune run.
        chance: Accuracy of guessing, where it is known.
        questions: Number of evaluation questions, where it is known.

    Returns:
        One sentence.
    """
    full, pruned = result["full"], result["pruned"]
    where = f" on {plural(questions, 'evaluation question')}" if questions else ""
    guess = "" if chance is None else f"; chance is {percent(chance)} %"
    return (
        f"Accuracy{where}: full model {percent_with_interval(full['accuracy'], full['ci'])}, "
        f"pruned model {percent_with_interval(pruned['accuracy'], pruned['ci'])}{guess}."
    )


def racing_line(racing: Mapping[str, Any]) -> str:
    """Say what racing (that part of a result) promises of each step, and what it saved."""
    run, saved = racing["block_passes"], racing["block_passes_saved"]
    cost = f"{saved} of {run + saved} block passes saved"
    if saved < 0:
        cost = f"{-saved} more than the {run + saved} block passes of an exact search"
    digits = ""
    if racing.get("products"):
        digits = (
            f" Products in {racing['products']} changed the objective by "
            f"{racing['drift']:.2g} at most."
        )
    return (
        f"Racing: a step's choice is within {racing['tolerance']:g} of the best objective with "
        f"{100 * racing['confidence']:g} % confidence; {cost}.{digits}"
    )


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


def _together_line(result: Result) -> str:
    name = f"the {result['combine']} of the tasks"
    if len(set(result["weights"].values())) > 1:
        weights = ", ".join(f"{one} {weight:g}" for one, weight in result["weights"].items())
        name += f" (weights: {weights})"
    if result["retained"] is None:
        return f"Retained, {name}, is not defined: on one task the full model is not above chance."
    retained = percent_with_interval(result["retained"], result["retained_ci"])
    return f"Retained, {name}: {retained}."


def _loss_line(steps: Steps, result: Result) -> str:
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
        low, high = map(percent, loss["loss_ci"])
        interval = f" (95 % CI {low} to {high}, not corrected for the choice)"
    return (
        f"Of all steps, step {loss['step']}, the removal of block {loss['removed']}{of_phases}, "
        f"loses most of the {result['combine']}: {percent(loss['loss'])} points{interval}."
    )


def _tiles(pruning: Pruning) -> list[Tile]:
    steps, result, trace = pruning["steps"], pruning["result"], pruning["trace"]
    full = steps[0]["evaluation"]
    tiles = [share_tile("Full model", full["accuracy"], full.get("ci"))]
    if result:
        nouns = nouns_of(steps, result)
        tiles += [
            share_tile("Pruned model", result["pruned"]["accuracy"], result["pruned"]["ci"]),
            _removed_tile(f"{nouns[0].upper()}{nouns[1:]} removed", result),
            share_tile("Retained", result["retained"], result["retained_ci"]),
        ]
        if (left := result.get("retained_debiased")) is not None:
            tiles.append(share_tile("Retained, debiased", left, result["retained_debiased_ci"]))
    return [*tiles, transition_tile(trace)] if trace else tiles


def _tasks_tiles(result: Result | None) -> list[Tile]:
    if not result:
        return []
    return [
        _removed_tile("Blocks removed", result),
        share_tile(f"Retained, {result['combine']}", result["retained"], result["retained_ci"]),
        *(
            share_tile(f"Retained, {folder}", one["retained"], one["retained_ci"])
            for folder, one in result["tasks"].items()
        ),
    ]


def _removed_tile(name: str, result: Result) -> Tile:
    total = len(result["removed"]) + len(result["kept"])
    return Tile(name, str(len(result["removed"])), f"of {total}")


def _figures(pruning: Pruning) -> list[Figure]:
    steps, result, trace = pruning["steps"], pruning["result"], pruning["trace"]
    halves = nouns_of(steps, result) != "blocks"
    both = green_line(steps[0].get("retained_debiased_ci"))
    shown = []
    if len(steps) > 1:
        shown.append(
            Figure(
                "pruning",
                "pruning_figure",
                (steps, result, trace["chance"] if trace else None),
                f"Each point is one more {'half of a block' if halves else 'block'} removed, named "
                f"by its index{' (a: attention, m: MLP)' if halves else ''}; squares are Silent, "
                "circles Decisive blocks. The grey band is where accuracy falls, its pale part the "
                f"95 % interval of that.{both} Look for how long accuracy holds, and "
                "what makes it fall.",
            )
        )
    if any(step.get("guard") for step in steps):
        shown.append(
            Figure(
                "guards",
                "guards_figure",
                (steps,),
                "What the questions do not ask for. Look for steps at which accuracy still holds "
                "while the loss on plain text has risen, or continuations begin to repeat "
                "themselves.",
            )
        )
    shown += trace_figures(trace) if trace else []
    if len(steps) > 1:
        shown.append(
            Figure(
                "heatmap",
                "margin_heatmap_figure",
                (steps, trace),
                "A row for each step of the search, the full model on top: green readouts hold the "
                "right option, purple ones another, struck grey cells are removed blocks. Look "
                "for the rows where the green on the right is gone.",
            )
        )
    if result and result.get("dynamics"):
        shown.append(
            Figure(
                "dynamics",
                "dynamics_figure",
                (result,),
                "Where each pruned model decides, in readouts of the full model; corrected for the "
                "number of steps. Below: where the transition is gone (x), and where these "
                "questions cannot tell (?). Look for whether it is gone where the model collapses.",
            )
        )
    return shown


def _tasks_figures(pruning: Pruning) -> list[Figure]:
    steps = pruning["steps"]
    shown = [
        Figure(
            "tasks",
            "tasks_figure",
            (steps, traces_of(pruning), pruning["result"]),
            "What is left of each task's accuracy above chance, on evaluation questions. In the "
            "strips below, the same block can be Silent for one task and Decisive for another; the "
            "number in a pale cell is the place at which it was removed.",
        )
    ]
    if any(step["guard"] for step in steps):
        shown.append(
            Figure(
                "guards",
                "guards_figure",
                ([_with_mean_accuracy(step) for step in steps],),
                "What the questions do not ask for. Accuracy is the plain mean over the tasks.",
            )
        )
    return shown


def _with_mean_accuracy(step: Mapping[str, Any]) -> dict[str, Any]:
    accuracies = [one["accuracy"] for one in step["tasks"].values()]
    return {**step, "evaluation": {"accuracy": sum(accuracies) / len(accuracies), "ci": None}}
