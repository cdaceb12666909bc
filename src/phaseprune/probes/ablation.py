"""``ablate``: single blocks replaced by their mean, swapped or repeated, beside their removal."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.intervals import Interval
from phaseprune.decision.perturbation import accuracy_with_interval, mean_with_interval
from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError, near_matches
from phaseprune.probes.parts import Part, measured_parts, parts_trace, read_parts, refuse_few
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, draw, number, of_interval
from phaseprune.sweep.branches import (
    KINDS,
    ablated_blocks,
    ablation_births,
    ablation_order,
    branch_scores,
    mean_contributions,
)
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.recorded import phases_option, read_trace, run_identity


@dataclass(frozen=True, repr=False)
class Ablation(Result):
    """What an ablation of each block does to the decisions at the output, beside its removal.

    Attributes:
        kind: ``mean``, ``swap`` or ``repeat``.
        trace: of the whole model on the evaluation questions.
        blocks: ``[B]`` the ablated blocks, original indices; a swap is with the next one.
        decision_margin: ``[B]`` of the ablated models; ``accuracy`` the same.
        removal_margin: ``[B]`` without the block; ``removal_accuracy`` the same.
        difference: ``[B]`` the ablated model's margin less that without the block, question by
            question; intervals are not corrected for the number of blocks.
        block_passes: counted runs of one block over all evaluation rows.
        calibration_questions: that the mean contributions are of; 0 for other kinds.
        state: whether the run was ``new``, ``resumed`` or ``finished`` before.
    """

    kind: str
    trace: Trace
    blocks: np.ndarray
    decision_margin: Interval
    accuracy: Interval
    removal_margin: Interval
    removal_accuracy: Interval
    difference: Interval
    block_passes: int
    calibration_questions: int
    margins: np.ndarray = field(repr=False)
    state: str = field(default="new")

    def to_dict(self) -> dict[str, Any]:
        """The content of ``ablation.json``: plain JSON values."""
        trace = self.trace.to_dict()
        figures = (
            "decision_margin",
            "accuracy",
            "removal_margin",
            "removal_accuracy",
            "difference",
        )
        return {
            **{
                key: trace[key]
                for key in ("model", "task", "scoring", "questions", "chance", "transition")
            },
            "kind": self.kind,
            "calibration_questions": self.calibration_questions,
            "full": {
                name: {part: values[-1] for part, values in trace[name].items()}
                for name in ("decision_margin", "accuracy")
            },
            "blocks": self.blocks.tolist(),
            "phases": [self.trace.transition.phase(block) for block in self.blocks.tolist()],
            **{
                name: {k: v.tolist() for k, v in asdict(getattr(self, name)).items()}
                for name in figures
            },
            "block_passes": self.block_passes,
        }

    def plot(self):
        """A matplotlib figure of the Decision Margin by the ablated block."""
        return draw("ablation_figure", self.to_dict())

    def _lines(self) -> list[str]:
        trace, margin = self.trace, self.decision_margin.mean
        worst = int(margin.argmin())
        return [
            f"{trace.model} on {trace.task} ({len(trace.question_ids)} questions, "
            f"{trace.scoring}; {self.kind})",
            f"the Decision Margin falls most at block {self.blocks[worst]}, from "
            f"{number(trace.decision_margin.mean[-1], '+')} to {number(margin[worst], '+')}",
            f"removal costs more at {int((self.difference.ci_low > 0).sum())} of "
            f"{len(self.blocks)} blocks, less at {int((self.difference.ci_high < 0).sum())}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a block."""
        return [
            {
                "block": block,
                "phase": self.trace.transition.phase(block),
                **of_interval("decision_margin", self.decision_margin, place),
                **of_interval("removal_margin", self.removal_margin, place),
                **of_interval("difference", self.difference, place),
                **of_interval("accuracy", self.accuracy, place),
                **of_interval("removal_accuracy", self.removal_accuracy, place),
            }
            for place, block in enumerate(self.blocks.tolist())
        ]


def read_ablation(run: RunDirectory) -> Ablation:
    """What a finished run holds; the figures are those of its parts."""
    manifest, trace = run.manifest, read_trace(run)
    kind = manifest["options"]["kind"]
    order = ablation_order(kind, len(trace.readouts) - 1)
    return _summary(kind, trace, read_parts(run), order, manifest, manifest["seed"], "finished")


def check_kind(kind: str) -> None:
    """Refuse a kind of ablation that there is not.

    Raises:
        UserError: names those that there are.
    """
    if kind not in KINDS:
        raise UserError(
            f"unknown kind {kind!r}; the kinds are {', '.join(KINDS)}.{near_matches(kind, KINDS)}"
        )


def ablate(
    decoder: Decoder,
    task: Task,
    *,
    kind: str = "mean",
    calibration: int | None = None,
    evaluation: int | None = None,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Ablation:
    """Ablate each block in turn, and read the output's decisions; all blocks in one walk.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; split by seed. The figures are of the evaluation questions; only
            ``mean`` looks at the calibration ones.
        kind: ``mean`` puts the mean of block(h) - h over the calibration tokens in its place,
            ``swap`` runs a block after the next one, ``repeat`` runs it twice.
        calibration: number of questions to take means on.
        evaluation: number of questions to report on.
        seed: of the split and of all intervals.
        transition: the phases, where they were found on other (more) questions; by default they
            are found on the evaluation questions.
        out: run directory, as of ``perturb``.
        arguments: the command line, for the manifest.
        progress: told of block passes and questions.

    Raises:
        UserError: a kind or questions that do not do, a stream that gives NaN, or a directory with
            another run.
    """
    check_kind(kind)
    count = len(decoder.blocks)
    if kind == "swap" and count < 2:
        raise UserError(f"{decoder.name} has one block, and a swap needs two; use another --kind")
    calibration_task, evaluation_task = split(task, calibration, evaluation, seed)
    refuse_few(evaluation_task)
    order, streams = ablation_order(kind, count), ablation_births(kind, count).streams
    calibration_rows = prepare(decoder, calibration_task, streams=1)
    prepared = prepare(decoder, evaluation_task, streams=streams)
    counts = {
        "calibration_questions": len(calibration_task.questions) if kind == "mean" else 0,
        "evaluation_questions": len(evaluation_task.questions),
    }
    means: list = []

    def measure(some: Prepared, tell: Progress) -> Part:
        if kind == "mean" and not means:
            means.extend(mean_contributions(decoder, calibration_rows.rows, progress=progress))
        found = branch_scores(
            decoder,
            some.rows,
            some.needs_vocabulary,
            ablation_births(kind, count, means),
            progress=tell,
        )
        decisions = some.decide(found.scores)
        return {
            "base": found.base,
            "margins": decisions.margins,
            "correct": decisions.correct,
            "block_passes": np.full(len(found.base), found.block_passes),
        }

    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        with run.open(
            run_identity(
                "ablate", decoder, task, seed, {"kind": kind} | counts | phases_option(transition)
            ),
            {"arguments": arguments, **counts, **prepared.input_counts},
        ) as state:
            parts = measured_parts(
                run, decoder, evaluation_task, streams, measure, progress, f"{kind}, questions"
            )
            trace = parts_trace(run, decoder, prepared, parts["base"], seed, transition)
            result = _summary(kind, trace, parts, order, counts, seed, state)
            if state != "finished":
                write_json(run.path / "ablation.json", result.to_dict())
                run.update(status="finished")
    return result


def _summary(kind, trace: Trace, parts: Part, order, counts, seed: int, state: str) -> Ablation:
    blocks = ablated_blocks(kind, len(trace.readouts) - 1)
    places = {name: [order.index((name, block)) for block in blocks] for name in ("removal", kind)}
    margins = {name: parts["margins"][:, some] for name, some in places.items()}
    correct = {name: parts["correct"][:, some].astype(float) for name, some in places.items()}
    return Ablation(
        kind=kind,
        trace=trace,
        blocks=np.array(blocks),
        decision_margin=mean_with_interval(margins[kind], seed),
        accuracy=accuracy_with_interval(correct[kind]),
        removal_margin=mean_with_interval(margins["removal"], seed),
        removal_accuracy=accuracy_with_interval(correct["removal"]),
        difference=mean_with_interval(margins[kind] - margins["removal"], seed),
        block_passes=int(parts["block_passes"].max()),
        calibration_questions=counts["calibration_questions"],
        margins=margins[kind],
        state=state,
    )
