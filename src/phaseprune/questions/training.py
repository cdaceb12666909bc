"""A task's training questions, and what keeps them apart from the questions of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from phaseprune.errors import UserError
from phaseprune.questions import bridge
from phaseprune.questions.benchmarks import find_benchmark
from phaseprune.questions.files import read_questions
from phaseprune.questions.hub import read_split
from phaseprune.questions.question import Question, Task, shuffle_options

#: The training part of the bundled tasks: name -> file in ``phaseprune.demo``.
BUNDLED_TRAINING = {"demo": "training.parquet"}


def training_questions(task: Task, path: str | Path | None = None) -> Task:
    """The task over its training questions, put in the same way.

    Args:
        task: the task of a run.
        path: a file of training questions; by default the bundled ones, or a benchmark's own split.

    Raises:
        UserError: there are none (says what to pass), or they cannot be put as the task is.
    """
    if task.name.startswith(bridge.PREFIX):
        raise UserError(
            f"{task.name}: prompts of lm-eval's tasks are made by lm-eval, which has none for "
            "training questions; give plain text (--objective=text or distill, --text FILE)"
        )
    benchmark = find_benchmark(task.name)
    if path is not None:
        questions = read_questions(Path(path).expanduser(), task.settings.get("columns"))
    elif task.name in BUNDLED_TRAINING:
        questions = read_questions(
            Path(str(files("phaseprune.demo") / BUNDLED_TRAINING[task.name]))
        )
    elif benchmark and benchmark[0].shots_split not in (None, benchmark[0].split):
        folder = task.settings.get("data_dir")
        questions = read_split(
            task.name, *benchmark, benchmark[0].shots_split, Path(folder) if folder else None
        )
    else:
        raise UserError(
            f"{task.name} has no training questions of its own; give a file of other questions "
            "with --train FILE, or plain text (--objective=text or distill, --text FILE)"
        )
    if task.shuffled is not None:
        questions = shuffle_options(questions, task.shuffled)
    if task.shots:
        questions = _without_shots(questions, task)
    return task.with_questions(questions)


def same_question(one: Question) -> tuple[str, frozenset[str]]:
    """What two questions have in common that ask the same: text and options, in any order."""
    return " ".join(one.text.split()).casefold(), frozenset(
        " ".join(choice.split()).casefold() for choice in one.choices
    )


def overlapping(training: Iterable[Question], scored: Iterable[Question]) -> list[int]:
    """Numbers of the training questions that are among the scored ones.

    They are by their text with the same options in any order, or by their id with the same text.
    An id alone does not tell: files without ids count their rows.
    """
    scored = list(scored)
    contents = {same_question(question) for question in scored}
    named = {(question.id, same_question(question)[0]) for question in scored}
    return [
        number
        for number, question in enumerate(training)
        if same_question(question) in contents or (question.id, same_question(question)[0]) in named
    ]


def disjoint_training(task: Task, scored: Iterable[Question], drop: bool = False) -> Task:
    """The training task without questions of the run.

    Args:
        task: from ``training_questions``.
        scored: the run's calibration and evaluation questions.
        drop: leave the questions out that overlap; by default they are refused.

    Raises:
        UserError: training questions are among the scored ones, or none are left.
    """
    common = overlapping(task.questions, scored)
    if common and not drop:
        first = task.questions[common[0]]
        raise UserError(
            f"{len(common)} of {len(task.questions)} training questions are calibration or "
            f"evaluation questions of the run, the first {first.id!r} ({first.text[:60]!r}); give "
            "others with --train FILE, or leave these out with --drop-overlap"
        )
    left = [q for number, q in enumerate(task.questions) if number not in set(common)]
    if not left:
        raise UserError(
            "all training questions are calibration or evaluation questions of the run; give "
            "others with --train FILE"
        )
    return task.with_questions(left)


def _without_shots(questions: Sequence[Question], task: Task) -> list[Question]:
    """Questions that are no solved examples in the prompt and have examples to stand before them.

    Raises:
        UserError: a group of questions has none.
    """
    shown = {shot.content for group in task.shots.by_group.values() for shot in group}
    for question in questions:
        if None not in task.shots.by_group and question.group not in task.shots.by_group:
            raise UserError(
                f"training question {question.id!r} is of the group {question.group!r}, for which "
                f"{task.name} has no solved examples; give questions of its groups"
            )
    return [question for question in questions if question.content not in shown]
