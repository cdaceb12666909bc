"""``phaseprune tasks``."""

from __future__ import annotations

from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import Screen, command_line


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="Show a question of this task.", show_default=False),
    ] = None,
    scoring: o.Scoring = None,
    labels: o.Labels = "A",
    shots: o.Shots = 0,
    shots_from: o.ShotsFrom = None,
    shot_order: o.ShotOrder = "first",
    shuffle: o.Shuffle = False,
    seed: o.Seed = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the tasks, or show how a task's first question is put to a model."""
    screen = Screen(as_json, quiet)
    from phaseprune.questions.catalog import BUNDLED, load_task
    from phaseprune.questions.prompts import put

    if name is None:
        rows = {task: about for task, (_, about, _) in BUNDLED.items()}
        for task, about in rows.items():
            screen.say(f"{task}: {about}")
        screen.say("FILE: any .jsonl, .csv or .parquet file with question, choices, answer")
        screen.next(command_line("tasks", "demo"))
        screen.result({"tasks": rows, "files": [".jsonl", ".csv", ".parquet"]})
        return
    task = load_task(
        name, scoring=scoring, labels=labels, shots=shots, shots_from=shots_from,
        shot_order=shot_order, shuffle=shuffle, seed=seed,
    )  # fmt: skip
    question = task.questions[0]
    contexts, continuations = zip(*put(question, task).pairs(), strict=True)
    context = contexts[0]
    groups: dict[str, int] = {}
    for item in task.questions:
        groups[item.group or "all"] = groups.get(item.group or "all", 0) + 1
    shown = {
        "task": name,
        "questions": len(task.questions),
        "options": sorted(set(task.options.tolist())),
        "chance": task.chance,
        "scoring": task.scoring,
        "prompt_format": task.prompt_format,
        "groups": groups,
        "example": {
            "id": question.id, "context": context, "continuations": list(continuations),
            "answer": question.answer,
        },
    }  # fmt: skip
    options = "/".join(map(str, shown["options"]))
    screen.say(
        f"{name}: {len(task.questions)} questions with {options} options, chance {task.chance:.3f}"
    )
    screen.say("groups: " + ", ".join(f"{group} {count}" for group, count in groups.items()))
    screen.say(f"prompt ({shown['prompt_format']}) of question {question.id}:\n")
    screen.say(context.replace("[", r"\["))
    for number, continuation in enumerate(continuations):
        mark = "  <- right" if number == question.answer else ""
        screen.say(f"    scored: {continuation!r}{mark}".replace("[", r"\["))
    screen.next(command_line("check", "MODEL", "--task", name))
    screen.result(shown)
