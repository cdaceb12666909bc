"""From option scores at every readout to the figures of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from phaseprune.decision.depth import Depths, decision_depths
from phaseprune.decision.frequency import (
    frequency_where_present,
    gold_frequency,
    option_frequency,
)
from phaseprune.decision.frequency_distance import (
    FrequencyDistance,
    frequency_distance,
    output_frequency,
)
from phaseprune.decision.groups import GroupTrajectory, group_names, group_trajectories
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.lens import LensComparison
from phaseprune.decision.margin import (
    decision_margin,
    decision_representation,
    decisions,
    gold_loss,
)
from phaseprune.decision.transition import Transition, find_transition


@dataclass(frozen=True)
class Decisions:
    """Option scores of some questions, and what follows from them question by question.

    Attributes:
        scores: ``[Q, R, K]`` what is compared between options (log scale, ``-inf`` where absent);
            R readouts, or 1 for the output alone.
        gold: ``[Q]`` index of the right option.
        options: ``[Q]`` number of options k.
        probabilities: ``[Q, R, K]`` decision representation; the softmax over options unless given.
    """

    scores: np.ndarray
    gold: np.ndarray
    options: np.ndarray
    given_probabilities: np.ndarray | None = None

    @cached_property
    def probabilities(self) -> np.ndarray:  # noqa: D102
        if self.given_probabilities is not None:
            return self.given_probabilities
        return decision_representation(self.scores)

    @cached_property
    def margins(self) -> np.ndarray:
        """``[Q, R]`` Decision Margin."""
        return decision_margin(self.probabilities, self.gold)

    @cached_property
    def decided(self) -> np.ndarray:
        """``[Q, R]`` the decision, first option on a tie."""
        return decisions(self.scores)

    @cached_property
    def correct(self) -> np.ndarray:
        """``[Q, R]`` whether the decision is the right option."""
        return self.decided == self.gold[:, None]

    @cached_property
    def losses(self) -> np.ndarray:
        """``[Q, R]`` -log p[gold]."""
        return gold_loss(self.probabilities, self.gold)

    @property
    def chances(self) -> np.ndarray:
        """``[Q]`` 1/k."""
        return 1 / self.options

    @cached_property
    def depths(self) -> Depths:
        """At which readout each question is decided rightly for good."""
        return decision_depths(self.decided, self.gold)

    def option_frequency(self) -> np.ndarray:
        """``[R, K]`` share of questions that decide for each option."""
        return option_frequency(self.decided, self.scores.shape[-1])


@dataclass(frozen=True)
class Interval:
    """A mean a readout with its 95 % bounds, each ``[R]``."""

    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy at the output over the questions of one group (a subject, a kind)."""

    group: str
    questions: int
    accuracy: float


@dataclass(frozen=True)
class Trace:
    """Decision Margin, Option Frequency and accuracy at every readout, and the transition.

    ``decision_margin`` has bootstrap, ``accuracy`` Wilson intervals; ``option_frequency`` is
    ``[R, K]``, ``option_frequency_distance`` how far it is from the gold shares. ``by_group`` and
    ``group_trajectories`` are empty where the questions are not of several groups,
    ``option_count_trajectories`` where all have the same number of options. ``decisions`` holds the
    questions' own figures and ``raw_scores`` the ``[Q, R, K]`` logits or log-likelihoods before any
    normalisation by length. ``lens`` is of a tuned lens: what the plain logit lens says.
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
    lens: LensComparison | None = None

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
            "decision_margin": {k: v.tolist() for k, v in asdict(self.decision_margin).items()},
            "accuracy": {k: v.tolist() for k, v in asdict(self.accuracy).items()},
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
            "transition": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(self.transition).items()
            },
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
    questions, readouts = decisions.margins.shape
    margin_low, margin_high = bootstrap_mean(decisions.margins, seed)
    accuracy_low, accuracy_high = wilson(decisions.correct.sum(axis=0), questions)
    chance = float(decisions.chances.mean())

    options = decisions.scores.shape[-1]
    transition = find_transition(decisions.margins, decisions.correct[:, -1], chance, seed)

    def trajectories(of: Sequence[str | None]) -> tuple[GroupTrajectory, ...]:
        found = group_trajectories(
            decisions.margins, decisions.correct, decisions.chances, of, seed
        )
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
        decision_margin=Interval(decisions.margins.mean(axis=0), margin_low, margin_high),
        accuracy=Interval(decisions.correct.mean(axis=0), accuracy_low, accuracy_high),
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
