"""Trajectories of groups of questions: by subject, by number of options.

Each group has a transition of its own. As many are tested, their p-values are corrected (Holm), and
nothing is called a transition that is not significant after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phaseprune.decision.corrections import holm
from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.frequency_distance import OutputFrequency
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.transition import PERMUTATIONS, Transition, find_transition

#: Permutations a group: the smallest p-value must stay well below the level after the correction.
PERMUTATIONS_A_GROUP = 400


@dataclass(frozen=True)
class GroupTrajectory:
    """Decision Margin, accuracy and transition of one group of questions.

    Attributes:
        group: its name.
        questions: how many.
        chance: mean of 1/k.
        decision_margin: ``[3, R]`` mean, lower and upper 95 % bound (bootstrap) by readout.
        accuracy: ``[3, R]`` the same (Wilson).
        p_value: of the transition before the correction: the largest of its tests, as all must
            hold.
        p_corrected: after it, over the groups.
        transition: found only where ``p_corrected`` is below the level.
        output: Option Frequency at the output against the gold, where it was asked for.
    """

    group: str
    questions: int
    chance: float
    decision_margin: np.ndarray
    accuracy: np.ndarray
    p_value: float
    p_corrected: float
    transition: Transition
    output: OutputFrequency | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""

        def named(series: np.ndarray) -> dict[str, list[float]]:
            return dict(zip(("mean", "ci_low", "ci_high"), series.tolist(), strict=True))

        output = {} if self.output is None else self.output.to_dict()
        return output | {
            "questions": self.questions,
            "chance": self.chance,
            "decision_margin": named(self.decision_margin),
            "accuracy": named(self.accuracy),
            "p_value": self.p_value,
            "p_corrected": self.p_corrected,
            "transition": self.transition.to_dict(),
        }


def group_names(groups: Sequence[str | None]) -> np.ndarray:
    """``[Q]`` the name of each question's group; that of None is ``none``."""
    return np.array(["none" if group is None else str(group) for group in groups])


def group_trajectories(
    decisions: Decisions, groups: Sequence[str | None], seed: int
) -> tuple[GroupTrajectory, ...]:
    """Trajectories of the groups, in order of appearance; none where there is a single group.

    Margins and accuracies are as the model decides; a transition is sought as in the whole trace,
    with the label prior of all questions.

    Args:
        decisions: ``[Q, R]`` of all questions.
        groups: the group of each question; None is one too.
        seed: of intervals and tests.
    """
    names = group_names(groups)
    order = list(dict.fromkeys(names.tolist()))
    if len(order) < 2:
        return ()
    permutations = max(PERMUTATIONS, PERMUTATIONS_A_GROUP * len(order))
    found = [
        _trajectory(
            name, decisions.of(names == name), decisions.debiased.of(names == name), seed,
            permutations,
        )
        for name in order
    ]  # fmt: skip
    corrected = holm([one.p_value for one in found])
    return tuple(_corrected(one, float(p)) for one, p in zip(found, corrected, strict=True))


def _trajectory(
    name: str, decisions: Decisions, debiased: Decisions, seed: int, permutations: int
) -> GroupTrajectory:
    transition = find_transition(debiased, seed, permutations, output=decisions)
    margins, correct = decisions.margins, decisions.correct
    shares = wilson(correct.sum(axis=0), len(correct))
    return GroupTrajectory(
        group=name,
        questions=len(margins),
        chance=float(decisions.chances.mean()),
        decision_margin=np.stack([margins.mean(axis=0), *bootstrap_mean(margins, seed)]),
        accuracy=np.stack([correct.mean(axis=0), *shares]),
        p_value=transition.p_value,
        p_corrected=transition.p_value,
        transition=transition,
    )


def _corrected(one: GroupTrajectory, p_corrected: float) -> GroupTrajectory:
    transition = one.transition
    if transition.found and p_corrected >= SIGNIFICANCE:
        transition = Transition(
            found=False,
            p_value=transition.p_value,
            reason="not significant after the correction for the number of groups (Holm, "
            f"p = {p_corrected:.2g})",
        )
    return replace(one, p_corrected=p_corrected, transition=transition)
