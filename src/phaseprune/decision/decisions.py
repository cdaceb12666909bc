"""Option scores of some questions, and what follows from them question by question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from phaseprune.decision.depth import Depths, decision_depths
from phaseprune.decision.frequency import option_frequency
from phaseprune.decision.label_prior import label_prior
from phaseprune.decision.margin import (
    decision_margin,
    decision_representation,
    decisions,
    gold_loss,
    margins_of_options,
)


def written_right(correct: np.ndarray) -> str:
    """``[Q]`` right decisions as a string of 1 and 0, as the lines of a run have them."""
    return "".join("1" if right else "0" for right in correct)


def read_right(text: str) -> np.ndarray:
    """``[Q]`` right decisions from ``written_right``."""
    return np.array([flag == "1" for flag in text])


@dataclass(frozen=True)
class Decisions:
    """Option scores of some questions, and what follows from them question by question.

    Attributes:
        scores: ``[Q, R, K]`` what is compared between options (log scale, ``-inf`` where absent);
            R readouts, or 1 for the output alone.
        gold: ``[Q]`` index of the right option.
        options: ``[Q]`` number of options k.
        given_probabilities: ``[Q, R, K]`` decision representation, where it is not the softmax over
            the options.
        letters: whether options are scored by their labels, so that a label prior is in the scores.
        exchangeable: whether the golds are all in one place, which the scores cannot know of, so
            that any other option might as well have stood there (``Task.exchangeable``).
    """

    scores: np.ndarray
    gold: np.ndarray
    options: np.ndarray
    given_probabilities: np.ndarray | None = None
    letters: bool = False
    exchangeable: bool = False

    @cached_property
    def probabilities(self) -> np.ndarray:
        """``[Q, R, K]`` decision representation."""
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

    @cached_property
    def margins_of_options(self) -> np.ndarray:
        """``[Q, R, K]`` Decision Margin if each option were the right one."""
        return margins_of_options(self.probabilities)

    @cached_property
    def label_prior(self) -> np.ndarray:
        """``[Q, R, K]`` what other questions say of each label's preference; 0 for texts."""
        if not self.letters:
            return np.zeros_like(self.probabilities)
        return label_prior(self.scores, self.options)

    @cached_property
    def debiased(self) -> Decisions:
        """The same questions with the label prior taken off the scores; texts are left as they are.

        Where probabilities have the vocabulary as support, the options keep what they have of it
        together and share it anew.
        """
        if not self.letters:
            return self
        scores = self.scores - self.label_prior
        given = self.given_probabilities
        if given is not None:
            given = given.sum(axis=-1, keepdims=True) * decision_representation(scores)
        return Decisions(scores, self.gold, self.options, given)

    def columns(self, raw_scores: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of ``scores.parquet``, each ``[Q, R, K]``.

        Args:
            raw_scores: logits or log-likelihoods before any normalisation by length.
        """
        found = {"score": raw_scores, "probability": self.probabilities}
        is_gold = self.gold[:, None, None] == np.arange(raw_scores.shape[-1])
        found["gold"] = np.broadcast_to(is_gold, raw_scores.shape)
        if self.letters:
            found["debiased_score"] = raw_scores - self.label_prior
            found["debiased_probability"] = self.debiased.probabilities
        return found

    def of(self, questions: np.ndarray) -> Decisions:
        """The decisions on some questions (a mask or places), their scores as they are."""
        given = self.given_probabilities
        return replace(
            self, scores=self.scores[questions], gold=self.gold[questions],
            options=self.options[questions],
            given_probabilities=None if given is None else given[questions],
        )  # fmt: skip

    def at(self, readouts: np.ndarray | list[int]) -> Decisions:
        """The decisions at some readouts."""
        given = self.given_probabilities
        return replace(
            self, scores=self.scores[:, readouts],
            given_probabilities=None if given is None else given[:, readouts],
        )  # fmt: skip
