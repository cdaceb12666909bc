"""What a TASK name stands for, and the options by which its questions are put."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from phaseprune.errors import UserError, near_matches
from phaseprune.questions.files import READERS, read_questions
from phaseprune.questions.prompts import LABEL_STYLES
from phaseprune.questions.question import SCORINGS, Question, Task
from phaseprune.questions.shots import SHOT_ORDERS, choose_shots, shuffle_options

#: Bundled tasks: name -> (file in ``phaseprune.demo``, one line about it, scoring).
BUNDLED = {
    "demo": (
        "questions.jsonl",
        "held-out questions for the bundled model: facts, two hops, categories, negation, "
        "comparison",
        "letter",
    ),
}
LENGTH_NORMS = ("none", "chars", "bytes", "tokens")
PROBABILITIES = ("options", "vocabulary")


def load_task(
    name: str,
    *,
    scoring: str | None = None,
    limit: int | None = None,
    length_norm: str = "none",
    probability: str = "options",
    labels: str = "A",
    shots: int = 0,
    shots_from: str | Path | None = None,
    shot_order: str = "first",
    shuffle: bool = False,
    chat: bool = False,
    seed: int = 0,
) -> Task:
    """Load a task.

    Args:
        name: a bundled name (``demo``) or the path of a ``.jsonl``, ``.csv`` or ``.parquet`` file.
        scoring: ``letter`` or ``text``; by default the bundled task's own, ``letter`` for files.
        limit: only the first so many questions.
        length_norm: ``none``, ``chars``, ``bytes`` or ``tokens`` (text scoring).
        probability: ``options`` or ``vocabulary`` (letter scoring).
        labels: the style of labels, by its first one: ``A``, ``a``, ``1``, ``(A)`` or ``(a)``.
        shots: how many solved examples stand before each question.
        shots_from: a file of questions to take them from.
        shot_order: ``first`` or ``random`` (by seed) of that file's questions.
        shuffle: give each question's options another order, by seed.
        chat: put the question in the tokenizer's chat template.
        seed: of random shots and of the shuffling.

    Raises:
        UserError: unknown name (with near matches), unreadable file, options that do not go
            together.
    """
    _one_of("scoring", scoring, (None, *SCORINGS))
    _one_of("length-norm", length_norm, LENGTH_NORMS)
    _one_of("probability", probability, PROBABILITIES)
    _one_of("labels", labels, tuple(LABEL_STYLES))
    _one_of("shot-order", shot_order, SHOT_ORDERS)
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 and is {limit}")
    if shots < 0:
        raise UserError(f"--shots must be at least 0 and is {shots}")
    if shots_from is not None and not shots:
        raise UserError("--shots-from says where examples are from; say how many with --shots")
    if name in BUNDLED:
        file, _, default_scoring = BUNDLED[name]
        path = Path(str(files("phaseprune.demo") / file))
    else:
        path, default_scoring = _file(name), "letter"
    scoring = scoring or default_scoring
    _check_scoring(scoring, length_norm, probability, labels)
    questions = read_questions(path)[:limit]
    examples = None
    if shots:
        pool = _shot_pool(name, shots_from)
        examples = choose_shots(pool, questions, shots, shot_order, seed, str(shots_from))
    if shuffle:
        questions = shuffle_options(questions, seed)
    return Task(
        name, tuple(questions), scoring, length_norm, probability, labels=labels, shots=examples,
        chat=chat, shuffled=seed if shuffle else None,
    )  # fmt: skip


def _check_scoring(scoring: str, length_norm: str, probability: str, labels: str) -> None:
    """Refuse options that the other scoring has."""
    if scoring == "letter" and length_norm != "none":
        raise UserError("--length-norm is for text scoring; add --scoring text, or leave it out")
    if scoring == "text" and probability != "options":
        raise UserError("--probability vocabulary is for letter scoring; leave it out for texts")
    if scoring == "text" and labels != "A":
        raise UserError("--labels is for letter scoring; leave it out for texts")


def _shot_pool(name: str, shots_from: str | Path | None) -> list[Question]:
    if shots_from is None:
        raise UserError(
            f"{name} has no few-shot split of its own; name a file of solved questions with "
            "--shots-from FILE"
        )
    return read_questions(_file(str(shots_from)))


def _one_of(option: str, value: str | None, allowed: tuple) -> None:
    if value not in allowed:
        names = [str(a) for a in allowed if a is not None]
        raise UserError(
            f"--{option} is {value!r} and must be one of {', '.join(names)}."
            + near_matches(str(value), names)
        )


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix.lower() in READERS or path.exists():
        if not path.is_file():
            siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            raise UserError(
                f"{name}: there is no such file of questions." + near_matches(path.name, siblings)
            )
        return path
    raise UserError(
        f"unknown task {name!r}: give {', '.join(BUNDLED)} or the path of a "
        f"{', '.join(READERS)} file." + near_matches(name, BUNDLED)
    )
