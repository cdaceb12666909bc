"""The pure parts, against independent arithmetic and by property."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from phaseprune.decision.collapse import (
    Retained,
    collapse_kind,
    largest_loss,
    ratio,
    retained,
)
from phaseprune.decision.curve import (
    SIGNIFICANCE,
    best_ramp,
    best_two_steps,
    fit_shape,
    rise_p_value,
    step_gain,
)
from phaseprune.decision.decisions import (
    Decisions,
    decision_margin,
    decision_representation,
    decisions,
    gold_loss,
    margins_of_options,
)
from phaseprune.decision.frequency import gold_frequency, option_frequency
from phaseprune.decision.intervals import bootstrap_mean, wilson
from phaseprune.decision.transition import find_transition, gold_p_values, permuted_golds
from populations import READOUTS, Population, step, straight_leads


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


@pytest.mark.slow
@settings(deadline=None)
@given(scored_questions())
def test_representation_is_scipys_softmax(case):
    scores, _, _ = case
    p = decision_representation(scores)
    np.testing.assert_allclose(p, special.softmax(scores, axis=-1), atol=1e-12)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-12)
    assert (p[np.isneginf(scores)] == 0).all()


@pytest.mark.slow
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


@pytest.mark.slow
@settings(deadline=None)
@given(scored_questions())
def test_margin_does_not_see_a_shift_of_the_scores(case):
    scores, gold, _ = case
    moved = decision_margin(decision_representation(scores + 7.5), gold)
    np.testing.assert_allclose(
        moved, decision_margin(decision_representation(scores), gold), atol=1e-9
    )


@pytest.mark.slow
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


def population(at, readouts=12, lead=3.0):
    return Population(step(at, lead, readouts=readouts))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 11), st.integers(0, 100))
def test_a_clear_step_is_found_where_it_is(at, seed):
    decisions = population(at).sample(150, np.random.default_rng(seed)).debiased
    found = find_transition(decisions, seed=0)
    assert found.found and found.readout == at
    assert found.ci[0] <= at <= found.ci[1]
    assert found.silent_blocks == tuple(range(at))
    assert found.decisive_blocks == tuple(range(at, 11))
    assert found.phase(at - 1) == "silent"
    mean = decisions.margins.mean(axis=0)
    assert found.silent_level == pytest.approx(mean[:at].mean())
    assert found.decisive_level == pytest.approx(mean[at:].mean())
    rise = (mean[at] - mean[at - 1]) / (mean[at:].mean() - mean[:at].mean())
    assert found.sharpness == pytest.approx(rise)
    assert found.sharpness_ci[0] <= found.sharpness <= found.sharpness_ci[1]
    assert found.shape != "gradual" and 0.9 < found.r2 <= found.shape_r2 + 1e-12


def test_no_transition_where_the_output_is_not_informed():
    decisions = population(13).sample(100, np.random.default_rng(0))
    found = find_transition(decisions, seed=0)
    assert not found.found and "do not depend on the gold" in found.reason
    assert "chance is 0.250" in found.reason and found.phase(3) is None
    assert found.sharpness is None and found.ci is None


def test_no_transition_where_all_is_known_from_the_start():
    decisions = Population(np.full(12, 2.0)).sample(150, np.random.default_rng(0))
    found = find_transition(decisions, seed=0)
    assert not found.found and found.reason


def test_a_change_of_scale_is_no_transition():
    """Decisions that stay the same, with scores eight times as large from readout 6 on."""
    quiet = Population(np.full(12, 1.2), scale=step(6, 4.0, 0.5, 12), correlation=1.0)
    decisions = quiet.sample(200, np.random.default_rng(0))
    margins = decisions.margins.mean(axis=0)
    assert margins[6:].min() > margins[:6].max() + 0.1
    found = find_transition(decisions, seed=0)
    assert not found.found and "more often right" in found.reason


def test_a_fading_label_prior_is_no_transition():
    fades = np.where(np.arange(12)[:, None] < 6, [[4.0, 0, 0, 0]], 0.0)
    decisions = Population(step(11, 3.0, readouts=12), prior=fades).sample(
        200, np.random.default_rng(0)
    )
    raw = decisions.margins.mean(axis=0)
    assert raw[6] > raw[5] + 0.2
    assert find_transition(decisions.debiased, seed=0, output=decisions).readout == 11


def test_a_fall_is_no_transition():
    falls = Population(np.where(np.arange(10) < 5, 3.0, 0.8))
    decisions = falls.sample(200, np.random.default_rng(0))
    assert not find_transition(decisions, seed=0).found


def test_what_explains_little_of_the_curve_is_no_transition():
    """DM that moves with the scale of scores that mean little, and rises a little at the end."""
    wavy = 1 + 5 * (np.arange(20) % 2)
    decisions = Population(step(18, 0.7, readouts=20), scale=wavy.astype(float)).sample(
        600, np.random.default_rng(1)
    )
    found = find_transition(decisions, seed=0)
    assert not found.found and "explains" in found.reason


@pytest.mark.slow
def test_shapes():
    rng = np.random.default_rng(0)
    sharp = population(8, 16).sample(300, rng)
    ramp = Population(straight_leads(-0.2, 0.6, 16)).sample(300, rng)
    late = Population(np.full(16, 3.0), onset=(4, 12)).sample(300, rng)
    twice = Population(np.repeat([0.0, 1.4, 8.0], [5, 6, 5])).sample(400, rng)
    assert fit_shape(sharp.margins, 0).kind == "step"
    assert fit_shape(ramp.margins, 0).kind == fit_shape(late.margins, 0).kind == "gradual"
    several = fit_shape(twice.margins, 0)
    assert several.kind == "several" and several.rise == (5, 11)
    begin, end = fit_shape(late.margins, 0).rise_ci
    assert begin[0] <= 3 <= begin[1] and end[0] <= 12 <= end[1]


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.float64, st.integers(3, 9), elements=st.floats(-1, 1)))
@example(np.array([0.0, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.75]))  # the smaller step is a fifth
def test_rises_and_steps_are_the_least_squares_ones(curve):
    """Against numpy's least squares over every pair of points."""
    at = np.arange(len(curve))
    total = ((curve - curve.mean()) ** 2).sum()

    def left(columns):
        design = np.stack([np.ones(len(curve)), *columns], axis=1)
        fitted = np.linalg.lstsq(design, curve, rcond=None)[0]
        return fitted, ((curve - design @ fitted) ** 2).sum()

    best = 0.0
    for a in at:
        for b in range(a + 1, len(curve)):
            (_, height), rest = left([np.clip((at - a) / (b - a), 0, 1)])
            best = max(best, total - rest if height > 0 else 0.0)
    assert max(best_ramp(curve[None])[1][0], 0) ** 2 == pytest.approx(best, abs=1e-8)
    best = 0.0
    for a in range(1, len(curve)):
        for b in range(a + 1, len(curve)):
            (_, one, two), rest = left([at >= a, at >= b])
            if min(one, two) > 0 and min(one, two) >= 0.2 * (one + two) - 1e-12:
                best = max(best, total - rest)
    assert best_two_steps(curve[None])[1][0] == pytest.approx(best, abs=1e-8)


def test_the_test_of_a_rise_is_not_fooled_by_random_walks():
    """Trajectories that drift, each its own way, do not rise together: level near 1 %."""
    false = 0
    for seed in range(100):
        walks = np.cumsum(np.random.default_rng(seed).normal(0, 0.2, size=(60, 15)), axis=1)
        false += rise_p_value(walks, seed) < SIGNIFICANCE
    assert false <= 4


def test_margins_of_options_by_the_margin_of_each_gold():
    rng = np.random.default_rng(0)
    p = decision_representation(rng.normal(size=(20, 3, 4)))
    p[0, 0] = [0.4, 0.4, 0.1, 0.1]
    table = margins_of_options(p)
    for gold in range(4):
        np.testing.assert_allclose(table[..., gold], decision_margin(p, np.full(20, gold)))


def test_golds_are_permuted_among_questions_with_as_many_options():
    gold, options = np.array([0, 1, 2, 3, 0, 1, 1]), np.array([4, 4, 4, 4, 2, 2, 2])
    golds = permuted_golds(gold, options, 200, np.random.default_rng(0))
    assert (np.sort(golds[:, :4], axis=1) == [0, 1, 2, 3]).all()
    assert (np.sort(golds[:, 4:], axis=1) == [0, 1, 1]).all()
    assert len(np.unique(golds, axis=0)) > 50


def test_golds_in_one_place_are_drawn_where_the_place_means_nothing():
    options = np.array([4] * 300 + [2] * 300)
    golds = permuted_golds(options - 1, options, 200, np.random.default_rng(0), exchangeable=True)
    assert (golds < options).all() and (golds >= 0).all()
    shares = [np.bincount(golds[:, options == k].ravel()) / (200 * 300) for k in (4, 2)]
    np.testing.assert_allclose(shares[0], 0.25, atol=0.01)
    np.testing.assert_allclose(shares[1], 0.5, atol=0.01)
    assert (permuted_golds(options - 1, options, 50, np.random.default_rng(0)) == options - 1).all()


LAST = {"golds": (0.0, 0.0, 0.0, 1.0), "letters": False}


def of_one_place(population: Population, seed: int, exchangeable: bool = True) -> Decisions:
    sampled = population.sample(200, np.random.default_rng(seed))
    return replace(sampled, exchangeable=exchangeable)


def test_what_texts_with_golds_in_one_place_know_is_found():
    """A tenth above chance, and a step: with permuted golds neither could be."""
    weak = Population(np.full(READOUTS, 0.45), **LAST)
    informed = [gold_p_values(d, d, 0)[0] for d in (of_one_place(weak, seed) for seed in range(20))]
    assert sum(p < SIGNIFICANCE for p in informed) >= 18
    decisions = of_one_place(Population(step(20, 1.5), **LAST), 0)
    assert find_transition(decisions, 0).readout == 20
    permuted = of_one_place(Population(step(20, 1.5), **LAST), 0, exchangeable=False)
    assert find_transition(permuted, 0).informed is False


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, np.linspace(0.1, 3, READOUTS)], ids=["even", "growing"])
def test_texts_with_golds_in_one_place_that_know_nothing(scale):
    """Of 300 samples no more than 2 in 100 are informed, or rise."""
    nothing = Population(np.zeros(READOUTS), scale=scale, **LAST)
    wrong = np.zeros(2)
    for seed in range(300):
        decisions = of_one_place(nothing, seed)
        wrong += np.array(gold_p_values(decisions, decisions, seed, 399)) < SIGNIFICANCE
    assert (wrong <= 6).all()


def test_retained_by_hand():
    full = np.array([1, 1, 1, 0] * 25, bool)
    pruned = np.array([1, 1, 0, 0] * 25, bool)
    left = retained(pruned, full, np.full(100, 0.25))
    assert left.value == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    assert left.ci[0] < left.value < left.ci[1] and not left.collapsed
    gone = retained(np.arange(100) % 4 == 3, full, np.full(100, 0.25))
    assert gone.value == pytest.approx(0) and gone.collapsed
    assert retained(full, full, np.full(100, 0.25)).ci == pytest.approx((1, 1))


def test_retained_is_undefined_at_chance():
    at_chance = np.arange(100) % 4 == 0
    assert retained(at_chance, at_chance, np.full(100, 0.25)) == Retained(None, None)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_fiellers_interval_is_where_a_t_test_does_not_reject(questions, seed):
    rng = np.random.default_rng(seed)
    full = (rng.random(questions) < rng.uniform(0.3, 1)) - 0.25
    pruned = np.where(rng.random(questions) < 0.6, full, (rng.random(questions) < 0.4) - 0.25)
    got = ratio(pruned, full)
    if full.mean() <= 0:
        assert got == Retained(None, None)
        return
    low, high = got.ci
    assert low <= got.value <= high and np.isfinite(got.ci).all()
    for r in rng.uniform(low - 1, high + 1, size=20):
        rest = pruned - r * full
        spread = rest.std(ddof=1) / np.sqrt(questions)
        kept = abs(rest.mean()) <= stats.t.ppf(0.975, questions - 1) * spread + 1e-9
        inside = low - 1e-6 <= r <= high + 1e-6
        # An interval with an end that was cut, and the second ray of two, hold more.
        end = max(questions, abs(got.value))
        if abs(low) < end and abs(high) < end:
            assert kept == inside or min(abs(r - low), abs(r - high)) < 1e-3
        elif inside:
            assert kept


@pytest.mark.parametrize(
    ("raw", "debiased", "kind"),
    [
        ((-0.1, 0.2), (0.6, 1.0), "calibration"),
        ((-0.1, 0.2), (-0.1, 0.2), "knowledge"),
        ((-0.1, 0.2), (0.1, 0.5), "unclear"),
        ((0.1, 0.5), (-0.1, 0.2), None),
        ((-0.1, 0.2), None, None),
    ],
)
def test_kinds_of_collapse(raw, debiased, kind):
    of = None if debiased is None else Retained(sum(debiased) / 2, debiased)
    assert collapse_kind(Retained(sum(raw) / 2, raw), of) == kind


def test_the_largest_loss():
    rng = np.random.default_rng(0)
    rows = [rng.random(200) < share for share in (0.9, 0.88, 0.86, 0.3, 0.26)]
    removed, phases = [None, 7, 8, 1, 2], [None, "decisive", "decisive", "silent", "silent"]
    loss = largest_loss(rows, removed, phases, np.full(200, 0.25))
    assert (loss.step, loss.removed, loss.phase) == (3, 1, "silent")
    expected = (rows[2].mean() - rows[3].mean()) / (rows[0].mean() - 0.25)
    assert loss.loss == pytest.approx(expected) and loss.loss_ci[0] > 0
    assert largest_loss([rows[0]] * 2, [None, 1], [None, None], np.full(200, 0.25)) is None
