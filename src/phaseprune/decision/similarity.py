"""How alike two models are: their hidden states (CKA) and their decisions, side by side.

Both are measured on the same minibatches of questions. The decisions' Jensen-Shannon similarity is
also given beyond chance (as Cohen's kappa is of agreement), because two unrelated models that are
unsure, or that prefer the same letter, have similar decision representations on every question;
CKA is 0 for unrelated states by construction.

CKA (Kornblith et al. 2019) is the normalised HSIC of two representations of the same examples. As
in Nguyen et al. 2021 (arXiv 2010.15327, equation 2) HSIC is estimated without bias from each
minibatch (Song et al. 2012, equation 5) and averaged before the ratio is taken, so that neither the
size of a minibatch nor a width larger than the number of examples pulls the value up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import CONFIDENCE, Interval, bootstrap_mean

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


#: The fewest minibatches that an interval is given for.
LEAST_GROUPS = 5


def js_similarity(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """1 - Jensen-Shannon divergence in bits (Lin 1991), in [0, 1].

    Args:
        p: ``[..., K]`` distributions; absent options are 0.
        q: ``[..., K]`` others, broadcastable.

    Returns:
        ``[...]`` 1 for equal distributions, 0 for those that share no option.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    half = (p + q) / 2
    divergence = 0.5 * (_relative_entropy(p, half) + _relative_entropy(q, half))
    return (1 - divergence).clip(0, 1)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL divergence in bits, along the last axis; 0 log 0 is 0."""
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    return (p * np.log2(ratio)).sum(axis=-1)


def cosine_similarity(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``[...]`` cosine of ``[..., K]`` distributions, in [0, 1]."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    norms = np.linalg.norm(p, axis=-1) * np.linalg.norm(q, axis=-1)
    return ((p * q).sum(axis=-1) / norms).clip(0, 1)


def over_readouts(similarity, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``[R, S]`` mean over questions of the similarity of every two readouts.

    Args:
        similarity: one of the above.
        p: ``[Q, R, K]`` of one model.
        q: ``[Q, S, K]`` of the other.
    """
    return np.stack([similarity(p[:, at, None], q).mean(axis=0) for at in range(p.shape[1])])


def unrelated(p: np.ndarray, q: np.ndarray, options: np.ndarray) -> tuple[float, int]:
    """JS similarity of one model's decisions with the other's on other questions of a minibatch.

    Args:
        p: ``[n, K]`` of one model.
        q: ``[n, K]`` of the other.
        options: ``[n]`` number of options; only questions with equally many are compared.

    Returns:
        Sum over pairs, and number of pairs.
    """
    pairs = (options[:, None] == options) & ~np.eye(len(options), dtype=bool)
    return float(js_similarity(p[:, None], q)[pairs].sum()), int(pairs.sum())


@dataclass(frozen=True)
class Minibatches:
    """HSIC of a full and of a pruned model, a row a minibatch of questions.

    Attributes:
        cross: ``[G, L+1, L'+1]``.
        full: ``[G, L+1]``.
        pruned: ``[G, L'+1]``.
        members: ``[G]`` arrays, the positions of each minibatch's questions.
    """

    cross: np.ndarray
    full: np.ndarray
    pruned: np.ndarray
    members: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Alike:
    """How alike a full and a pruned model are; the latter's readouts are ``[L'+1]`` of the former.

    Attributes:
        readouts: which readout of the full model each of the pruned one's stands at.
        changed: ``[L'+1]`` those behind the first removed block. Before it the two are equal.
        cka: ``[L+1, L'+1]`` of the hidden states at every two readouts.
        js: ``[L+1, L'+1]`` mean Jensen-Shannon similarity of the decision representations.
        cosine: ``[L+1, L'+1]`` mean cosine of these.
        cka_diagonal: ``[L'+1]`` CKA behind the same original block.
        js_diagonal: likewise, with bootstrap intervals over questions.
        cosine_diagonal: likewise.
        cka_mean: mean of CKA over the diagonal's changed readouts.
        js_mean: mean of JS similarity over the same readouts.
        cka_output: CKA at the two outputs.
        js_output: JS similarity there.
        cosine_output: cosine there.
        js_unrelated: JS similarity at the outputs of decisions on different questions.
        js_beyond_chance: (js - unrelated) / (1 - unrelated): 1 equal, 0 unrelated.
        gap: CKA at the outputs minus ``js_beyond_chance``.
        gap_p_value: two-sided, of "the gap is 0".
    """

    readouts: np.ndarray
    changed: np.ndarray
    cka: np.ndarray
    js: np.ndarray
    cosine: np.ndarray
    cka_diagonal: Interval
    js_diagonal: Interval
    cosine_diagonal: Interval
    cka_mean: Interval
    js_mean: Interval
    cka_output: Interval
    js_output: Interval
    cosine_output: Interval
    js_unrelated: float
    js_beyond_chance: Interval
    gap: Interval
    gap_p_value: float


def compare(
    hsic: Minibatches,
    p: np.ndarray,
    q: np.ndarray,
    options: np.ndarray,
    readouts: np.ndarray,
    first_removed: int,
    seed: int,
) -> Alike:
    """Lay the similarity of hidden states and that of decisions side by side.

    Args:
        hsic: of the hidden states.
        p: ``[Q, L+1, K]`` decision representations of the full model.
        q: ``[Q, L'+1, K]`` of the pruned one.
        options: ``[Q]`` number of options of each question.
        readouts: ``[L'+1]`` the full model's readout that each of the pruned one's stands at.
        first_removed: the first removed block.
        seed: of the bootstrap over questions.
    """
    groups = len(hsic.members)
    changed = readouts > first_removed
    columns = np.arange(len(readouts))

    def of_states(weights: np.ndarray) -> np.ndarray:
        """``[L'+3]``: CKA on the diagonal, its mean over the changed readouts, at the outputs."""
        summed = (np.tensordot(weights, one, 1) for one in (hsic.cross, hsic.full, hsic.pruned))
        matrix = cka(*summed)
        diagonal = matrix[readouts, columns]
        mean = diagonal[changed].mean() if changed.any() else np.nan
        return np.array([*diagonal, mean, matrix[-1, -1]])

    js = js_similarity(p[:, readouts], q)
    cosine = cosine_similarity(p[:, readouts], q)
    js_output = js_similarity(p[:, -1], q[:, -1])
    cosine_output = cosine_similarity(p[:, -1], q[:, -1])
    apart = np.array([unrelated(p[at, -1], q[at, -1], options[at]) for at in hsic.members])
    sums = np.array([(js_output[at].sum(), len(at)) for at in hsic.members])

    def of_decisions(weights: np.ndarray) -> np.ndarray:
        """JS similarity at the outputs: of different questions, and beyond chance."""
        (total, count), (other, pairs) = weights @ sums, weights @ apart
        base = other / pairs if pairs else np.nan
        return np.array([base, (total / count - base) / (1 - base) if base < 1 else np.nan])

    def of_both(weights: np.ndarray) -> np.ndarray:
        beyond = of_decisions(weights)[1]
        return np.array([beyond, of_states(weights)[-1] - beyond])

    value, low, high, _ = jackknife(groups, of_states)
    low, high = low.clip(-1, 1), high.clip(-1, 1)
    beyond, beyond_low, beyond_high, p_value = jackknife(groups, of_both)

    def states(part: int | slice) -> Interval:
        return Interval(value[part], low[part], high[part])

    return Alike(
        readouts=readouts,
        changed=changed,
        cka=cka(hsic.cross.sum(axis=0), hsic.full.sum(axis=0), hsic.pruned.sum(axis=0)),
        js=over_readouts(js_similarity, p, q),
        cosine=over_readouts(cosine_similarity, p, q),
        cka_diagonal=states(slice(0, -2)),
        js_diagonal=_mean(js, seed),
        cosine_diagonal=_mean(cosine, seed),
        cka_mean=states(-2),
        js_mean=_mean(js[:, changed].mean(axis=1), seed) if changed.any() else states(-2),
        cka_output=states(-1),
        js_output=_mean(js_output, seed),
        cosine_output=_mean(cosine_output, seed),
        js_unrelated=float(of_decisions(np.ones(groups))[0]),
        js_beyond_chance=Interval(beyond[0], beyond_low[0], beyond_high[0]),
        gap=Interval(beyond[1], beyond_low[1], beyond_high[1]),
        gap_p_value=float(p_value[1]),
    )


def _mean(values: np.ndarray, seed: int) -> Interval:
    """Mean over questions with its bootstrap interval."""
    low, high = bootstrap_mean(values, seed)
    return Interval(values.mean(axis=0), low, high)
