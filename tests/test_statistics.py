"""Corrections, paired tests, coverage of the transition's interval: against independent ones."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaseprune.decision.tests import benjamini_hochberg, compare_paired, holm, mcnemar
from phaseprune.decision.transition import PERMUTATIONS, find_transition
from populations import Population
from populations import step as lead_step
from steps import Regime, coverage, slope, step

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P_VALUES)
def test_holm_is_its_step_down_procedure(p_values):
    """Reject the smallest as long as it is below α over the number of tests left."""
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for left, test in zip(range(len(p_values), 0, -1), np.argsort(p_values), strict=True):
            if p_values[test] * left >= alpha:
                break
            rejected.add(int(test))
        assert rejected == set(np.flatnonzero(adjusted < alpha).tolist())


@given(P_VALUES)
def test_holm_is_the_textbook_maximum(p_values):
    ranked = sorted(p_values)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        before = [(len(ranked) - i) * q for i, q in enumerate(ranked) if q <= p]
        # Ties share the value of the first of them.
        first = ranked.index(p)
        expected = min(1, max(before[: first + 1]))
        assert adjusted == pytest.approx(expected)


@given(P_VALUES)
def test_benjamini_hochberg_is_scipys(p_values):
    expected = stats.false_discovery_control(p_values, method="bh")
    np.testing.assert_allclose(benjamini_hochberg(p_values), expected, atol=1e-12)


def test_the_levels_hold_under_the_null():
    """Of 2,000 families of ten null tests, Holm has a false finding in at most about 5 %."""
    draws = np.random.default_rng(0).random((2000, 10))
    false = np.mean([holm(row).min() < 0.05 for row in draws])
    assert 0.03 < false < 0.065
    assert np.mean([row.min() < 0.05 for row in draws]) > 0.3


@pytest.mark.parametrize("bad", [[0.5, 1.2], [-0.1], [float("nan")], [[0.1]]])
def test_what_is_no_p_value_is_refused(bad):
    for correct in (holm, benjamini_hochberg):
        with pytest.raises(ValueError, match="from 0 to 1"):
            correct(bad)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(only_first, only_second):
    n = only_first + only_second
    if n == 0:
        assert mcnemar(0, 0) == 1
        return
    assert mcnemar(only_first, only_second) == pytest.approx(
        stats.binomtest(only_first, n, 0.5).pvalue, rel=1e-9
    )
    by_hand = sum(comb(n, i) for i in range(n + 1) if comb(n, i) <= comb(n, only_first)) / 2**n
    assert mcnemar(only_first, only_second) == pytest.approx(by_hand, rel=1e-9)


def test_paired_by_hand():
    first = np.array([1, 1, 1, 0, 0, 1, 0, 1] * 10, bool)
    second = np.array([1, 1, 0, 0, 1, 0, 0, 1] * 10, bool)
    paired = compare_paired(first, second, seed=0)
    assert (paired.only_first, paired.only_second) == (20, 10)
    assert paired.difference == pytest.approx(-1 / 8)
    assert paired.ci[0] < -1 / 8 < paired.ci[1]
    assert paired.p_value == pytest.approx(stats.binomtest(10, 30, 0.5).pvalue)
    same = compare_paired(first, first, seed=0)
    assert (same.difference, same.ci, same.p_value) == (0, (0, 0), 1)


def test_synthetic_margins_have_the_mean_they_should():
    regime = Regime(20_000, step(6, 3, -0.3, 0.5), 1.0, 0.8)
    margins = regime.sample(np.random.default_rng(0))
    np.testing.assert_allclose(margins.mean(axis=0), regime.curve, atol=0.025)
    assert np.abs(margins).max() <= 1
    neighbours = np.corrcoef(margins[:, 4], margins[:, 5])[0, 1]
    assert 0.6 < neighbours < 0.9
    assert regime.transition == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "regime",
    [
        pytest.param(Regime(48, step(31, 20, -0.1, 0.1), 1, 0.8), id="sharp"),
        pytest.param(Regime(100, slope(31, 18, -0.2, 0.3, 2), 2, 0.9), id="blurred"),
    ],
)
def test_the_interval_of_the_transition_covers(regime):
    """Over 500 intervals, in regimes so noisy that they are not just one readout.

    Only samples that rise significantly count; where the step is obvious all intervals hold it.
    """
    got = coverage(regime, 500, seed=0)
    assert got.one_readout < 0.25 and got.exact < 0.9
    assert 0.92 <= got.covered <= 0.98


def test_more_permutations_allow_smaller_p_values():
    known = Population(lead_step(6, 4.0, readouts=12)).sample(80, np.random.default_rng(0))
    assert find_transition(known, seed=0).p_value == 1 / (PERMUTATIONS + 1)
    assert find_transition(known, seed=0, permutations=9999).p_value == 1e-4
