"""How many questions an effect needs, against simulated samples of so many."""

import numpy as np
import pytest

from phaseprune.decision.intervals import bootstrap_mean, questions_needed


@pytest.mark.parametrize(("confidence", "z"), [(0.95, 1.96), (0.99, 2.576)])
def test_as_many_questions_as_needed_decide_in_80_of_100(confidence, z):
    rng = np.random.default_rng(0)
    pilot = 0.05 + rng.normal(size=4000)
    mean, error = 0.05, pilot.std() / 4000**0.5
    needed = questions_needed(mean, (mean - 1.96 * error, mean + 1.96 * error), 4000, confidence)
    means = mean + rng.normal(size=4000) * pilot.std() / needed**0.5
    assert np.mean(means - z * pilot.std() / needed**0.5 > 0) == pytest.approx(0.8, abs=0.03)


def test_from_a_bootstrap_interval():
    values = np.random.default_rng(1).integers(-1, 2, size=200) + 0.05
    needed = questions_needed(float(values.mean()), bootstrap_mean(values, 0), 200)
    by_hand = 200 * (2.80 * values.std() / 200**0.5 / values.mean()) ** 2
    assert needed == pytest.approx(by_hand, rel=0.1)


@pytest.mark.parametrize(
    ("value", "ci", "needed"),
    [
        (0.0, (-0.1, 0.1), None),
        (0.3, None, None),
        (0.2, (0.2, 0.2), 1),
        (0.1, (-0.3, 0.5), 3270),
        (0.001, (-0.1, 0.1), None),
        (float("nan"), (0.0, 1.0), None),
        (-0.1, (-0.2, 0.0), 205),
        (0.5, (0.4, 0.6), 9),
    ],
)
def test_numbers_by_hand(value, ci, needed):
    assert questions_needed(value, ci, 100) == needed
