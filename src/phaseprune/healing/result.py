"""What healing a pruned model came to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.collapse import Retained, retained
from phaseprune.decision.decisions import read_right
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.tests import MarginShift, Paired, compare_paired, margin_shift
from phaseprune.errors import UserError
from phaseprune.runs.arrays import read_arrays, write_arrays
from phaseprune.runs.atomic import read_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, draw, named, number, of_interval, with_bounds
from phaseprune.runs.scores import read_all_scores


@dataclass(frozen=True)
class Measured:
    """A model on the run's evaluation questions.

    Attributes:
        correct: ``[Q]`` whether its decision is right.
        margins: ``[Q, n+1]`` Decision Margin at its readouts, n its number of blocks.
    """

    correct: np.ndarray
    margins: np.ndarray

    def to_dict(self, seed: int) -> dict[str, Any]:
        """Plain JSON values: accuracy (Wilson) and DM at the output and by readout (bootstrap)."""
        low, high = bootstrap_mean(self.margins, seed)
        mean = self.margins.mean(axis=0)
        return {
            "accuracy": float(self.correct.mean()),
            "ci": wilson(self.correct.sum(), len(self.correct)).tolist(),
            "decision_margin": float(mean[-1]),
            "decision_margin_ci": [float(low[-1]), float(high[-1])],
            "decision_margin_by_readout": {
                "mean": mean.tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
            },
        }


@dataclass(frozen=True, repr=False)
class Healing(Result):
    """A pruned model before and after fine-tuning, on the run's evaluation questions.

    Attributes:
        step: of the run.
        removed: its removed blocks, original indices in order of removal.
        kept: the others, in order; readout j of the pruned model is behind block ``kept[j-1]``.
        before: the pruned model as it is.
        after: the healed one, reloaded from disk.
        full_correct: ``[Q]`` whether the full model is right.
        chances: ``[Q]`` 1/k.
        seed: of the intervals.
        recipe: how it was trained.
        training: steps, the best one, why it ended, the losses, seconds, questions.
        export: the checkpoint and its proof (``decoder.export.Export``).
        path: where all of it is.
        state: whether this was ``new``, ``resumed`` or ``finished`` before.
    """

    step: int
    removed: list[int]
    kept: list[int]
    before: Measured
    after: Measured
    full_correct: np.ndarray
    chances: np.ndarray
    seed: int
    recipe: dict[str, Any]
    training: dict[str, Any]
    export: dict[str, Any]
    path: str
    state: str = "new"

    @cached_property
    def retained_before(self) -> Retained:
        """Of the full model's accuracy above chance, before healing."""
        return retained(self.before.correct, self.full_correct, self.chances)

    @cached_property
    def retained_after(self) -> Retained:
        """And after it."""
        return retained(self.after.correct, self.full_correct, self.chances)

    @cached_property
    def change(self) -> Paired:
        """Accuracy after less before, in pairs."""
        return compare_paired(self.before.correct, self.after.correct, self.seed)

    @cached_property
    def margin_change(self) -> MarginShift:
        """DM after less before at each readout."""
        return margin_shift(self.before.margins, self.after.margins, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""

        def share(value: Retained) -> dict[str, Any]:
            return {"value": value.value, "ci": list(value.ci) if value.ci else None}

        return {
            "step": self.step,
            "removed": self.removed,
            "kept": self.kept,
            "blocks": len(self.removed) + len(self.kept),
            "questions": len(self.full_correct),
            "chance": float(self.chances.mean()),
            "full": {
                "accuracy": float(self.full_correct.mean()),
                "ci": wilson(self.full_correct.sum(), len(self.full_correct)).tolist(),
            },
            "before": self.before.to_dict(self.seed) | {"retained": share(self.retained_before)},
            "after": self.after.to_dict(self.seed) | {"retained": share(self.retained_after)},
            "change": {
                "difference": self.change.difference,
                "ci": list(self.change.ci),
                "gained": self.change.only_second,
                "lost": self.change.only_first,
                "p_value": self.change.p_value,
            },
            "decision_margin_change": self.margin_change.to_dict(),
            "recipe": self.recipe,
            "training": self.training,
            "export": self.export,
            "path": self.path,
        }

    def plot(self):
        """A matplotlib figure of DM by readout before and after."""
        return draw("margin_change_figure", self.to_dict())

    def _lines(self) -> list[str]:
        before, after, change = self.retained_before, self.retained_after, self.change
        return [
            f"step {self.step}, without {named(self.removed)} ({len(self.full_correct)} questions; "
            f"{self.recipe['method']}, {self.recipe['objective']})",
            f"accuracy {number(self.before.correct.mean())} -> "
            f"{number(self.after.correct.mean())} (full {number(self.full_correct.mean())}), "
            f"p = {change.p_value:.2g}",
            f"retained {with_bounds(before.value, before.ci)} -> "
            f"{with_bounds(after.value, after.ci)}",
            f"checkpoint {self.export['path']}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a readout of the pruned model."""
        change = self.margin_change
        return [
            {
                "readout": place,
                "block": self.kept[place - 1] if place else None,
                "decision_margin_before": float(self.before.margins[:, place].mean()),
                "decision_margin_after": float(self.after.margins[:, place].mean()),
                **of_interval("change", change, place),
                "p_value": float(change.p_value[place]),
            }
            for place in range(self.before.margins.shape[1])
        ]


def read_healing(run: RunDirectory) -> Healing:
    """What a finished directory of ``heal`` holds, within its run of ``prune``.

    Raises:
        UserError: the run that it healed is not around it, as RUN/heal/NAME.
    """
    pruned = RunDirectory(run.path.resolve().parent.parent)
    content, result = read_json(run.path / "heal.json"), run.manifest["result"]
    try:
        steps, seed = pruned.steps(), pruned.manifest["seed"]
        full, chances = read_right(steps[0]["evaluation"]["correct"]), _chances(pruned)
    except (UserError, LookupError):
        raise UserError(
            f"{run.path}: the run of prune that it healed is not around it (as RUN/heal/NAME); "
            "move it back there"
        ) from None
    before, after = read_measured(run.path / "measured.safetensors")
    return Healing(
        step=content["step"],
        removed=content["removed"],
        kept=content["kept"],
        before=before,
        after=after,
        full_correct=full,
        chances=chances,
        seed=seed,
        recipe=content["recipe"],
        training=result["training"],
        export=result["export"],
        path=content["path"],
        state="finished",
    )


def _chances(run: RunDirectory) -> np.ndarray:
    """``[Q]`` 1/k of a run's evaluation questions."""
    return 1 / read_all_scores(run.scores_path).options


def write_measured(path: Path, before: Measured, after: Measured) -> None:
    """Keep what was measured question by question."""
    write_arrays(
        path,
        {
            "before_correct": before.correct,
            "before_margins": before.margins,
            "after_correct": after.correct,
            "after_margins": after.margins,
        },
    )


def read_measured(path: Path) -> tuple[Measured, Measured]:
    """What ``write_measured`` kept: before and after.

    Raises:
        UserError: the file cannot be read.
    """
    kept = read_arrays(path)
    return tuple(
        Measured(kept[f"{when}_correct"], kept[f"{when}_margins"]) for when in ("before", "after")
    )
