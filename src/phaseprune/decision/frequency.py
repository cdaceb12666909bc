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


def gold_frequency(gold: np.ndarray, options: int) -> np.ndarray:
    """``[K]`` share of questions whose right option stands at each position."""
    return option_frequency(gold, options)
