"""The record of one step of a pruning run, for one task and for several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from phaseprune.decision.collapse import collapse_kind, retained
from phaseprune.decision.decisions import Decisions, mean_prior, read_right, written_right
from phaseprune.decision.dynamics import step_dynamics
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decoder.items import Item


@dataclass(frozen=True)
class Step:
    """One pruning step, as a line of ``steps.jsonl``; step 0 is the full model.

    ``block_passes`` and ``seconds`` are those of the search alone. ``evaluation["correct"]`` has a
    1 or 0 for each evaluation question, so that steps can be compared question by question.
    ``objective`` is None where blocks are ranked at once; the cost of that is the first step's.
    ``race``, of racing alone: its options and confidence, the calibration ``questions`` (or
    ``windows`` of text) that the step's objective is over, the candidates ``left`` at the end, the
    block passes saved, and ``products`` and ``drift`` (``racing.race_candidates``).
    ``dynamics`` has the transition of this model and its Option Frequency against the gold, before
    any correction for the number of steps. ``guard`` has the figures beyond questions
    (``decision.guards.guard_figures``), where they were asked for. ``merged`` says of blocks that
    took others in what their weights are a sum of (``decision.laco.Mixtures``). Where halves of
    blocks are removed, ``removed`` and ``kept`` name these, as ``7.attention`` (``decoder.items``).
    ``decisive``, where only Decisive blocks may go: those of this model on the calibration
    questions. Of letters there are the figures with the label prior taken off as well:
    ``evaluation["debiased"]``, ``retained_debiased`` with its interval, and by readout.
    ``collapse`` names a collapse (``decision.collapse.collapse_kind``), and ``label_prior`` is what
    to take off at the output: number of options -> a number for each label.
    """

    step: int
    removed: Item | None
    kept: list[Item]
    objective: float | None
    calibration: dict[str, float]
    evaluation: dict[str, Any]
    retained: float | None
    retained_ci: list[float] | None
    collapsed: bool
    phase: str | None
    decision_margin_by_readout: list[float]
    option_frequency_by_readout: list[list[float]]
    block_passes: int
    seconds: float
    race: dict[str, Any] | None = None
    dynamics: dict[str, Any] | None = None
    guard: dict[str, Any] | None = None
    merged: dict[str, dict[str, int]] | None = None
    decisive: list[int] | None = None
    retained_debiased: float | None = None
    retained_debiased_ci: list[float] | None = None
    collapse: str | None = None
    debiased_margin_by_readout: list[float] | None = None
    debiased_option_frequency_by_readout: list[list[float]] | None = None
    label_prior: dict[str, list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The line of ``steps.jsonl``."""
        return asdict(self)

    @property
    def correct(self) -> np.ndarray:
        """``[Q]`` whether each evaluation question is decided right."""
        return read_right(self.evaluation["correct"])

    @property
    def correct_debiased(self) -> np.ndarray | None:
        """``[Q]`` the same with the label prior taken off; None for texts."""
        debiased = self.evaluation.get("debiased")
        return None if debiased is None else read_right(debiased["correct"])

    @property
    def text_loss_rise(self) -> float | None:
        """Of the guards, as a share of the full model's loss; None without guards."""
        return self.guard and self.guard["text_loss_rise"]


@dataclass(frozen=True)
class TasksStep:
    """One step, as a line of ``steps.jsonl`` of the whole run; step 0 is the full model.

    ``objective`` is what is left of all tasks together on the calibration questions, by which the
    block was chosen (1 for the full model), ``retained`` the same of the accuracy above chance on
    the evaluation questions; None where a task's full model is not above chance. ``tasks`` has of
    each folder its own ``objective``, what is ``left`` of it, ``accuracy`` with ``ci``,
    ``decision_margin``, ``retained`` with ``retained_ci``, ``collapsed`` (all on evaluation
    questions but the first two) and the ``phase`` of the block for it. ``block_passes`` are those
    of all tasks, each over its own rows.
    """

    step: int
    removed: int | None
    kept: list[int]
    objective: float
    retained: float | None
    retained_ci: list[float] | None
    collapsed: bool
    tasks: dict[str, dict[str, Any]]
    block_passes: int
    seconds: float
    guard: dict[str, Any] | None = None
    #: Several tasks have no one transition.
    decisive: ClassVar[None] = None

    def to_dict(self) -> dict[str, Any]:
        """The line of ``steps.jsonl``."""
        return asdict(self)

    @property
    def text_loss_rise(self) -> float | None:
        """Of the guards, as a share of the full model's loss; None without guards."""
        return self.guard and self.guard["text_loss_rise"]


def model_figures(
    evaluated: Decisions, first: Step | None, kept: Sequence[int], steps: int, seed: int
) -> dict[str, Any]:
    """What a step says of a model by its decisions on the evaluation questions.

    Args:
        evaluated: the decisions, at every readout.
        first: step 0; None where this is it.
        kept: the blocks of which something is left.
        steps: that the run may come to, step 0 among them.
        seed: of the intervals.
    """
    correct = evaluated.correct[:, -1]
    left = retained(correct, first.correct if first else correct, evaluated.chances)
    left_debiased, debiased, by_labels = None, {}, {}
    if evaluated.letters:
        right = evaluated.debiased.correct[:, -1]
        full = first.correct_debiased if first else right
        left_debiased = retained(right, right if full is None else full, evaluated.chances)
        debiased = {"debiased": output_figures(evaluated.debiased, seed)}
        by_labels = {
            "retained_debiased": left_debiased.value,
            "retained_debiased_ci": list(left_debiased.ci) if left_debiased.ci else None,
            "debiased_margin_by_readout": evaluated.debiased.margins.mean(axis=0).tolist(),
            "debiased_option_frequency_by_readout": evaluated.debiased.option_frequency().tolist(),
            "label_prior": {
                str(k): prior.tolist()
                for k, prior in mean_prior(evaluated.scores[:, -1:], evaluated.options).items()
            },
        }
    return {
        "evaluation": output_figures(evaluated, seed) | debiased,
        "retained": left.value,
        "retained_ci": list(left.ci) if left.ci else None,
        "collapsed": left.collapsed,
        "decision_margin_by_readout": evaluated.margins.mean(axis=0).tolist(),
        "option_frequency_by_readout": evaluated.option_frequency().tolist(),
        "dynamics": step_dynamics(evaluated, kept, seed, steps),
        "collapse": collapse_kind(left, left_debiased),
        **by_labels,
    }


def output_figures(decisions: Decisions, seed: int) -> dict[str, Any]:
    """Accuracy and DM at the output with their intervals, and which questions are right."""
    correct, margins = decisions.correct[:, -1], decisions.margins[:, -1]
    return {
        "accuracy": float(correct.mean()),
        "ci": wilson(correct.sum(), len(correct)).tolist(),
        "decision_margin": float(margins.mean()),
        "decision_margin_ci": bootstrap_mean(margins, seed).tolist(),
        "correct": written_right(correct),
    }
