"""What a TASK name stands for, and the options by which its questions are put."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError, near_matches
from phaseprune.option_types import check_options, checked
from phaseprune.questions import bridge
from phaseprune.questions.benchmarks import Benchmark, find_benchmark, task_names
from phaseprune.questions.files import QuestionFile, read_file, read_questions
from phaseprune.questions.formats import SUFFIXES, suffix_of
from phaseprune.questions.given import GIVEN, default_name, read_given
from phaseprune.questions.hub import read_split
from phaseprune.questions.prompts import LABEL_STYLES
from phaseprune.questions.question import (
    SCORINGS,
    SHOT_ORDERS,
    Question,
    Shots,
    Task,
    choose_shots,
    shuffle_options,
)
from phaseprune.questions.schemas import parse_columns

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
    questions: Any,
    name: str | None = None,
    *,
    scoring: str | None = None,
    limit: int | None = None,
    length_norm: str = "none",
    probability: str = "options",
    labels: str | None = None,
    shots: int | None = None,
    shots_from: str | Path | None = None,
    shot_order: str = "first",
    shuffle: bool = False,
    permute: bool = False,
    chat: bool = False,
    columns: Mapping[str, Any] | str | None = None,
    data_dir: str | Path | None = None,
    lm_eval_path: str | Path | None = None,
    seed: int = 0,
) -> Task:
    """Load a task.

    Args:
        questions: a bundled name (``demo``), a benchmark's (``benchmarks.BENCHMARKS``),
            ``lm_eval:NAME``, or the path of a file of questions (``formats.SUFFIXES``); or the
            questions themselves: a list of mappings or of ``Question``s, a pandas DataFrame, or a
            ``datasets.Dataset``, whose rows are recognised as those of files are.
        name: what questions that are given themselves are called; by default after their content.
        scoring: ``letter`` or ``text``; by default the task's own, ``letter`` for files.
        limit: only the first so many questions; of a benchmark with subjects, of each subject.
        length_norm: ``none``, ``chars``, ``bytes`` or ``tokens`` (text scoring).
        probability: ``options`` or ``vocabulary`` (letter scoring).
        labels: the style of labels, by its first one: ``A``, ``a``, ``1``, ``(A)`` or ``(a)``;
            by default the task's own, mostly ``A``.
        shots: how many solved examples stand before each question; by default none, or what the
            YAML of an lm-eval task says.
        shots_from: a file of questions to take them from; by default a benchmark's own split.
        shot_order: ``first`` or ``random`` (by seed) of those questions.
        shuffle: give each question's options another order, by seed.
        permute: average each option's score over the cyclic permutations of the options (letters).
        chat: put the question in the tokenizer's chat template.
        columns: which fields of files are what, where that is not recognised:
            ``question=q,choices=A+B+C+D,answer=key`` or ``{"question": "q", "choices": ["A", "B"],
            "answer": "key"}``; also ``context``, ``id``, ``group``, and ``answers`` (``0-based``,
            ``1-based`` or ``text``: how the right option is named). Of all files that are read.
        data_dir: a folder with copies of the hub's data sets, to work offline.
        lm_eval_path: a folder of lm-eval tasks (YAML), for ``lm_eval:NAME``.
        seed: of random shots and of the shuffling.

    Raises:
        UserError: unknown name (with near matches), unreadable file, options that do not go
            together.
    """
    options = locals()
    _check_options(options)
    settings = _plain_settings(options)
    name, read = _named(questions, name, columns)
    if read is not None:
        settings = {GIVEN: True} | settings
    elif name.startswith(bridge.PREFIX):
        return _of_lm_eval(name, options, settings)
    if lm_eval_path is not None:
        raise UserError(f"--lm-eval-path is for tasks {bridge.PREFIX}NAME, and this is {name}")
    benchmark = find_benchmark(name) if read is None else None
    entry = benchmark[0] if benchmark else None
    scoring = scoring or (entry.scoring if entry else _default_scoring(name))
    _check_scoring(scoring, length_norm, probability, labels)
    if permute and scoring == "text":
        raise UserError(
            "--permute is for letter scoring, where the order of options is shown; leave it out "
            "for texts"
        )
    if columns is not None and shots_from is None and (entry or name in BUNDLED):
        raise UserError(
            f"--columns says what the fields of a file are, and {name} is none; leave it out"
        )
    data_dir = Path(data_dir) if data_dir is not None else None
    if entry:
        asked = read_split(name, *benchmark, entry.split, data_dir)
        asked = _first_of_each(asked, limit)
    elif read is None and name in BUNDLED:
        asked = read_questions(_path(name))[:limit]
    else:
        read = read or read_file(_path(name), columns)
        asked = read.questions[:limit]
    shuffle = shuffle or _must_shuffle(entry, scoring)
    examples = None
    if shots:
        pool, where = _shot_pool(name, benchmark, shots_from, data_dir, columns)
        examples = choose_shots(pool, asked, shots, shot_order, seed, where)
    if shuffle:
        asked = shuffle_options(asked, seed)
        examples = examples and Shots(
            {g: tuple(shuffle_options(q, seed)) for g, q in examples.by_group.items()},
            examples.order,
        )
    default_labels = entry.labels if entry and scoring == "letter" else "A"
    return Task(
        name,
        tuple(asked),
        scoring,
        length_norm,
        probability,
        prompt=entry.prompt if entry else None,
        labels=labels or default_labels,
        shots=examples,
        chat=chat,
        shuffled=seed if shuffle else None,
        permute=permute,
        settings=settings,
        recognised=read and read.recognised,
        notes=read.notes if read else (),
    )


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of ``load_task`` that do not do, whatever the task is."""
    check_options(load_task, options)
    _one_of("scoring", options["scoring"], (None, *SCORINGS))
    _one_of("length-norm", options["length_norm"], LENGTH_NORMS)
    _one_of("probability", options["probability"], PROBABILITIES)
    _one_of("labels", options["labels"], (None, *LABEL_STYLES))
    _one_of("shot-order", options["shot_order"], SHOT_ORDERS)
    limit, shots = options["limit"], options["shots"]
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1 and is {limit}")
    if shots is not None and shots < 0:
        raise UserError(f"--shots must be at least 0 and is {shots}")
    parse_columns(options["columns"])
    if options["shots_from"] is not None and not shots:
        raise UserError("--shots-from says where examples are from; say how many with --shots")


def _named(
    questions: Any, name: str | None, columns: Mapping[str, Any] | str | None
) -> tuple[str, QuestionFile | None]:
    """The name of a task, and its questions where they are given themselves."""
    if not isinstance(questions, str | Path):
        read = read_given(questions, columns)
        return _own_name(name) or default_name(read.questions), read
    if name is not None:
        raise UserError(
            f"name {name!r} is for questions that are given themselves, and "
            f"{questions} has a name; leave it out"
        )
    return str(questions), None


def _of_lm_eval(name: str, options: Mapping[str, Any], settings: dict[str, Any]) -> Task:
    """A task whose prompts lm-eval makes."""
    bridge.refuse(
        name,
        {
            "scoring=letter": options["scoring"] == "letter",
            **{
                option: options[option.replace("-", "_")]
                for option in ("labels", "shots-from", "shuffle", "permute", "columns", "data-dir")
            },
            "shot-order=random": options["shot_order"] != "first",
        },
    )
    length_norm, chat = options["length_norm"], options["chat"]
    _check_scoring("text", length_norm, options["probability"], None)
    asked, prompt = bridge.read_task(
        name, options["lm_eval_path"], options["limit"], options["shots"], options["seed"], chat
    )
    return Task(name, asked, "text", length_norm, prompt=prompt, chat=chat, settings=settings)


def _own_name(name: str | None) -> str | None:
    """A name for questions that are given themselves, refused where it stands for others."""
    if name is None:
        return None
    checked("name", str, name)
    if (
        not name.strip()
        or name in BUNDLED
        or name.startswith(bridge.PREFIX)
        or (name in task_names())
    ):
        raise UserError(f"name {name!r} is that of another task, or none; give another")
    return name


def _plain_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of ``load_task`` that are not its defaults, as plain JSON values."""
    defaults = signature(load_task).parameters
    plain = {Path: str, Mapping: dict}
    return {
        name: next((make(value) for kind, make in plain.items() if isinstance(value, kind)), value)
        for name, value in given.items()
        if name not in ("questions", "name") and value != defaults[name].default
    }


def _check_scoring(scoring: str, length_norm: str, probability: str, labels: str | None) -> None:
    """Refuse options that the other scoring has."""
    if scoring == "letter" and length_norm != "none":
        raise UserError("--length-norm is for text scoring; add --scoring=text, or leave it out")
    if scoring == "text" and probability != "options":
        raise UserError("--probability=vocabulary is for letter scoring; leave it out for texts")
    if scoring == "text" and labels is not None:
        raise UserError("--labels is for letter scoring; leave it out for texts")


def _must_shuffle(entry: Benchmark | None, scoring: str) -> bool:
    """Where the right option always stands at the same place, a shown order would tell it."""
    return bool(entry and entry.one_place) and (
        scoring == "letter" or "{options}" in entry.prompt.text
    )


def _first_of_each(questions: list[Question], limit: int | None) -> list[Question]:
    """The first questions of each group, as lm-eval limits each task of a group."""
    counts: dict[str | None, int] = {}
    kept = []
    for question in questions:
        counts[question.group] = counts.get(question.group, 0) + 1
        if limit is None or counts[question.group] <= limit:
            kept.append(question)
    return kept


def _shot_pool(
    name: str,
    benchmark: tuple | None,
    shots_from: str | Path | None,
    data_dir: Path | None,
    columns: Mapping[str, Any] | str | None,
) -> tuple[list[Question], str]:
    """Questions to take solved examples from, and where they are from."""
    if shots_from is not None:
        return read_questions(_path(str(shots_from)), columns), str(shots_from)
    if benchmark and benchmark[0].shots_split:
        split = benchmark[0].shots_split
        return read_split(name, *benchmark, split, data_dir), f"the split {split} of {name}"
    raise UserError(
        f"{name} has no few-shot split of its own; name a file of solved questions with "
        "--shots-from FILE"
    )


def _default_scoring(name: str) -> str:
    return BUNDLED[name][2] if name in BUNDLED else "letter"


def _path(name: str) -> Path:
    """The file of a bundled name or of a path."""
    if name in BUNDLED:
        return Path(str(files("phaseprune.demo") / BUNDLED[name][0]))
    return _file(name)


def _one_of(option: str, value: str | None, allowed: tuple) -> None:
    if value not in allowed:
        names = [str(a) for a in allowed if a is not None]
        raise UserError(
            f"--{option} is {value!r} and must be one of {', '.join(names)}."
            + near_matches(str(value), names)
        )


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if suffix_of(path) or path.exists():
        if not path.is_file():
            siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            raise UserError(
                f"{name}: there is no such file of questions." + near_matches(path.name, siblings)
            )
        return path
    raise UserError(
        f"unknown task {name!r}: give {', '.join(BUNDLED)}, a name that `phaseprune tasks` lists, "
        f"{bridge.PREFIX}NAME, or the path of a {', '.join(SUFFIXES)} file."
        + near_matches(name, [*BUNDLED, *task_names()])
    )
