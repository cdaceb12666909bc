"""A long measurement, question by question in parts that a killed run need not repeat."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import write_json, write_with
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.scores import write_scores
from phaseprune.sweep.measure import Prepared, prepare, summarize_scores
from phaseprune.sweep.recorded import with_phases

#: Questions of a part.
PART = 64
#: An interval over questions needs more than one.
LEAST_QUESTIONS = 2

#: What a part holds: arrays with the questions first; ``base`` has ``[q, L+1, K]`` raw scores.
Part = dict[str, np.ndarray]


def refuse_few(task: Task) -> None:
    """Refuse a task of which no interval can be given.

    Raises:
        UserError: says how many questions are needed.
    """
    if len(task.questions) < LEAST_QUESTIONS:
        raise UserError(
            f"{task.name} has {len(task.questions)} question here and an interval needs at least "
            f"{LEAST_QUESTIONS}; raise --limit or give more questions"
        )


def measured_parts(
    run: RunDirectory,
    decoder: Decoder,
    task: Task,
    streams: int,
    measure: Callable[[Prepared, Progress], Part],
    progress: Progress = silent,
    label: str = "measure",
) -> Part:
    """Measure a task in parts of 64 questions; parts that the run holds are read back.

    Args:
        run: a part is written to its ``parts`` folder when it is done.
        decoder: the model.
        task: the questions.
        streams: states of each token that are run beside each other.
        measure: gives the part of some questions.
        progress: told of questions.
        label: for ``progress``.

    Returns:
        The parts behind each other, scores padded with ``-inf`` to the most options.
    """
    parts, total = [], len(task.questions)
    for first in range(0, total, PART):
        some = task.questions[first : first + PART]
        path = run.path / "parts" / f"{first:06d}.npz"
        part = _read(path)
        if part is None:
            began = time.perf_counter()

            def tell(_: str, done: float, of: float, first: int = first, count: int = len(some)):
                progress(label, first + count * done / max(of, 1), total)

            part = measure(prepare(decoder, task.with_questions(some), streams=streams), tell)
            write_with(path, lambda temporary, part=part: _write(temporary, part))
            run.add_timings(measure=time.perf_counter() - began)
        parts.append(part)
    return _together(parts)


def read_parts(run: RunDirectory) -> Part:
    """All parts that a finished run holds.

    Raises:
        UserError: one is missing or damaged.
    """
    parts = []
    for first in range(0, run.manifest["evaluation_questions"], PART):
        path = run.path / "parts" / f"{first:06d}.npz"
        part = _read(path)
        if part is None:
            raise UserError(f"{path}: cannot be read; delete the run and give its command again")
        parts.append(part)
    return _together(parts)


def _together(parts: list[Part]) -> Part:
    """Parts behind each other, scores padded with ``-inf`` to the most options."""
    width = max(part["base"].shape[-1] for part in parts)
    for part in parts:
        missing = width - part["base"].shape[-1]
        part["base"] = np.pad(part["base"], ((0, 0), (0, 0), (0, missing)), constant_values=-np.inf)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def parts_trace(
    run: RunDirectory,
    decoder: Decoder,
    prepared: Prepared,
    base: np.ndarray,
    seed: int,
    transition: Transition | None = None,
) -> Trace:
    """The full model's trace from the parts' scores, written where the run has none yet.

    With ``transition``, found on other questions, its phases are this one's.
    """
    trace = with_phases(summarize_scores(decoder, prepared, base, seed), transition)
    if not run.trace_path.exists():
        write_scores(run.scores_path, trace.question_ids, trace.decisions.columns(base))
        write_json(run.trace_path, trace.to_dict())
    return trace


def _write(path: Path, part: Part) -> None:
    with open(path, "wb") as handle:
        np.savez_compressed(handle, **part)


def _read(path: Path) -> Part | None:
    """A part; None where there is none, or a damaged one."""
    try:
        with np.load(path) as held:
            return dict(held)
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        return None
