"""What a TASK name stands for: a bundled set of questions or a file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from phaseprune.errors import UserError, near_matches
from phaseprune.questions.files import READERS, read_questions
from phaseprune.questions.question import SCORINGS, Task

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
) -> Task:
    """Load a task.

    Args:
        name: a bundled name (``demo``) or the path of a ``.jsonl``, ``.csv`` or ``.parquet`` file.
        scoring: ``letter`` or ``text``; by default the bundled task's own, ``letter`` for files.
        limit: only the first so many questions.
        length_norm: ``none``, ``chars``, ``bytes`` or ``tokens`` (text scoring).
        probability: ``options`` or ``vocabulary`` (letter scoring).

    Raises:
        UserError: unknown name (with near matches), unreadable file, options that do not go
            together.
    """
    _one_of("scoring", scoring, (None, *SCORINGS))
    _one_of("length-norm", length_norm, LENGTH_NORMS)
    _one_of("probability", probability, PROBABILITIES)
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 and is {limit}")
    if name in BUNDLED:
        file, _, default_scoring = BUNDLED[name]
        path = Path(str(files("phaseprune.demo") / file))
    else:
        path, default_scoring = _file(name), "letter"
    scoring = scoring or default_scoring
    if scoring == "letter" and length_norm != "none":
        raise UserError("--length-norm is for text scoring; add --scoring text, or leave it out")
    if scoring == "text" and probability != "options":
        raise UserError("--probability vocabulary is for letter scoring; leave it out for texts")
    questions = tuple(read_questions(path))
    return Task(name, questions, scoring, length_norm, probability).head(limit)


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
