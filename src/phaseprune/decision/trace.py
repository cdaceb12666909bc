"""From option scores at every readout to the figures of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from phaseprune.decision.decisions import Decisions
from phaseprune.decision.frequency import frequency_where_present, gold_frequency
from phaseprune.decision.frequency_distance import (
    FrequencyDistance,
    frequency_distance,
    output_frequency,
)
from phaseprune.decision.groups import GroupTrajectory, group_names, group_trajectories
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.lens import LensComparison
from phaseprune.decision.transition import Transition, find_transition


@dataclass(frozen=True)
class Interval:
    """A mean a readout with its 95 % bounds, each ``[R]``."""

    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: value.tolist() for name, value in asdict(self).items()}


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy at the output over the questions of one group (a subject, a kind)."""

    group: str
    questions: int
    accuracy: float


@dataclass(frozen=True)
class Debiased:
    """The figures of letters with the label prior taken off, at every readout.

    Attributes:
        decision_margin: with bootstrap intervals.
        accuracy: with Wilson intervals.
        option_frequency: ``[R, K]``.
        label_prior: ``[R, K]`` mean label prior of the questions that have the option, in the unit
            of the scores.
        raw_transition: what the figures as they are would say, with the same tests; the trace's own
            transition is that of the debiased ones.
    """

    decision_margin: Interval
    accuracy: Interval
    option_frequency: np.ndarray
    label_prior: np.ndarray
    raw_transition: Transition

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``debiased`` of ``trace.json``."""
        return {
            "decision_margin": self.decision_margin.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "option_frequency": self.option_frequency.tolist(),
            "label_prior": self.label_prior.tolist(),
        }


@dataclass(frozen=True)
class Trace:
    """Decision Margin, Option Frequency and accuracy at every readout, and the transition.

    ``decision_margin`` has bootstrap, ``accuracy`` Wilson intervals; ``option_frequency`` is
    ``[R, K]``, ``option_frequency_distance`` how far it is from the gold shares. ``by_group`` and
    ``group_trajectories`` are empty where the questions are not of several groups,
    ``option_count_trajectories`` where all have the same number of options. ``decisions`` holds the
    questions' own figures and ``raw_scores`` the ``[Q, R, K]`` logits or log-likelihoods before any
    normalisation by length. ``debiased`` is there for letters alone; their ``transition`` is found
    in it. ``lens`` is of a tuned lens: what the plain logit lens says. ``state`` is whether the run
    directory that it was kept in was ``new``, ``resumed`` or ``finished`` before.
    """

    model: str
    task: str
    scoring: str
    readouts: np.ndarray
    decision_margin: Interval
    accuracy: Interval
    option_frequency: np.ndarray
    gold_frequency: np.ndarray
    option_frequency_distance: FrequencyDistance
    chance: float
    transition: Transition
    option_labels: tuple[str, ...]
    question_ids: tuple[str, ...]
    by_group: tuple[GroupAccuracy, ...]
    group_trajectories: tuple[GroupTrajectory, ...]
    option_count_trajectories: tuple[GroupTrajectory, ...]
    decisions: Decisions = field(repr=False)
    raw_scores: np.ndarray = field(repr=False)
    debiased: Debiased | None = None
    lens: LensComparison | None = None
    state: str | None = None

    def where_present(self) -> dict[str, Any]:
        """Option Frequency by position among the questions that have it, and how many do."""
        options = self.decisions.options
        return {
            "questions": (options[:, None] > np.arange(options.max())).sum(axis=0).tolist(),
            "option_frequency": frequency_where_present(self.decisions.decided, options).tolist(),
            "gold_frequency": frequency_where_present(self.decisions.gold, options).tolist(),
        }

    @property
    def macro_accuracy(self) -> float | None:
        """Mean of the groups' accuracies (``accuracy`` is the micro average)."""
        return float(np.mean([g.accuracy for g in self.by_group])) if self.by_group else None

    def to_dict(self) -> dict[str, Any]:
        """The content of ``trace.json``: plain JSON values."""
        lens = {} if self.lens is None else {"lens": self.lens.to_dict()}
        return lens | {
            "model": self.model,
            "task": self.task,
            "scoring": self.scoring,
            "questions": len(self.question_ids),
            "blocks": len(self.readouts) - 1,
            "readouts": self.readouts.tolist(),
            "decision_margin": self.decision_margin.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "option_labels": list(self.option_labels),
            "option_frequency": self.option_frequency.tolist(),
            "gold_frequency": self.gold_frequency.tolist(),
            "option_frequency_distance": self.option_frequency_distance.to_dict(),
            "where_present": self.where_present(),
            "chance": self.chance,
            "accuracy_by_group": {
                g.group: {"questions": g.questions, "accuracy": g.accuracy} for g in self.by_group
            },
            "macro_accuracy": self.macro_accuracy,
            "transition": self.transition.to_dict(),
            "debiased": self.debiased and self.debiased.to_dict(),
            "raw_transition": self.debiased and self.debiased.raw_transition.to_dict(),
            "decision_depth": self.decisions.depths.to_dict(),
            "by_group": {g.group: g.to_dict() for g in self.group_trajectories},
            "by_option_count": {g.group: g.to_dict() for g in self.option_count_trajectories},
        }

    def plot(self):
        """A matplotlib figure of the Decision Margin by readout with the phases shaded."""
        from phaseprune.report.figures import decision_margin_figure

        return decision_margin_figure(self.to_dict())


def summarize(
    decisions: Decisions,
    *,
    raw_scores: np.ndarray,
    question_ids: tuple[str, ...],
    groups: Sequence[str | None],
    option_labels: tuple[str, ...],
    model: str,
    task: str,
    scoring: str,
    seed: int,
) -> Trace:
    """Summarise the decisions at all L+1 readouts of one model over one task."""
    readouts = decisions.margins.shape[1]
    chance = float(decisions.chances.mean())
    options = decisions.scores.shape[-1]
    transition = find_transition(decisions.debiased, seed, output=decisions)

    def trajectories(of: Sequence[str | None]) -> tuple[GroupTrajectory, ...]:
        found = group_trajectories(decisions, of, seed)
        names, decided = group_names(of), decisions.decided[:, -1]
        members = [names == one.group for one in found]
        return tuple(
            replace(one, output=output_frequency(decided[own], decisions.gold[own], options, seed))
            for one, own in zip(found, members, strict=True)
        )

    return Trace(
        model=model,
        task=task,
        scoring=scoring,
        readouts=np.arange(readouts),
        decision_margin=_margin(decisions, seed),
        accuracy=_accuracy(decisions),
        option_frequency=decisions.option_frequency(),
        gold_frequency=gold_frequency(decisions.gold, options),
        option_frequency_distance=frequency_distance(
            decisions.decided, decisions.gold, options, transition, seed
        ),
        chance=chance,
        transition=transition,
        option_labels=option_labels,
        question_ids=question_ids,
        by_group=_by_group(groups, decisions.correct[:, -1]),
        group_trajectories=trajectories(groups),
        option_count_trajectories=trajectories([str(k) for k in decisions.options]),
        decisions=decisions,
        raw_scores=raw_scores,
        debiased=_debiased(decisions, seed) if decisions.letters else None,
    )


def _margin(decisions: Decisions, seed: int) -> Interval:
    return Interval(decisions.margins.mean(axis=0), *bootstrap_mean(decisions.margins, seed))


def _accuracy(decisions: Decisions) -> Interval:
    right = decisions.correct.sum(axis=0)
    return Interval(decisions.correct.mean(axis=0), *wilson(right, len(decisions.correct)))


def _debiased(decisions: Decisions, seed: int) -> Debiased:
    debiased = decisions.debiased
    have = (decisions.options[:, None] > np.arange(decisions.scores.shape[-1])).sum(axis=0)
    return Debiased(
        decision_margin=_margin(debiased, seed),
        accuracy=_accuracy(debiased),
        option_frequency=debiased.option_frequency(),
        label_prior=decisions.label_prior.sum(axis=0) / have,
        raw_transition=find_transition(decisions, seed),
    )


def _by_group(groups: Sequence[str | None], correct: np.ndarray) -> tuple[GroupAccuracy, ...]:
    """Accuracy by group, in order of appearance; nothing for a single group."""
    members: dict[str, list[bool]] = {}
    for group, right in zip(groups, correct.tolist(), strict=True):
        members.setdefault("none" if group is None else group, []).append(right)
    if len(members) < 2:
        return ()
    return tuple(
        GroupAccuracy(group, len(rights), float(np.mean(rights)))
        for group, rights in members.items()
    )
