"""Linear CKA of hidden states, debiased and over minibatches.

CKA (Kornblith et al. 2019) is the normalised HSIC of two representations of the same examples. As
in Nguyen et al. 2021 (arXiv 2010.15327, equation 2) HSIC is estimated without bias from each
minibatch (Song et al. 2012, equation 5) and averaged before the ratio is taken, so that neither the
size of a minibatch nor a width larger than the number of examples pulls the value up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import CONFIDENCE

#: The fewest examples of which HSIC has an unbiased estimate.
LEAST_EXAMPLES = 4
#: Share of a representation's squared values below which its variation is only rounding (float32).
ROUNDING = 1e-12


def hsic_vectors(states: np.ndarray) -> np.ndarray:
    """What the inner products of are the unbiased HSIC of linear kernels.

    The estimate of Song et al. is an inner product of U-centred kernels (Szekely and Rizzo 2014):
    with zero diagonal and rows that sum to zero.

    Args:
        states: ``[..., n, D]`` one representation of n examples or several, n >= 4.

    Returns:
        ``[..., n(n-1)/2]`` float64; ``v @ w`` is HSIC of the two representations. All zero where
        a representation is the same for every example.
    """
    states = np.asarray(states, dtype=np.float64)
    n = states.shape[-2]
    if n < LEAST_EXAMPLES:
        raise ValueError(f"{n} examples; the unbiased HSIC needs {LEAST_EXAMPLES}")
    # The estimate does not depend on the mean; without it there is less to round.
    centred = states - states.mean(axis=-2, keepdims=True)
    left, whole = ((values**2).sum(axis=(-2, -1)) for values in (centred, states))
    centred = np.where((left <= ROUNDING * whole)[..., None, None], 0.0, centred)
    kernel = centred @ np.swapaxes(centred, -1, -2)
    kernel[..., np.arange(n), np.arange(n)] = 0.0
    rows = kernel.sum(axis=-1) / (n - 2)
    total = kernel.sum(axis=(-2, -1)) / ((n - 1) * (n - 2))
    kernel += total[..., None, None] - rows[..., :, None] - rows[..., None, :]
    upper = np.triu_indices(n, k=1)
    return kernel[..., upper[0], upper[1]] * np.sqrt(2 / (n * (n - 3)))


def cka(cross: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CKA from HSIC that is summed over minibatches.

    Args:
        cross: ``[..., R, S]`` HSIC of each representation of one model with each of the other.
        first: ``[..., R]`` HSIC of a representation with itself,
        second: ``[..., S]`` and of the other model's.

    Returns:
        ``[..., R, S]`` in [-1, 1]; NaN where a representation does not vary over the examples.
    """
    scale = np.sqrt(first[..., :, None] * second[..., None, :])
    return np.divide(cross, scale, out=np.full_like(scale, np.nan), where=scale > 0).clip(-1, 1)


def jackknife(
    groups: int, statistic: Callable[[np.ndarray], np.ndarray], confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A statistic of several groups with its interval from leaving out one group at a time.

    Minibatches are few and CKA is a ratio of means over them: the delete-one jackknife with
    Student's t (Miller 1974) keeps its coverage there, where a percentile bootstrap is too narrow.

    Args:
        groups: how many, G.
        statistic: gives the values ``[...]`` for ``[G]`` weights, 1 for a group that is in and 0
            for one that is not.
        confidence: two-sided level.

    Returns:
        Value, lower and upper bound, and two-sided p-value of "it is 0", each ``[...]``. NaN where
        the statistic is. Where no group makes a difference the bounds are the value.
    """
    value = np.asarray(statistic(np.ones(groups)), dtype=np.float64)
    without = np.stack([statistic(weights) for weights in 1.0 - np.eye(groups)])
    error = np.sqrt((groups - 1) / groups * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = stats.t.ppf(0.5 + confidence / 2, groups - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(value == 0, 0.0, np.abs(value) / error)
    p_value = np.where(np.isnan(value), np.nan, 2 * stats.t.sf(ratio, groups - 1))
    return value, value - half, value + half, p_value
