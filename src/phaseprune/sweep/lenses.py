"""Traces under a tuned lens, with the plain logit lens beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from phaseprune.decision.lens import compare_lenses
from phaseprune.decision.trace import Trace
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.lens import TunedLens
from phaseprune.errors import UserError, near_matches
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.arrays import read_arrays, write_arrays
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.scores import read_scores, write_scores
from phaseprune.sweep.measure import Prepared, prepare, summarize_scores
from phaseprune.sweep.measure import trace as trace_logit
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.scoring import read_into
from phaseprune.sweep.tuned import LensFit, check_calibration, fit_lens
from phaseprune.sweep.walk import PassCounter, walk

LENSES = ("logit", "tuned")


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
            "--calibration goes with --lens tuned, which is fitted to those questions; add that or "
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
        progress: told of each block.

    Raises:
        UserError: an unknown lens, too few questions for it, a question that cannot be put to this
            model, or a block that gives NaN.
    """
    fitted, traced = split_for(lens, task, calibration, seed)
    if fitted is None:
        return trace_logit(decoder, traced, seed=seed, progress=progress)
    prepared = prepare(decoder, traced, streams=1)
    fit = fit_lens(decoder, fitted, seed=seed, progress=progress)
    both = scores_under_both(decoder, prepared.rows, prepared.needs_vocabulary, fit.lens, progress)
    return _summarize(decoder, prepared, fit, *both, seed)


@torch.no_grad()
def scores_under_both(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    lens: TunedLens,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Option scores of the full model at every readout under both lenses, in one pass.

    Returns:
        ``[Q, L+1, K]`` raw scores of the logit lens and of the tuned one; ``-inf`` where an option
        is absent. The last readout's are the same.

    Raises:
        UserError: a block gives NaN; names the block and a question.
    """
    questions, options = rows.shape
    count = len(decoder.blocks)
    sums = torch.zeros(2, count + 1, questions * options, dtype=torch.float64)
    tell = PassCounter(progress, "trace", len(rows.batches) * count)
    for shard in rows.shards:
        for here in walk(decoder, shard, progress=tell):
            plain = here.at_reads()
            both = torch.cat([plain, lens(here.number, plain)])
            read_into(decoder, shard, both, needs_vocabulary, sums[:, here.number],
                      [here.block] * 2, options)  # fmt: skip
    scores = sums.numpy().reshape(2, count + 1, questions, options).transpose(0, 2, 1, 3)
    # In the order in which scores are read back, so that means of them are rounded alike.
    scores = np.ascontiguousarray(scores) / rows.repeats[:, None, None]
    scores[np.broadcast_to(rows.absent[:, None], scores.shape)] = -np.inf
    return scores[0], scores[1]


def tuned_trace(
    run: RunDirectory,
    decoder: Decoder,
    fitted: Task,
    prepared: Prepared,
    seed: int,
    progress: Progress = silent,
) -> Trace:
    """A trace under a tuned lens: read back where the run has it, else measured and written.

    The maps are kept in ``lens.safetensors`` as soon as they are fitted.
    """
    plain_path = run.path / "scores_logit.parquet"
    fit = _fit(run, decoder, fitted, seed, progress)
    if run.trace_path.exists():  # written last, so both files of scores are there too
        shape = prepared.task.options, len(decoder.blocks) + 1
        plain, tuned = read_scores(plain_path, *shape), read_scores(run.scores_path, *shape)
        return _summarize(decoder, prepared, fit, plain, tuned, seed)
    began = time.perf_counter()
    plain, tuned = scores_under_both(
        decoder, prepared.rows, prepared.needs_vocabulary, fit.lens, progress
    )
    trace = _summarize(decoder, prepared, fit, plain, tuned, seed)
    write_scores(plain_path, trace.question_ids, prepared.decide(plain).columns(plain))
    write_scores(run.scores_path, trace.question_ids, trace.decisions.columns(tuned))
    write_json(run.trace_path, trace.to_dict())
    run.add_timings(trace=time.perf_counter() - began)
    return trace


def _fit(run: RunDirectory, decoder: Decoder, task: Task, seed: int, progress: Progress) -> LensFit:
    path: Path = run.path / "lens.safetensors"
    if not path.exists():
        began = time.perf_counter()
        fit = fit_lens(decoder, task, seed=seed, progress=progress)
        write_arrays(path, {
            "weight": fit.lens.weight.numpy(), "bias": fit.lens.bias.numpy(),
            "kl_logit": fit.kl_logit.numpy(), "kl_tuned": fit.kl_tuned.numpy(),
            "questions": np.array([fit.questions, fit.held_questions]),
        })  # fmt: skip
        run.add_timings(lens=time.perf_counter() - began)
    kept = read_arrays(path)
    tensors = {name: torch.from_numpy(array) for name, array in kept.items()}
    return LensFit(
        TunedLens(tensors["weight"], tensors["bias"]), *map(int, kept["questions"]),
        kl_logit=tensors["kl_logit"], kl_tuned=tensors["kl_tuned"],
    )  # fmt: skip


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
        trace, other, calibration_questions=fit.questions + fit.held_questions,
        kl_logit=fit.kl_logit.double().numpy(), kl_tuned=fit.kl_tuned.double().numpy(), seed=seed,
    )  # fmt: skip
    return replace(trace, lens=compared)
