"""Calibration and evaluation questions: drawn by seed, disjoint also in content."""

from __future__ import annotations

import numpy as np

from phaseprune.errors import UserError
from phaseprune.questions.question import Task

#: Without a number given: at most this many, and at most a third of the questions.
DEFAULT_CALIBRATION = 64


def split(
    task: Task, calibration: int | None = None, evaluation: int | None = None, seed: int = 0
) -> tuple[Task, Task]:
    """Draw calibration and evaluation questions.

    Args:
        task: the questions to draw from.
        calibration: how many to choose blocks on; by default a third of the questions, at most 64.
        evaluation: how many of the others to report on; by default all of them.
        seed: the same seed draws the same questions.

    Returns:
        Two tasks, each in the original order. A question that stands twice in the data (same text
        and choices) is never on both sides.

    Raises:
        UserError: the task has too few questions.
    """
    total = len(task.questions)
    wanted = min(DEFAULT_CALIBRATION, max(1, total // 3)) if calibration is None else calibration
    if wanted < 1 or (evaluation is not None and evaluation < 1):
        raise UserError("the numbers of calibration and evaluation questions must be at least 1")
    order = np.random.default_rng(seed).permutation(total)
    chosen = set(order[:wanted].tolist())
    seen = {task.questions[i].content for i in chosen}
    rest = [i for i in order[wanted:].tolist() if task.questions[i].content not in seen]
    if len(rest) < (evaluation or 1):
        raise UserError(
            f"{task.name} has {total} questions: {wanted} for calibration leave {len(rest)} others "
            f"for evaluation, and {evaluation or 1} are needed; ask for fewer, or raise --limit"
        )
    kept = set(rest[:evaluation])
    return tuple(
        task.with_questions([q for i, q in enumerate(task.questions) if i in side])
        for side in (chosen, kept)
    )
