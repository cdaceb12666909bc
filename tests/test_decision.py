"""The pure parts, against independent arithmetic and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from phaseprune.decision.collapse import find_cliff, retained
from phaseprune.decision.frequency import gold_frequency, option_frequency
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.margin import (
    decision_margin,
    decision_representation,
    decisions,
    gold_loss,
)
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.transition import find_transition, step_gain


@st.composite
def scored_questions(draw):
    """Scores [Q, R, K] with unequal numbers of options, and gold options."""
    questions, readouts = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    options = np.array(draw(st.lists(st.integers(2, 5), min_size=questions, max_size=questions)))
    width = int(options.max())
    scores = draw(
        hnp.arrays(np.float64, (questions, readouts, width), elements=st.floats(-300, 300))
    )
    scores[np.broadcast_to((np.arange(width) >= options[:, None])[:, None], scores.shape)] = -np.inf
    gold = np.array([draw(st.integers(0, k - 1)) for k in options])
    return scores, gold, options


@settings(deadline=None)
@given(scored_questions())
def test_representation_is_scipys_softmax(case):
    scores, _, _ = case
    p = decision_representation(scores)
    np.testing.assert_allclose(p, special.softmax(scores, axis=-1), atol=1e-12)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-12)
    assert (p[np.isneginf(scores)] == 0).all()


@settings(deadline=None)
@given(scored_questions())
def test_margin_by_hand(case):
    scores, gold, options = case
    p = decision_representation(scores)
    margins = decision_margin(p, gold)
    for q, (right, k) in enumerate(zip(gold, options, strict=True)):
        for r in range(scores.shape[1]):
            others = [p[q, r, o] for o in range(k) if o != right]
            assert margins[q, r] == pytest.approx(p[q, r, right] - max(others), abs=1e-12)
            assert -1 <= margins[q, r] <= 1
            if margins[q, r] > 0:
                assert decisions(scores)[q, r] == right
            if margins[q, r] < 0:
                assert decisions(scores)[q, r] != right


@settings(deadline=None)
@given(scored_questions())
def test_margin_does_not_see_a_shift_of_the_scores(case):
    scores, gold, _ = case
    moved = decision_margin(decision_representation(scores + 7.5), gold)
    np.testing.assert_allclose(
        moved, decision_margin(decision_representation(scores), gold), atol=1e-9
    )


@settings(deadline=None)
@given(scored_questions())
def test_option_frequency_counts(case):
    scores, gold, _ = case
    all_decisions = Decisions(scores, gold, np.isfinite(scores[:, 0]).sum(-1))
    frequency = all_decisions.option_frequency()
    np.testing.assert_allclose(frequency.sum(axis=-1), 1)
    for r in range(scores.shape[1]):
        for o in range(scores.shape[2]):
            count = sum(int(np.argmax(row)) == o for row in scores[:, r])
            assert frequency[r, o] == pytest.approx(count / len(scores))
    np.testing.assert_allclose(gold_frequency(gold, scores.shape[2]).sum(), 1)


def test_ties_go_to_the_first_option():
    scores = np.array([[[1.0, 1.0, 0.5]]])
    assert decisions(scores)[0, 0] == 0
    assert option_frequency(decisions(scores), 3)[0].tolist() == [1, 0, 0]
    assert decision_margin(decision_representation(scores), np.array([0]))[0, 0] == 0


def test_gold_loss_is_cross_entropy():
    p = np.array([[[0.5, 0.25, 0.25]]])
    assert gold_loss(p, np.array([1]))[0, 0] == pytest.approx(np.log(4))


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(trials, data):
    successes = data.draw(st.integers(0, trials))
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson(successes, trials)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


def test_bootstrap_is_seeded_and_matches_the_normal_interval():
    values = np.random.default_rng(3).normal(1.0, 2.0, size=(400, 2))
    bounds = bootstrap_mean(values, seed=5)
    assert (bounds == bootstrap_mean(values, seed=5)).all()
    assert (bounds != bootstrap_mean(values, seed=6)).any()
    half = 1.96 * values.std(axis=0) / 20
    np.testing.assert_allclose(bounds[0], values.mean(axis=0) - half, atol=0.04)
    np.testing.assert_allclose(bounds[1], values.mean(axis=0) + half, atol=0.04)


@given(hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-1, 1)))
def test_best_step_is_the_least_squares_one(curve):
    def squares(split):
        return sum(((part - part.mean()) ** 2).sum() for part in (curve[:split], curve[split:]))

    gain = step_gain(curve)
    total = ((curve - curve.mean()) ** 2).sum()
    for split in range(1, len(curve)):
        assert gain[split - 1] ** 2 == pytest.approx(total - squares(split), abs=1e-9)


def stepped(questions, readouts, at, low, high, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    curve = np.where(np.arange(readouts) < at, low, high)
    margins = curve + rng.normal(0, noise, size=(questions, readouts))
    return margins, margins[:, -1] > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 11), st.integers(0, 100))
def test_a_clear_step_is_found_where_it_is(at, seed):
    margins, correct = stepped(150, 12, at, -0.2, 0.5, seed)
    found = find_transition(margins, correct, 0.25, seed=0)
    assert found.found and found.readout == at
    assert found.ci[0] <= at <= found.ci[1]
    assert found.silent_blocks == tuple(range(at))
    assert found.decisive_blocks == tuple(range(at, 11))
    assert found.phase(at - 1) == "silent"
    assert found.silent_level == pytest.approx(-0.2, abs=0.1)
    assert found.decisive_level == pytest.approx(0.5, abs=0.1)
    assert found.sharpness == pytest.approx(1, abs=0.35)
    assert 0.9 < found.r2 <= 1


def test_no_transition_at_chance_says_why():
    margins, _ = stepped(100, 10, 5, -0.3, 0.4)
    found = find_transition(margins, np.arange(100) % 4 == 0, 0.25, seed=0)
    assert not found.found and "not above chance" in found.reason and "0.250" in found.reason
    assert found.phase(3) is None


def test_a_flat_curve_has_no_transition():
    rng = np.random.default_rng(0)
    margins = rng.normal(0.5, 0.3, size=(100, 1)) + rng.normal(0, 0.1, size=(100, 10))
    found = find_transition(margins, margins[:, -1] > 0, 0.25, seed=0)
    assert not found.found and "does not rise" in found.reason


def test_the_step_test_is_not_fooled_by_random_walks():
    """Trajectories that drift, each its own way, have no common transition: level near 1 %."""
    false = 0
    for seed in range(100):
        walks = np.cumsum(np.random.default_rng(seed).normal(0, 0.2, size=(60, 15)), axis=1)
        false += find_transition(walks, np.ones(60, bool), 0.25, seed=seed).found
    assert false <= 4


def test_a_fall_is_no_transition():
    margins, _ = stepped(100, 10, 5, 0.6, 0.1)
    assert not find_transition(margins, np.ones(100, bool), 0.25, seed=0).found


def test_retained_by_hand():
    full = np.array([1, 1, 1, 0] * 25, bool)
    pruned = np.array([1, 1, 0, 0] * 25, bool)
    left = retained(pruned, full, np.full(100, 0.25), seed=0)
    assert left.value == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    assert left.ci[0] < left.value < left.ci[1] and not left.collapsed
    gone = retained(np.arange(100) % 4 == 3, full, np.full(100, 0.25), seed=0)
    assert gone.value == pytest.approx(0) and gone.collapsed


def test_retained_is_undefined_at_chance():
    at_chance = np.arange(100) % 4 == 0
    assert retained(at_chance, at_chance, np.full(100, 0.25), seed=0).value is None


def test_cliff_is_the_largest_loss():
    rng = np.random.default_rng(0)
    rows = [rng.random(200) < share for share in (0.9, 0.88, 0.86, 0.3, 0.26)]
    cliff = find_cliff(rows, [None, 7, 8, 1, 2], [None, "decisive", "decisive", "silent", "silent"],
                       np.full(200, 0.25), seed=0)  # fmt: skip
    assert (cliff.step, cliff.removed, cliff.phase) == (3, 1, "silent")
    expected = (rows[2].mean() - rows[3].mean()) / (rows[0].mean() - 0.25)
    assert cliff.loss == pytest.approx(expected) and cliff.significant
    same = find_cliff([rows[0], rows[0]], [None, 1], [None, None], np.full(200, 0.25), seed=0)
    assert same is None
