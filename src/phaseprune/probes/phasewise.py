"""Phase-wise pruning: random sets of blocks from one phase alone (arXiv 2605.07271).

The paper's central claim is that blocks of the Silent Phase matter and those of the Decisive Phase
hardly do. Sets of m blocks are removed at once from the Silent Phase only, from the Decisive Phase
only, and from anywhere, and retained accuracy is compared at equal m. As Silent blocks are early
ones, further sets control for depth (``phasewise_sets``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.rankings import removable
from phaseprune.decision.trace import Trace
from phaseprune.decision.transition import Transition
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.probes.phasewise_result import conclude, right, scored
from phaseprune.probes.phasewise_sets import drawn_sets, kinds_of, most_sets
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, bounds, draw, with_bounds
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.recorded import (
    phases_option,
    read_trace,
    recorded_trace,
    run_identity,
    sides_counted,
)
from phaseprune.sweep.walk import set_scores

DEFAULT_DRAWS = 20


@dataclass(frozen=True, repr=False)
class Phasewise(Result):
    """Random sets removed by phase, and how the phases differ.

    Attributes:
        trace: of the full model on the calibration questions: it says which blocks are of which
            phase.
        lines: one a scored set, as in ``candidates.jsonl``.
        result: that of the manifest.
        state: ``new``, ``resumed`` or ``finished`` before.
    """

    trace: Trace
    lines: list[dict[str, Any]]
    result: dict[str, Any]
    state: str = field(default="new")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: trace and result."""
        return {"trace": self.trace.to_dict(), "result": self.result}

    def plot(self):
        """A matplotlib figure of retained accuracy by phase and number of removed blocks."""
        return draw("phasewise_figure", self.result)

    def _lines(self) -> list[str]:
        told, of = self.result, self.result["pooled"]
        phases = {name: len(blocks) for name, blocks in told["phases"].items()}
        return [
            f"{self.trace.model} on {self.trace.task} ({told['questions']} questions, "
            f"{self.trace.scoring})",
            f"{phases['silent']} Silent and {phases['decisive']} Decisive blocks, "
            f"1 to {told['most']} removed at once, {len(self.lines) - 1} sets",
            "retained without Decisive less without Silent blocks: "
            f"{with_bounds(of['difference'], of['difference_ci'])}, p = {of['p_value']:.2g}",
            f"that Silent blocks matter and Decisive ones hardly: {told['verdict']}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a number of removed blocks and kind of set."""
        return [
            {
                "removed_blocks": row["removed_blocks"],
                "kind": kind,
                "sets": of["sets"],
                "accuracy": of["accuracy"],
                "retained": of["retained"],
                **bounds("retained", of["retained_ci"]),
                "decision_margin": of["decision_margin"],
                "all_sets": of["all_sets"],
            }
            for row in self.result["by_removed"]
            for kind, of in row.items()
            if isinstance(of, dict)
        ]


def read_phasewise(run: RunDirectory) -> Phasewise:
    """What a finished run holds."""
    return Phasewise(read_trace(run), run.candidates(), run.manifest["result"], "finished")


def phasewise(
    decoder: Decoder,
    task: Task,
    *,
    draws: int = DEFAULT_DRAWS,
    most: int | None = None,
    protect: Collection[int] = (),
    calibration: int | None = None,
    evaluation: int | None = None,
    seed: int = 0,
    transition: Transition | None = None,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Phasewise:
    """Remove random sets of 1, 2, … blocks from either phase and from anywhere, and compare.

    Every single block is removed once. Further sets leave the first blocks out, are drawn equally
    near to the transition on both sides, or follow each other: they say whether a difference
    between the phases is one of depth (``result["controlled"]``, ``result["regression"]``).

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``; its questions are split by seed.
        draws: sets of each kind and number; no set twice, all sets where there are fewer.
        most: largest number of blocks removed at once; by default the size of the smaller phase.
        protect: original indices of blocks that are never removed.
        calibration: number of questions that the phases are found on.
        evaluation: number of other questions that all accuracies are of.
        seed: of the split, of the sets, and of all intervals.
        transition: the phases, where they were found on other (more) questions; by default they
            are found on the calibration questions.
        out: run directory; an unfinished run in it goes on. None keeps nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, no transition on the calibration questions,
            or a directory with another run.
    """
    check_draws(draws, most)
    free = removable(len(decoder.blocks), protect)
    protect = sorted(set(protect))
    calibration_task, evaluation_task = split(task, calibration, evaluation, seed)
    traced_rows = prepare(decoder, calibration_task, streams=1)
    # Half as many again: a stream that both runs and skips a block is copied.
    rows = prepare(decoder, evaluation_task, streams=1 + 3 * most_sets(len(free), draws) // 2)
    counts, inputs = sides_counted(traced_rows, rows)
    identity = run_identity(
        "phasewise",
        decoder,
        task,
        seed,
        {"draws": draws, "most": most, "protect": protect} | counts | phases_option(transition),
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDirectory(Path(scratch if out is None else out))
        with run.open(identity, {"arguments": arguments, **counts, **inputs}) as state:
            trace = recorded_trace(
                run,
                decoder,
                traced_rows,
                seed,
                progress,
                "full model, calibration questions",
                transition,
            )
            largest = _largest(trace.transition, most, protect, calibration_task)
            if state != "finished":
                _score(
                    run, decoder, rows, trace.transition, largest, draws, protect, seed, progress
                )
            lines = run.candidates()
            if state != "finished":
                result = conclude(lines, rows, trace.transition, draws, seed, protect)
                run.update(status="finished", result=result)
        return Phasewise(trace, lines, run.manifest["result"], state)


def check_draws(draws: int, most: int | None) -> None:
    """Refuse numbers of sets or of blocks that are too small.

    Raises:
        UserError: says which number is needed.
    """
    if draws < 2:
        raise UserError(f"--draws={draws}: an interval over sets needs at least 2")
    if most is not None and most < 1:
        raise UserError(f"--most={most}: at least 1 block must be removed")


def _largest(transition: Transition, most: int | None, protect: Collection[int], task: Task) -> int:
    """The largest number of blocks to remove at once.

    Raises:
        UserError: no transition, a phase without blocks, or more than the smaller phase has.
    """
    if not transition.found:
        raise UserError(
            f"{task.name}: no transition is found on "
            f"{transition.questions or len(task.questions)} calibration questions, "
            f"so there are no phases to compare ({transition.reason}); give more by --calibration, "
            "or a task that the model can do"
        )
    phases = {"Silent": transition.silent_blocks, "Decisive": transition.decisive_blocks}
    sizes = {name: len(set(blocks) - set(protect)) for name, blocks in phases.items()}
    name, size = min(sizes.items(), key=lambda item: item[1])
    if not phases[name]:
        raise UserError(
            f"{task.name}: the model decides at its last readout, so that the {name} Phase has no "
            "block to remove"
        )
    if size == 0:
        first, last = phases[name][0], phases[name][-1]
        raise UserError(
            f"--protect={','.join(map(str, protect))}: the {name} Phase (blocks {first} to {last}) "
            "has no other blocks, so that nothing of it can be removed; protect fewer"
        )
    left = " that are not protected" if protect else ""
    if most is not None and most > size:
        raise UserError(
            f"--most={most}: the {name} Phase has {size} blocks{left}, and as many are removed "
            f"from either phase; give 1 to {size}"
        )
    return size if most is None else most


def _refuse_chance(full: np.ndarray, task: Task) -> None:
    """Refuse evaluation questions on which the full model has nothing to lose."""
    if full.mean() <= task.chance:
        raise UserError(
            f"{task.name}: the full model's accuracy {full.mean():.3f} on {len(full)} evaluation "
            f"questions is not above chance {task.chance:.3f}, so that nothing can be retained; "
            "give more questions, or a task that the model can do"
        )


def _score(
    run: RunDirectory,
    decoder: Decoder,
    rows: Prepared,
    transition: Transition,
    largest: int,
    draws: int,
    protect: Collection[int],
    seed: int,
    progress: Progress,
) -> None:
    """Score what is missing, a number of removed blocks at a time; 0 is the full model."""
    done = {tuple(line["blocks"]) for line in run.candidates()}
    kinds = kinds_of(transition.silent_blocks, transition.decisive_blocks, protect)
    for number in range(largest + 1):
        if number == 1:
            _refuse_chance(right(run.candidates()[:1])[0], rows.task)
        drawn = drawn_sets(kinds, number, draws, seed) if number else {(): ["full"]}
        missing = [blocks for blocks in drawn if blocks not in done]
        if not missing:
            continue
        began = time.perf_counter()
        sweep = set_scores(
            decoder,
            rows.rows,
            rows.needs_vocabulary,
            missing,
            progress=progress,
            label=f"{number} of {largest} blocks removed: {len(missing)} sets",
        )
        seconds = time.perf_counter() - began
        lines = []
        for blocks, scores in zip(missing, sweep.scores, strict=True):
            lines.append(
                {
                    "removed_blocks": number,
                    "kinds": drawn[blocks],
                    "blocks": list(blocks),
                    **scored(rows, scores),
                    "block_passes": sweep.block_passes,
                    "naive_block_passes": sweep.naive_passes,
                    "seconds": round(seconds, 3),
                }
            )
        run.append_candidates(lines)
        run.add_timings(phasewise=seconds)
