"""From option scores at every readout to the figures of a trace.

Groups of questions (by subject, by number of options) have a transition each. As many are tested,
their p-values are corrected (Holm), and nothing is called a transition that is not significant
after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.frequency import (
    FrequencyDistance,
    OutputFrequency,
    frequency_distance,
    frequency_where_present,
    gold_frequency,
    output_frequency,
)
from phaseprune.decision.intervals import Interval, bootstrap_mean, wilson
from phaseprune.decision.tests import holm
from phaseprune.decision.transition import PERMUTATIONS, Transition, find_transition
from phaseprune.runs.plain import rebuilt
from phaseprune.runs.result import Result, draw, number, of_interval, transition_line

#: A readout's Decision Margins differ below this p-value, after Holm's correction over readouts.
LENS_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class LensComparison:
    """What the plain logit lens says where a tuned one was traced.

    Attributes:
        calibration_questions: that the tuned lens was fitted to; none of them is traced.
        decision_margin: ``[R]`` of the logit lens.
        accuracy: likewise.
        transition: of the logit lens, as in ``trace.json``.
        difference: ``[R]`` mean DM of the tuned lens minus that of the logit lens, with a bootstrap
            interval over questions.
        p_value: ``[R]`` of "the mean difference is 0" (paired t-test), after Holm's correction.
        differs: readouts where it is below 0.05.
        kl_logit: ``[R]`` mean KL(model || readout) over the vocabulary, nats a token, on
            calibration tokens that the maps were not trained on, of the logit lens,
        kl_tuned: and of the tuned one; 0 at the last readout.
    """

    calibration_questions: int
    decision_margin: Interval
    accuracy: Interval
    transition: dict[str, Any]
    difference: Interval
    p_value: np.ndarray
    differs: tuple[int, ...]
    kl_logit: np.ndarray
    kl_tuned: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``lens`` of ``trace.json``."""
        return {"name": "tuned"} | {name: _plain(value) for name, value in asdict(self).items()}


def compare_lenses(
    tuned: Trace,
    logit: Trace,
    *,
    calibration_questions: int,
    kl_logit: np.ndarray,
    kl_tuned: np.ndarray,
    seed: int,
) -> LensComparison:
    """Hold the traces of the same questions under both lenses side by side.

    Args:
        tuned: under the tuned lens.
        logit: under the plain one.
        calibration_questions: that the tuned lens was fitted to.
        kl_logit: ``[L]`` divergence of the readouts before the last,
        kl_tuned: under both lenses.
        seed: of the bootstrap.
    """
    difference = tuned.decisions.margins - logit.decisions.margins
    adjusted = holm([_mean_p(column) for column in difference.T])
    return LensComparison(
        calibration_questions=calibration_questions,
        decision_margin=logit.decision_margin,
        accuracy=logit.accuracy,
        transition=logit.to_dict()["transition"],
        difference=Interval(difference.mean(axis=0), *bootstrap_mean(difference, seed)),
        p_value=adjusted,
        differs=tuple(np.flatnonzero(adjusted < LENS_SIGNIFICANCE).tolist()),
        kl_logit=np.append(kl_logit, 0.0),
        kl_tuned=np.append(kl_tuned, 0.0),
    )


def _mean_p(differences: np.ndarray) -> float:
    """Of a mean of 0; 1 where no question differs."""
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


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

    @classmethod
    def from_dict(cls, group: str, content: Mapping[str, Any]) -> GroupTrajectory:
        """What ``to_dict`` gave of a group."""
        series = {
            name: np.array([content[name][part] for part in ("mean", "ci_low", "ci_high")])
            for name in ("decision_margin", "accuracy")
        }
        output = OutputFrequency.from_dict(content) if "option_frequency" in content else None
        return cls(
            group=group,
            questions=content["questions"],
            chance=content["chance"],
            **series,
            p_value=content["p_value"],
            p_corrected=content["p_corrected"],
            transition=rebuilt(Transition, content["transition"]),
            output=output,
        )


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
            name,
            decisions.of(names == name),
            decisions.debiased.of(names == name),
            seed,
            permutations,
        )
        for name in order
    ]
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


@dataclass(frozen=True, repr=False)
class Trace(Result):
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

    @classmethod
    def from_dict(
        cls,
        content: Mapping[str, Any],
        question_ids: tuple[str, ...],
        decisions: Decisions,
        raw_scores: np.ndarray,
    ) -> Trace:
        """The trace that ``trace.json`` and ``scores.parquet`` hold.

        Args:
            content: what ``to_dict`` gave.
            question_ids: ``[Q]``.
            decisions: of the questions.
            raw_scores: ``[Q, R, K]``.
        """
        debiased = content["debiased"]
        if debiased is not None:
            debiased = rebuilt(Debiased, debiased | {"raw_transition": content["raw_transition"]})
        return cls(
            model=content["model"],
            task=content["task"],
            scoring=content["scoring"],
            readouts=np.array(content["readouts"]),
            decision_margin=rebuilt(Interval, content["decision_margin"]),
            accuracy=rebuilt(Interval, content["accuracy"]),
            option_frequency=np.array(content["option_frequency"]),
            gold_frequency=np.array(content["gold_frequency"]),
            option_frequency_distance=FrequencyDistance.from_dict(
                content["option_frequency_distance"]
            ),
            chance=content["chance"],
            transition=rebuilt(Transition, content["transition"]),
            option_labels=tuple(content["option_labels"]),
            question_ids=question_ids,
            by_group=tuple(
                GroupAccuracy(group, **told) for group, told in content["accuracy_by_group"].items()
            ),
            group_trajectories=_read_groups(content["by_group"]),
            option_count_trajectories=_read_groups(content["by_option_count"]),
            decisions=decisions,
            raw_scores=raw_scores,
            debiased=debiased,
            lens=rebuilt(LensComparison, content["lens"]) if "lens" in content else None,
        )

    def _lines(self) -> list[str]:
        questions = f"{len(self.question_ids)} questions, {self.scoring}"
        lens = "" if self.lens is None else ", tuned lens"
        return [
            f"{self.model} on {self.task} ({questions}{lens})",
            transition_line(self.transition.to_dict(), len(self.readouts) - 1),
            f"output: accuracy {number(self.accuracy.mean[-1])} (chance {number(self.chance)}), "
            f"Decision Margin {number(self.decision_margin.mean[-1], '+')}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a readout."""
        found = self.transition.found
        first = self.transition.readout
        return [
            {
                "readout": at,
                "phase": ("silent" if at < first else "decisive") if found else None,
                **of_interval("decision_margin", self.decision_margin, at),
                **of_interval("accuracy", self.accuracy, at),
                **{
                    f"frequency_{label}": float(share)
                    for label, share in zip(
                        self.option_labels, self.option_frequency[at], strict=True
                    )
                },
            }
            for at in self.readouts.tolist()
        ]

    def plot(self):
        """A matplotlib figure of the Decision Margin by readout with the phases shaded."""
        return draw("decision_margin_figure", self.to_dict())


def _read_groups(content: Mapping[str, Mapping[str, Any]]) -> tuple[GroupTrajectory, ...]:
    return tuple(GroupTrajectory.from_dict(group, told) for group, told in content.items())


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
