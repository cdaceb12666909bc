"""What a model decides on each question, from the scores of its options (arXiv 2605.07271).

Arrays of option scores have the options on their last axis, padded with ``-inf`` where a question
has fewer options than the widest one. In functions the axes before it are free (questions,
readouts, …).

The label prior is how much a label is preferred whatever the question says. Known as label,
selection or position bias; what is done here is close to the prior calibration of PriDe (Zheng et
al. 2024, arXiv 2309.03882), with other questions in place of permuted options.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from phaseprune.decision.frequency import option_frequency


def decision_representation(scores: np.ndarray) -> np.ndarray:
    """Softmax over the options.

    Args:
        scores: ``[..., K]`` option scores (log scale); absent options are ``-inf``.

    Returns:
        ``[..., K]`` float64 probabilities that sum to 1; absent options have 0.
    """
    scores = np.asarray(scores, dtype=np.float64)
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def decision_margin(probabilities: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """p[gold] minus the largest of the other options ("the probability gap between the
    ground-truth option and the most likely alternative").

    Args:
        probabilities: ``[Q, ..., K]``, questions on the first axis.
        gold: ``[Q]`` index of the right option.

    Returns:
        ``[Q, ...]`` in [-1, 1]; positive exactly where the decision is right without a tie.
    """  # noqa: D205
    probabilities = np.asarray(probabilities, dtype=np.float64)
    is_gold = _one_hot(gold, probabilities)
    gold_probability = np.where(is_gold, probabilities, 0.0).sum(axis=-1)
    best_other = np.where(is_gold, -np.inf, probabilities).max(axis=-1)
    return gold_probability - best_other


def margins_of_options(probabilities: np.ndarray) -> np.ndarray:
    """The Decision Margin if each option were the right one.

    Args:
        probabilities: ``[..., K]``, K >= 2; absent options have 0.

    Returns:
        ``[..., K]`` each option's probability minus the largest of the others.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    second, first = np.moveaxis(np.sort(probabilities, axis=-1)[..., -2:], -1, 0)[..., None]
    return probabilities - np.where(probabilities == first, second, first)


def decisions(scores: np.ndarray) -> np.ndarray:
    """``[...]`` index of the best option of ``[..., K]`` scores; ties go to the first option."""
    return np.argmax(scores, axis=-1)


def gold_loss(probabilities: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """``[Q, ...]`` cross-entropy of the decision representation, -log p[gold], in nats."""
    is_gold = _one_hot(gold, probabilities)
    gold_probability = np.where(is_gold, probabilities, 0.0).sum(axis=-1)
    return -np.log(np.maximum(gold_probability, np.finfo(np.float64).tiny))


def _one_hot(gold: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``[Q, 1, …, K]`` mask of the gold option, broadcastable to ``like``."""
    mask = np.asarray(gold)[:, None] == np.arange(like.shape[-1])
    return mask.reshape(mask.shape[0], *[1] * (like.ndim - 2), mask.shape[1])


@dataclass(frozen=True)
class Depths:
    """How the decision on each question comes about over the R readouts.

    Attributes:
        depth: ``[Q]`` first readout from which the decision is right and stays so to the output;
            -1 where the output is wrong.
        flips: ``[Q]`` how often the decision changes from a readout to the next, of R-1 times.
        lost: ``[Q]`` how often it changes from the right option to another.
        never: ``[Q]`` whether no readout decides rightly.
        readouts: R.
    """

    depth: np.ndarray
    flips: np.ndarray
    lost: np.ndarray
    never: np.ndarray
    readouts: int

    @property
    def counts(self) -> np.ndarray:
        """``[R]`` how many questions have their decision depth at each readout."""
        return np.bincount(self.depth[self.depth >= 0], minlength=self.readouts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the depth of a question whose output is wrong is None."""
        right = self.depth[self.depth >= 0]
        quartiles = (
            np.quantile(right, (0.25, 0.5, 0.75), method="inverted_cdf") if len(right) else []
        )
        return {
            "depth": [None if depth < 0 else depth for depth in self.depth.tolist()],
            "flips": self.flips.tolist(),
            "lost": self.lost.tolist(),
            "never_right": self.never.tolist(),
            "counts": self.counts.tolist(),
            "quartiles": [int(value) for value in quartiles],
            "wrong_at_the_output": int((self.depth < 0).sum()),
            "never_right_count": int(self.never.sum()),
            "mean_flips": float(self.flips.mean()),
            "mean_lost": float(self.lost.mean()),
        }


def decision_depths(decided: np.ndarray, gold: np.ndarray) -> Depths:
    """Follow each question's decision over the readouts.

    Args:
        decided: ``[Q, R]`` index of the decided option.
        gold: ``[Q]`` index of the right option.
    """
    decided = np.asarray(decided)
    right = decided == np.asarray(gold)[:, None]
    # From the output backwards: how many readouts in a row are right.
    right_to_the_end = np.logical_and.accumulate(right[:, ::-1], axis=1).sum(axis=1)
    readouts = decided.shape[1]
    return Depths(
        depth=np.where(right_to_the_end > 0, readouts - right_to_the_end, -1),
        flips=(decided[:, 1:] != decided[:, :-1]).sum(axis=1),
        lost=(right[:, :-1] & ~right[:, 1:]).sum(axis=1),
        never=~right.any(axis=1),
        readouts=readouts,
    )


#: Folds of the cross-fitting: a question's prior is that of the other folds.
FOLDS = 10
#: Other questions that a prior needs; with fewer of the same number of options, those with more
#: options help out.
FEWEST = 10


def centred(scores: np.ndarray, options: np.ndarray) -> np.ndarray:
    """``[Q, R, K]`` scores less their mean over the question's options; 0 where one is absent."""
    present = np.isfinite(scores)
    mean = np.where(present, scores, 0).sum(axis=-1) / np.asarray(options)[:, None]
    return np.where(present, scores - mean[..., None], 0.0)


def mean_prior(scores: np.ndarray, options: np.ndarray) -> dict[int, np.ndarray]:
    """The label prior at the output for new questions: the mean over all that there are.

    Args:
        scores: ``[Q, R, K]``, the output last.
        options: ``[Q]`` number of options k.

    Returns:
        k -> ``[k]``, for each number of options that occurs.
    """
    values, options = centred(scores, options)[:, -1], np.asarray(options)
    return {int(k): values[options == k, :k].mean(axis=0) for k in np.unique(options)}


def label_prior(scores: np.ndarray, options: np.ndarray) -> np.ndarray:
    """What other questions say of each label's preference, at every readout.

    A question's prior is the mean over *other* questions with as many options (those outside its
    fold, of ``FOLDS``) of a label's score less the mean over the question's options. It uses no
    golds, and no score of the question itself. Of few such questions (``FEWEST``) those with more
    options are taken too, by their first labels.

    Args:
        scores: ``[Q, R, K]`` scores of the labels, ``-inf`` where an option is absent.
        options: ``[Q]`` number of options k.

    Returns:
        ``[Q, R, K]``, in the unit of the scores, with mean 0 over a question's options and 0 where
        an option is absent; 0 throughout where there is no other question to learn from.
    """
    scores, options = np.asarray(scores, dtype=np.float64), np.asarray(options)
    prior = np.zeros_like(scores)
    for k in np.unique(options):
        own = np.flatnonzero(options == k)
        like = own if len(own) > FEWEST else np.flatnonzero(options >= k)
        # Folds are taken in turn, so that a file's parts (subjects) are spread over all of them.
        fold = np.arange(len(like)) % FOLDS
        values = centred(scores[like, :, :k], np.full(len(like), k))
        is_own = options[like] == k
        means = np.stack(
            [values[fold != f].sum(axis=0) / max(1, (fold != f).sum()) for f in range(FOLDS)]
        )
        prior[like[is_own], :, :k] = means[fold[is_own]]
    return prior


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
            self,
            scores=self.scores[questions],
            gold=self.gold[questions],
            options=self.options[questions],
            given_probabilities=None if given is None else given[questions],
        )

    def at(self, readouts: np.ndarray | list[int]) -> Decisions:
        """The decisions at some readouts."""
        given = self.given_probabilities
        return replace(
            self,
            scores=self.scores[:, readouts],
            given_probabilities=None if given is None else given[:, readouts],
        )
