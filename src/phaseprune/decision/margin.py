"""Decision representation, Decision Margin and decisions (arXiv 2605.07271).

Arrays of option scores have the options on their last axis, padded with ``-inf`` where a question
has fewer options than the widest one. The axes before it are free (questions, readouts, …).
"""

from __future__ import annotations

import numpy as np


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
