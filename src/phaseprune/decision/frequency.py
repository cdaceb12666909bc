"""Option Frequency: how often each option is the decision (arXiv 2605.07271)."""

from __future__ import annotations

import numpy as np


def option_frequency(decided: np.ndarray, options: int) -> np.ndarray:
    """Share of questions that decide for each option.

    Args:
        decided: ``[Q, ...]`` index of the decided option.
        options: K, the largest number of options.

    Returns:
        ``[..., K]`` shares that sum to 1.
    """
    decided = np.asarray(decided)
    return (decided[..., None] == np.arange(options)).mean(axis=0)


def frequency_where_present(decided: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Share of the questions that have an option at a position which decide for it.

    With unequal k the plain share of a late position is small because few questions have it.

    Args:
        decided: ``[Q, ...]`` index of the decided option.
        present: ``[Q]`` number of options k of each question.

    Returns:
        ``[..., K]`` shares, K the largest k; each position has a denominator of its own.
    """
    options = int(np.max(present))
    have = (np.asarray(present)[:, None] > np.arange(options)).sum(axis=0)
    return option_frequency(decided, options) * len(present) / have


def gold_frequency(gold: np.ndarray, options: int) -> np.ndarray:
    """``[K]`` share of questions whose right option stands at each position."""
    return option_frequency(gold, options)


def total_variation(differences: np.ndarray) -> np.ndarray:
    """Distance of two shares: half the sum of absolute differences, 0 (equal) to 1.

    Args:
        differences: ``[..., K]`` the one minus the other.

    Returns:
        ``[...]``.
    """
    return np.abs(differences).sum(axis=-1) / 2
