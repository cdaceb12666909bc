"""P-values of many tests, adjusted so that they can be held against one level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust for the chance of a single false finding (Holm 1979); holds under any dependence.

    Args:
        p_values: ``[m]`` one a test.

    Returns:
        ``[m]``: a test is significant at level α if its adjusted value is below α.

    Raises:
        ValueError: a value is no probability.
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    return _in_place(np.maximum.accumulate(steps), order)


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Adjust for the expected share of false findings (Benjamini and Hochberg 1995).

    Valid for independent tests and for positively dependent ones.

    Args:
        p_values: ``[m]`` one a test.

    Returns:
        ``[m]``: the tests below q are expected to be false findings in at most a share q.

    Raises:
        ValueError: a value is no probability.
    """
    p = _checked(p_values)
    order = np.argsort(-p, kind="stable")
    steps = p[order] * len(p) / np.arange(len(p), 0, -1)
    return _in_place(np.minimum.accumulate(steps), order)


def _checked(p_values: Sequence[float]) -> np.ndarray:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers from 0 to 1: {p_values}")
    return p


def _in_place(adjusted: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undo the sorting, and cut at 1."""
    out = np.empty_like(adjusted)
    out[order] = np.minimum(adjusted, 1)
    return out
