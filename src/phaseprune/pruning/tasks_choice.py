"""What a pruning run with several tasks asks for, refused where it does not do; nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phaseprune.decision.combined import COMBINES
from phaseprune.errors import UserError, near_matches
from phaseprune.methods.choice import Choice
from phaseprune.methods.objectives import OBJECTIVES
from phaseprune.questions.question import Task
from phaseprune.runs.folders import TAKEN, task_folders

DEFAULT_COMBINE = COMBINES[0]


def check_tasks(  # noqa: C901
    tasks: int, weights: Sequence[float] | None, combine: str | None, choice: Choice,
    granularity: str = "block",
) -> None:  # fmt: skip
    """Refuse what does not go with so many tasks.

    Args:
        tasks: how many.
        weights: as given, None for equal ones.
        combine: as given, None for the default.
        choice: what chooses.
        granularity: what is removed.

    Raises:
        UserError: an unknown way to combine, weights that are not one a task and above 0, either
            with one task, or with several a choice that is no exact search by questions, or
            halves of blocks.
    """
    if combine is not None and combine not in COMBINES:
        raise UserError(
            f"--combine is {combine!r} and must be one of {', '.join(COMBINES)}."
            + near_matches(combine, COMBINES)
        )
    if tasks < 1:
        raise UserError("no task is given; give one or several from load_task")
    if tasks < 2:
        for option, value in (("combine", combine), ("weights", weights)):
            if value is not None:
                raise UserError(
                    f"--{option} goes with several tasks; name them as --task a,b, or leave it out"
                )
        return
    if weights is not None:
        if len(weights) != tasks:
            raise UserError(
                f"--weights gives {len(weights)} and --task {tasks}; give a weight for each task, "
                "in the same order"
            )
        if not all(0 < weight < math.inf for weight in weights):
            raise UserError(
                f"--weights {', '.join(f'{weight:g}' for weight in weights)}: each must be above "
                "0; leave a task out that should not count"
            )
    if choice.method.objective not in OBJECTIVES:
        raise UserError(
            f"{choice.word} does not choose by several tasks; give --objective "
            f"{', '.join(OBJECTIVES)}, or one task"
        )
    if choice.how["search"] != "exact":
        raise UserError(
            f"--search {choice.how['search']} takes one task; with several leave it out: every "
            "candidate is scored on all calibration questions"
        )
    if granularity != "block":
        raise UserError(
            f"--granularity {granularity} takes one task; with several whole blocks are removed"
        )


def asked_weights(tasks: int, weights: Sequence[float] | None) -> list[float]:
    """The weights, equal ones where none are given."""
    return [1.0] * tasks if weights is None else [float(weight) for weight in weights]


def different_folders(tasks: Sequence[Task]) -> list[str]:
    """A folder name for each task.

    Raises:
        UserError: a task is named twice, or two are the same questions put in the same way.
    """
    folders = task_folders([task.name for task in tasks], TAKEN)
    seen: dict[tuple, str] = {}
    for task in tasks:
        told = {name: value for name, value in task.identity.items() if name != "name"}
        other = seen.setdefault((*told.values(), task.prompt_format), task.name)
        if other != task.name:
            raise UserError(
                f"--task: {other} and {task.name} are the same questions put in the same way; name "
                "them once, and give --weights to let them count for more"
            )
    return folders
