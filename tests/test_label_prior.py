"""The label prior: worked out on paper, and what it must not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseprune.decision.decisions import FEWEST, FOLDS, Decisions, label_prior
from phaseprune.decision.transition import find_transition, gold_p_values


def forty_questions():
    """Forty questions with two labels, at two readouts.

    At readout 0 all scores are A 3, B 0. At readout 1 the label A is preferred by 2 and the content
    speaks for one option by 1, so that A leads B by 3 or by 1, in 20 questions each. Of the 20 with
    3, A is right in 15; of the 20 with 1, in 5. Every fold (each tenth question) has two of either.
    """
    lead = np.repeat([3.0, 1.0], 20)
    gold = np.array([0] * 15 + [1] * 5 + [1] * 15 + [0] * 5)
    scores = np.zeros((40, 2, 2))
    scores[:, 0, 0], scores[:, 1, 0] = 3.0, lead
    return Decisions(scores, gold, np.full(40, 2), letters=True)


def test_forty_questions_by_hand():
    raw = forty_questions()
    debiased = raw.debiased
    # Raw: A everywhere, right in the 20 where it is gold. p(A) - p(B) = tanh(lead / 2), so DM is
    # (15 tanh 1.5 - 5 tanh 1.5 + 5 tanh 0.5 - 15 tanh 0.5) / 40.
    assert (raw.decided == 0).all()
    assert raw.correct.mean(axis=0).tolist() == [0.5, 0.5]
    expected = (np.tanh(1.5) - np.tanh(0.5)) / 4
    assert expected == pytest.approx(0.1107578, abs=1e-7)
    assert raw.margins[:, 1].mean() == pytest.approx(expected, abs=1e-12)
    assert raw.margins[:, 0].mean() == pytest.approx(0, abs=1e-12)
    # The prior: A leads by 3 at readout 0, by (18 * 3 + 18 * 1) / 36 = 2 at readout 1.
    np.testing.assert_allclose(raw.label_prior[:, 0], [[1.5, -1.5]] * 40)
    np.testing.assert_allclose(raw.label_prior[:, 1], [[1.0, -1.0]] * 40)
    # Debiased: a tie at readout 0 (so the first option, DM 0); at readout 1 leads of +1 and -1,
    # right in 30 of 40, and DM is (30 - 10) / 40 tanh 0.5.
    assert debiased.correct.mean(axis=0).tolist() == [0.5, 0.75]
    assert debiased.margins[:, 0].tolist() == pytest.approx([0] * 40)
    assert 0.5 * np.tanh(0.5) == pytest.approx(0.2310586, abs=1e-7)
    assert debiased.margins[:, 1].mean() == pytest.approx(0.5 * np.tanh(0.5), abs=1e-12)
    assert debiased.option_frequency()[1].tolist() == [0.5, 0.5]
    assert raw.option_frequency()[1].tolist() == [1.0, 0.0]


def test_forty_questions_are_informed_only_without_the_prior():
    raw = forty_questions()
    # With other golds A is right in 20 as well: the output says nothing of the gold.
    assert gold_p_values(raw, raw, 0)[0] == 1.0
    # Debiased 20 decide for A, 15 of these rightly: P(X >= 15), X hypergeometric (40, 20, 20).
    p_value = gold_p_values(raw.debiased, raw.debiased, 0, permutations=19999)[0]
    assert p_value == pytest.approx(0.00192, abs=0.001)
    found = find_transition(raw.debiased, 0, output=raw)
    assert not found.found and "do not depend on the gold" in found.reason
    assert "100% of the answers are option 1" in found.reason


def lettered(questions=60, options=4, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(questions, 3, options)) + rng.normal(0, 3, size=(3, options))
    return scores, rng.integers(options, size=questions)


def test_a_question_does_not_judge_itself():
    """Its prior, and so its debiased decision, is that of the other folds alone."""
    scores, _ = lettered()
    options = np.full(len(scores), 4)
    before = label_prior(scores, options)
    scores[7] += [50.0, 0, 0, 0]
    after = label_prior(scores, options)
    own_fold = np.arange(len(scores)) % FOLDS == 7 % FOLDS
    np.testing.assert_array_equal(before[own_fold], after[own_fold])
    assert (before[~own_fold] != after[~own_fold]).any(axis=(1, 2)).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(2, 5), min_size=1, max_size=40), st.integers(0, 1000))
def test_the_prior_by_a_loop(numbers, seed):
    options = np.array(numbers)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(options), 2, int(options.max())))
    scores[
        np.broadcast_to((np.arange(scores.shape[-1]) >= options[:, None])[:, None], scores.shape)
    ] = -np.inf
    prior = label_prior(scores, options)
    for q, k in enumerate(options):
        like = [i for i in range(len(options)) if options[i] == k]
        if len(like) <= FEWEST:
            like = [i for i in range(len(options)) if options[i] >= k]
        place = like.index(q)
        others = [i for p, i in enumerate(like) if p % FOLDS != place % FOLDS]
        expected = np.zeros((2, scores.shape[-1]))
        if others:
            each = [
                scores[i, :, :k] - scores[i, :, :k].mean(axis=-1, keepdims=True) for i in others
            ]
            expected[:, :k] = np.mean(each, axis=0)
        np.testing.assert_allclose(prior[q], expected, atol=1e-12)


def test_a_prior_of_labels_is_taken_off_whole():
    """Adding a preference for labels to all scores leaves debiased figures as they are."""
    scores, gold = lettered()
    options = np.full(len(gold), 4)
    plain = Decisions(scores, gold, options, letters=True).debiased
    turned = Decisions(scores + [9.0, 0, -3, 1], gold, options, letters=True).debiased
    np.testing.assert_allclose(plain.margins, turned.margins, atol=1e-9)
    np.testing.assert_array_equal(plain.correct, turned.correct)


def test_texts_have_no_label_prior():
    scores, gold = lettered()
    texts = Decisions(scores, gold, np.full(len(gold), 4))
    assert texts.debiased is texts and not texts.label_prior.any()


def test_vocabulary_probabilities_keep_their_sum():
    scores, gold = lettered()
    given = np.exp(scores) / 1000
    debiased = Decisions(scores, gold, np.full(len(gold), 4), given, True).debiased
    np.testing.assert_allclose(debiased.probabilities.sum(axis=-1), given.sum(axis=-1))
    np.testing.assert_array_equal(debiased.decided, debiased.probabilities.argmax(axis=-1))
