"""``perturb``: noise at every readout, and what the decisions at the output make of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.intervals import Interval
from phaseprune.decision.perturbation import (
    PAPER,
    Curve,
    accuracy_with_interval,
    curve,
    mean_with_interval,
    phase_curves,
    phase_difference,
)
from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.probes.parts import Part, measured_parts, parts_trace, read_parts, refuse_few
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, draw, of_interval, transition_line
from phaseprune.sweep.branches import branch_scores, noise_births
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.recorded import phases_option, read_trace, run_identity

#: Variances sigma^2 = eps^2 of the noise, in units of the variance of a token's state.
DEFAULT_NOISE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DEFAULT_SEEDS = 3


@dataclass(frozen=True, repr=False)
class Perturbation(Result):
    """What noise at each readout does to the decisions at the output.

    Attributes:
        trace: of the model without noise, on the same questions.
        noise: ``[N]`` variances, ascending; the first one is 0, the model itself.
        noise_seeds: draws of noise that figures are means over.
        decision_margin: at the output, ``[L+1, N]`` by the readout of the noise.
        accuracy: the same.
        by_readout: the curve of each readout, with the noise that halves its margin.
        by_phase: ``silent`` and ``decisive``, each over its readouts; empty without a transition.
        phase_difference: ``[N]`` margin with noise at Decisive readouts less that at Silent ones,
            question by question; None without a transition.
        block_passes: counted runs of one block over all rows.
        margins: ``[Q, L+1, N]`` mean over the draws.
        state: whether the run was ``new``, ``resumed`` or ``finished`` before.
    """

    trace: Trace
    noise: np.ndarray
    noise_seeds: int
    decision_margin: Interval
    accuracy: Interval
    by_readout: tuple[Curve, ...]
    by_phase: dict[str, Curve]
    phase_difference: Interval | None
    block_passes: int
    margins: np.ndarray = field(repr=False)
    state: str = field(default="new")

    def to_dict(self) -> dict[str, Any]:
        """The content of ``perturbation.json``: plain JSON values."""
        trace, blocks = self.trace.to_dict(), len(self.trace.readouts) - 1
        return {
            **{
                key: trace[key]
                for key in (
                    "model",
                    "task",
                    "scoring",
                    "questions",
                    "blocks",
                    "readouts",
                    "chance",
                    "transition",
                )
            },
            "noise": self.noise.tolist(),
            "noise_seeds": self.noise_seeds,
            "decision_margin": {k: v.tolist() for k, v in asdict(self.decision_margin).items()},
            "accuracy": {k: v.tolist() for k, v in asdict(self.accuracy).items()},
            "halving": [
                {"readout": curve.readouts[0], **asdict(curve.halving)} for curve in self.by_readout
            ],
            "phases": {name: curve.to_dict() for name, curve in self.by_phase.items()},
            "phase_difference": self.phase_difference
            and {k: v.tolist() for k, v in asdict(self.phase_difference).items()},
            "paper": PAPER,
            "block_passes": self.block_passes,
            "block_passes_bound": most_passes(len(self.noise) - 1, self.noise_seeds, blocks),
        }

    def plot(self):
        """A matplotlib figure of the Decision Margin by the readout of the noise."""
        return draw("perturbation_figure", self.to_dict())

    def _lines(self) -> list[str]:
        trace = self.trace
        lines = [
            f"{trace.model} on {trace.task} ({len(trace.question_ids)} questions, "
            f"{trace.scoring}; {self.noise_seeds} draws of noise)"
        ]
        for phase, one in self.by_phase.items():
            half = one.halving
            found = f"sigma^2 = {(half.value or 0):.2g} halves the Decision Margin"
            lines.append(f"{phase.capitalize()} Phase: {half.reason or found}")
        if not self.by_phase:
            lines.append(transition_line(trace.transition.to_dict(), len(trace.readouts) - 1))
        return lines

    def _rows(self) -> list[dict[str, Any]]:
        """A row a readout and level of noise."""
        return [
            {
                "readout": readout,
                "noise": float(level),
                **of_interval("decision_margin", self.decision_margin, (readout, place)),
                **of_interval("accuracy", self.accuracy, (readout, place)),
            }
            for readout in range(len(self.by_readout))
            for place, level in enumerate(self.noise)
        ]


def read_perturbation(run: RunDirectory) -> Perturbation:
    """What a finished run holds; the figures are those of its parts."""
    manifest = run.manifest
    options, seed = manifest["options"], manifest["seed"]
    return _summary(
        read_trace(run), read_parts(run), options["noise"], options["noise_seeds"], seed, "finished"
    )


def most_passes(levels: int, seeds: int, blocks: int) -> int:
    """(levels x seeds + 1) times the block passes of one exact pruning step."""
    return (levels * seeds + 1) * blocks * (blocks + 1) // 2


def noise_levels(noise: Sequence[float]) -> tuple[float, ...]:
    """The variances in order, each once, without 0 (which is the model itself).

    Raises:
        UserError: a variance is negative or no number, or none is above 0.
    """
    levels = []
    for value in noise:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise UserError(
                f"--noise takes variances such as 0.01,0.05, and {value!r} is no number"
            )
        if not math.isfinite(value) or value < 0:
            raise UserError(
                f"--noise takes variances of 0 or more (sigma^2 = eps^2), not {float(value):g}"
            )
        levels.append(float(value))
    levels = sorted({level for level in levels if level > 0})
    if not levels:
        raise UserError("--noise names no variance above 0; give one or more, as 0.01,0.05")
    return tuple(levels)


def check_seeds(noise_seeds: int) -> None:
    """Refuse a number of draws that is none.

    Raises:
        UserError: it is below 1.
    """
    if not isinstance(noise_seeds, int) or noise_seeds < 1:
        raise UserError(f"--noise-seeds must be a whole number of at least 1, not {noise_seeds}")


def perturb(
    decoder: Decoder,
    task: Task,
    *,
    noise: Sequence[float] = DEFAULT_NOISE,
    noise_seeds: int = DEFAULT_SEEDS,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Perturbation:
    """Put noise h + eps * sigma(h) * N(0, I) in at each readout, and read the output's decisions.

    sigma(h) is the standard deviation over the hidden units of one token's state; the noise is put
    in at all tokens (arXiv 2605.07271, whose details docs/perturbation.md fills in).

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``.
        noise: variances sigma^2 = eps^2; 0, the model itself, is always there and costs nothing.
        noise_seeds: draws of noise, each at every readout; figures are means over them.
        seed: of the noise and of all intervals.
        transition: the phases, where they were found on other (more) questions; by default they
            are found on these.
        out: run directory; an unfinished run in it goes on, a finished one is read. None keeps
            nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of questions.

    Raises:
        UserError: levels or questions that do not do, a stream that gives NaN, or a directory with
            another run.
    """
    levels = noise_levels(noise)
    check_seeds(noise_seeds)
    refuse_few(task)
    blocks = len(decoder.blocks)
    births = noise_births(blocks, levels, noise_seeds, seed)
    prepared = prepare(decoder, task, streams=births.streams)
    options = {"noise": list(levels), "noise_seeds": noise_seeds}

    def measure(some: Prepared, tell: Progress) -> Part:
        found = branch_scores(decoder, some.rows, some.needs_vocabulary, births, progress=tell)
        decisions = some.decide(found.scores)
        shape = (-1, blocks + 1, noise_seeds, len(levels))
        return {
            "base": found.base,
            "margins": decisions.margins.reshape(shape),
            "correct": decisions.correct.reshape(shape),
            "block_passes": np.full(len(found.base), found.block_passes),
        }

    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        with run.open(
            run_identity("perturb", decoder, task, seed, options | phases_option(transition)),
            {
                "arguments": arguments,
                "evaluation_questions": len(task.questions),
                **prepared.input_counts,
            },
        ) as state:
            parts = measured_parts(
                run, decoder, task, births.streams, measure, progress, "noisy streams, questions"
            )
            trace = parts_trace(run, decoder, prepared, parts["base"], seed, transition)
            result = _summary(trace, parts, levels, noise_seeds, seed, state)
            if state != "finished":
                write_json(run.path / "perturbation.json", result.to_dict())
                run.update(status="finished")
    return result


def _summary(
    trace: Trace, parts: Part, levels: Sequence[float], noise_seeds: int, seed: int, state: str
) -> Perturbation:
    """The figures of all questions, the model without noise put before the levels."""
    noise = np.array([0.0, *levels])
    margins = _with_clean(trace.decisions.margins, parts["margins"])
    correct = _with_clean(trace.decisions.correct, parts["correct"])
    return Perturbation(
        trace=trace,
        noise=noise,
        noise_seeds=noise_seeds,
        decision_margin=mean_with_interval(margins, seed),
        accuracy=accuracy_with_interval(correct),
        by_readout=tuple(
            curve(margins, noise, [readout], seed) for readout in range(margins.shape[1])
        ),
        by_phase=phase_curves(margins, noise, trace.transition, seed),
        phase_difference=phase_difference(margins, trace.transition, seed),
        block_passes=int(parts["block_passes"].max()),
        margins=margins,
        state=state,
    )


def _with_clean(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """``[Q, R, N]`` means over draws of ``[Q, R, S, V]``, the output's clean figure first."""
    means = noisy.astype(np.float64).mean(axis=2)
    first = np.broadcast_to(clean[:, -1:, None].astype(np.float64), (*means.shape[:2], 1))
    return np.concatenate([first, means], axis=-1)
