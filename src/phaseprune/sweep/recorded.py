"""Traces in run directories: begun, written, and read back instead of measured again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from phaseprune.decision.decisions import Decisions
from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import read_json, write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.scores import read_all_scores, read_scores, write_scores
from phaseprune.sweep.measure import Prepared, summarize_scores
from phaseprune.sweep.walk import trace_scores


def run_identity(
    command: str, decoder: Decoder, task: Task, seed: int, options: dict[str, Any]
) -> dict[str, Any]:
    """The parts of a manifest that say which run it is (``runs.directory.IDENTITY``)."""
    return {
        "command": command,
        "model": {
            "name": decoder.name,
            "family": decoder.family,
            "blocks": len(decoder.blocks),
            "dtype": str(decoder.dtype).removeprefix("torch."),
            **decoder.source.identity,
        },
        "task": task.identity,
        "prompt_format": task.prompt_format,
        "seed": seed,
        "options": options,
    }


def sides_counted(
    calibration: Prepared, evaluation: Prepared
) -> tuple[dict[str, int], dict[str, int]]:
    """How many questions a run chooses and reports on, and how all of them were put."""
    counts = {
        "calibration_questions": len(calibration.task.questions),
        "evaluation_questions": len(evaluation.task.questions),
    }
    inputs = {
        name: count + evaluation.input_counts[name]
        for name, count in calibration.input_counts.items()
    }
    return counts, inputs


def tasks_identity(
    command: str,
    decoder: Decoder,
    tasks: Sequence[Task],
    folders: Sequence[str],
    sides: Sequence[tuple[Task, Task]],
    seed: int,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The same of a run of several tasks, each with calibration and evaluation questions."""
    counts = {
        f"{side} questions of {folder}": len(part.questions)
        for folder, both in zip(folders, sides, strict=True)
        for side, part in zip(("calibration", "evaluation"), both, strict=True)
    }
    told = {
        f"{folder} {key}": value
        for folder, task in zip(folders, tasks, strict=True)
        for key, value in task.identity.items()
        if key != "name"
    }
    return run_identity(command, decoder, tasks[0], seed, options | counts) | {
        "task": {"name": ", ".join(task.name for task in tasks), **told},
        "prompt_format": "; ".join(dict.fromkeys(task.prompt_format for task in tasks)),
    }


def recorded_trace(
    run: RunDirectory | None,
    decoder: Decoder,
    prepared: Prepared,
    seed: int,
    progress: Progress = silent,
    label: str = "trace",
    transition: Transition | None = None,
) -> Trace:
    """The full model's trace: read back where the run has it, else measured and written.

    Without a run it is measured alone. With ``transition``, found on other questions, its phases
    are this one's.
    """
    began, measured = time.perf_counter(), run is None or not run.scores_path.exists()
    if measured:
        raw = trace_scores(
            decoder, prepared.rows, prepared.needs_vocabulary, progress=progress, label=label
        )
    else:
        raw = read_scores(run.scores_path, prepared.task.options, len(decoder.blocks) + 1)
    trace = with_phases(summarize_scores(decoder, prepared, raw, seed), transition)
    if run is None:
        return trace
    if measured:
        write_scores(run.scores_path, trace.question_ids, trace.decisions.columns(raw))
        run.add_timings(trace=time.perf_counter() - began)
    if not run.trace_path.exists():
        write_json(run.trace_path, trace.to_dict())
    return trace


def with_phases(trace: Trace, transition: Transition | None) -> Trace:
    """The trace with a transition that was found on other questions, where one is given."""
    return trace if transition is None else replace(trace, transition=transition)


def phases_option(transition: Transition | None) -> dict[str, Any]:
    """What a run's identity says of phases that were found on other questions."""
    return {} if transition is None else {"phases_from": transition.readout}


def read_trace(run: RunDirectory) -> Trace:
    """The trace that a run has written, without a model or its questions.

    Of texts that are compared by length, ``decisions.scores`` are log-probabilities: the scores
    less a constant for each question and readout, on which no decision depends.

    Raises:
        UserError: it has none, or files that cannot be read.
    """
    content = read_json(run.trace_path)
    kept, task = read_all_scores(run.scores_path), run.manifest["task"]
    plain = task["length_norm"] == "none"
    with np.errstate(divide="ignore"):
        scores = kept.score if plain else np.log(kept.probability)
    given = None if plain and task["probability"] == "options" else kept.probability
    decisions = Decisions(scores, kept.gold, kept.options, given, content["scoring"] == "letter")
    return Trace.from_dict(content, kept.question_ids, decisions, kept.score)
