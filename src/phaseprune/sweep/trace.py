"""``trace``: where a model makes up its mind, read by the logit lens or by a tuned one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from phaseprune.decision.trace import Trace, compare_lenses
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError, near_matches
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.arrays import read_arrays, write_arrays
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.scores import read_scores, write_scores
from phaseprune.sweep.measure import Prepared, prepare, summarize_scores
from phaseprune.sweep.recorded import read_trace, recorded_trace, run_identity
from phaseprune.sweep.tuned import (
    LensFit,
    TunedLens,
    check_calibration,
    fit_lens,
    scores_under_both,
)

LENSES = ("logit", "tuned")
#: Of a trace under a tuned lens, the scores under the plain one.
LOGIT_SCORES = "scores_logit.parquet"


def check_lens(lens: str, calibration: int | None) -> None:
    """Refuse an unknown lens, or questions for one that is not fitted.

    Raises:
        UserError: says which there are.
    """
    if lens not in LENSES:
        raise UserError(
            f"--lens is {lens!r} and must be one of {', '.join(LENSES)}."
            + near_matches(lens, LENSES)
        )
    if lens == "logit" and calibration is not None:
        raise UserError(
            "--calibration goes with --lens=tuned, which is fitted to those questions; add that or "
            "leave it out"
        )


def split_for(
    lens: str, task: Task, calibration: int | None, seed: int
) -> tuple[Task | None, Task]:
    """The questions that a lens is fitted to (none for the logit lens), and those that are traced.

    Raises:
        UserError: too few of either.
    """
    check_lens(lens, calibration)
    if lens == "logit":
        return None, task
    fitted, traced = split(task, calibration, None, seed)
    check_calibration(fitted)
    return fitted, traced


def trace(
    decoder: Decoder,
    task: Task,
    *,
    lens: str = "logit",
    calibration: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Trace:
    """Decision Margin, Option Frequency and accuracy at every readout, and the transition.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``.
        lens: ``logit`` reads hidden states as they are; ``tuned`` through an affine map a readout,
            which is fitted to some of the questions; the others are traced.
        calibration: of ``tuned``, how many to fit to; by default a third of them, at most 64.
        seed: of the split, the fit, the intervals and tests.
        out: the run directory that keeps the trace; one that has it already is read back.
        arguments: the command line, for its manifest.
        progress: told of each block.

    Raises:
        UserError: an unknown lens, too few questions for it, a question that cannot be put to this
            model, a block that gives NaN, or a directory that holds another run.
    """
    fitted, traced = split_for(lens, task, calibration, seed)
    prepared = prepare(decoder, traced, streams=1)
    if out is None:
        return _trace(None, decoder, fitted, prepared, seed, progress)
    run = RunDirectory(Path(out))
    options, counts = {}, {"evaluation_questions": len(traced.questions)}
    if fitted is not None:
        counts = {"calibration_questions": len(fitted.questions), **counts}
        options = {"lens": lens, **counts}
    with run.open(
        run_identity("trace", decoder, task, seed, options),
        {"arguments": arguments, **counts, **prepared.input_counts},
    ) as state:
        found = _trace(run, decoder, fitted, prepared, seed, progress)
        if state != "finished":
            run.update(status="finished")
    return replace(found, state=state)


def open_trace(run: RunDirectory) -> Trace:
    """What ``trace`` kept in a run directory, without the model or its questions."""
    return replace(read_trace(run), state="finished")


def _trace(
    run: RunDirectory | None,
    decoder: Decoder,
    fitted: Task | None,
    prepared: Prepared,
    seed: int,
    progress: Progress,
) -> Trace:
    if fitted is None:
        return recorded_trace(run, decoder, prepared, seed, progress)
    return _tuned_trace(run, decoder, fitted, prepared, seed, progress)


def _tuned_trace(
    run: RunDirectory | None,
    decoder: Decoder,
    fitted: Task,
    prepared: Prepared,
    seed: int,
    progress: Progress,
) -> Trace:
    """A trace under a tuned lens: read back where the run has it, else measured and written.

    The maps are kept in ``lens.safetensors`` as soon as they are fitted.
    """
    fit = _fit(run, decoder, fitted, seed, progress)
    if run is not None and run.trace_path.exists():  # written last, so both files of scores are too
        shape = prepared.task.options, len(decoder.blocks) + 1
        paths = run.path / LOGIT_SCORES, run.scores_path
        return _summarize(decoder, prepared, fit, *(read_scores(p, *shape) for p in paths), seed)
    began = time.perf_counter()
    plain, tuned = scores_under_both(
        decoder, prepared.rows, prepared.needs_vocabulary, fit.lens, progress
    )
    trace = _summarize(decoder, prepared, fit, plain, tuned, seed)
    if run is not None:
        columns = prepared.decide(plain).columns(plain)
        write_scores(run.path / LOGIT_SCORES, trace.question_ids, columns)
        write_scores(run.scores_path, trace.question_ids, trace.decisions.columns(tuned))
        write_json(run.trace_path, trace.to_dict())
        run.add_timings(trace=time.perf_counter() - began)
    return trace


def _fit(
    run: RunDirectory | None, decoder: Decoder, task: Task, seed: int, progress: Progress
) -> LensFit:
    if run is None:
        return fit_lens(decoder, task, seed=seed, progress=progress)
    path = run.path / "lens.safetensors"
    if not path.exists():
        began = time.perf_counter()
        fit = fit_lens(decoder, task, seed=seed, progress=progress)
        write_arrays(
            path,
            {
                "weight": fit.lens.weight.numpy(),
                "bias": fit.lens.bias.numpy(),
                "kl_logit": fit.kl_logit.numpy(),
                "kl_tuned": fit.kl_tuned.numpy(),
                "questions": np.array([fit.questions, fit.held_questions]),
            },
        )
        run.add_timings(lens=time.perf_counter() - began)
    kept = read_arrays(path)
    tensors = {name: torch.from_numpy(array) for name, array in kept.items()}
    return LensFit(
        TunedLens(tensors["weight"], tensors["bias"]),
        *map(int, kept["questions"]),
        kl_logit=tensors["kl_logit"],
        kl_tuned=tensors["kl_tuned"],
    )


def _summarize(
    decoder: Decoder,
    prepared: Prepared,
    fit: LensFit,
    plain: np.ndarray,
    tuned: np.ndarray,
    seed: int,
) -> Trace:
    """The tuned lens's trace, with what the logit lens says beside it."""
    trace = summarize_scores(decoder, prepared, tuned, seed)
    other = summarize_scores(decoder, prepared, plain, seed)
    compared = compare_lenses(
        trace,
        other,
        calibration_questions=fit.questions + fit.held_questions,
        kl_logit=fit.kl_logit.double().numpy(),
        kl_tuned=fit.kl_tuned.double().numpy(),
        seed=seed,
    )
    return replace(trace, lens=compared)
