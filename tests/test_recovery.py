"""Recovery against depth: the curve, its knot, and the ladder that makes them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from phaseprune.cli.main import main
from phaseprune.decision.collapse import retained
from phaseprune.decision.recovery import find_levelling, retained_curve, trend
from phaseprune.decision.tests import margin_shift, paired_t
from phaseprune.errors import UserError
from phaseprune.healing.ladder import heal_ladder
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task

DEPTHS = [14, 11, 9, 7, 6, 5, 4, 3, 2]
QUESTIONS, CHANCE = 300, 0.25


def drawn(retained_at, seed, depths=DEPTHS, seeds=1):
    """Decisions of healed models that retain so much on average."""
    rng = np.random.default_rng(seed)
    share = CHANCE + (1 - CHANCE) * np.array([retained_at(depth) for depth in depths])
    return rng.random((len(depths), seeds, QUESTIONS)) < share[:, None, None]


def curve_of(retained_at, seed, **options):
    full, chances = np.ones(QUESTIONS), np.full(QUESTIONS, CHANCE)
    return retained_curve(drawn(retained_at, seed, **options), full, chances, seed)


@given(arrays(bool, (3, 1, 40)), arrays(bool, 40), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_with_one_seed_the_curve_is_retained_depth_by_depth(correct, full, seed):
    chances = np.full(40, CHANCE)
    curve = retained_curve(correct, full, chances, seed)
    for depth in range(3):
        expected = retained(correct[depth, 0], full, chances)
        if expected.value is None:
            assert curve is None
            continue
        assert curve.values[depth] == pytest.approx(expected.value)
        np.testing.assert_allclose(curve.ci[:, depth], expected.ci)


def test_several_seeds_widen_the_interval_where_they_disagree():
    rng = np.random.default_rng(0)
    shares = np.array([0.4, 0.95, 0.7])
    correct = rng.random((1, 3, QUESTIONS)) < shares[None, :, None]
    full, chances = np.ones(QUESTIONS), np.full(QUESTIONS, CHANCE)
    both = retained_curve(correct, full, chances, 0)
    alone = retained_curve(correct[:, 2:], full, chances, 0)
    assert np.diff(both.ci, axis=0)[0, 0] > 2 * np.diff(alone.ci, axis=0)[0, 0]
    same = retained_curve(np.repeat(correct[:, :1], 3, axis=1), full, chances, 0)
    one = retained_curve(correct[:, :1], full, chances, 0)
    np.testing.assert_allclose(same.draws, one.draws)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "knot", "flat"),
    [
        (lambda d: 0.15 * min(d, 6.3), 6.3, "above"),
        (lambda d: 0.14 * max(d - 7.0, 0), 7.0, "below"),
    ],
    ids=["flat above", "flat below"],
)
def test_a_knot_is_found_and_bounded(form, knot, flat):
    covered, claimed = [], 0
    for seed in range(20):
        found = find_levelling(DEPTHS, curve_of(form, seed))
        assert found.p_value < 0.01 and found.flat == flat and abs(found.depth - knot) < 1.5
        claimed += found.found
        covered.append(found.ci[0] <= knot <= found.ci[1])
    assert claimed >= 10  # that the flat side is flat must be shown, and is not every time
    assert stats.binomtest(sum(covered), 20, 0.95).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("form", [lambda d: 0.06 * d, lambda d: 0.5], ids=["line", "constant"])
def test_a_straight_curve_has_no_knot(form):
    found = [find_levelling(DEPTHS, curve_of(form, seed)) for seed in range(15)]
    assert sum(one.found for one in found) <= 1
    assert "not fit significantly better" in next(f.reason for f in found if not f.found)


def test_a_bend_without_a_flat_side_is_not_called_levelling_off():
    curve = curve_of(lambda d: 0.13 * min(d, 5) + 0.04 * max(d - 5, 0), 0)
    found = find_levelling(DEPTHS, curve)
    assert not found.found and found.p_value < 0.01 and "neither side is flat" in found.reason


def test_the_knot_is_the_best_of_all_broken_lines():
    """Against numpy's least squares at each knot."""
    curve = curve_of(lambda d: 0.15 * min(d, 6.3), 3)
    found = find_levelling(DEPTHS, curve)
    x = np.array(DEPTHS, float)

    def fit(knot):
        design = np.stack([np.ones_like(x), x, np.maximum(x - knot, 0)], axis=-1)
        solved, *_ = np.linalg.lstsq(design, curve.values, rcond=None)
        return ((curve.values - design @ solved) ** 2).sum(), solved

    errors = {knot: fit(knot)[0] for knot in np.arange(3, 11.01, 0.1)}
    assert found.depth == pytest.approx(min(errors, key=errors.get))
    _, solved = fit(found.depth)
    assert (found.slope_below, found.slope_above) == pytest.approx((solved[1], solved[1:].sum()))


def test_too_little_to_fit():
    few = find_levelling([4, 3, 2, 1], curve_of(lambda d: 0.1 * d, 0, depths=[4, 3, 2, 1]))
    assert not few.found and "at least 5" in few.reason
    nothing = retained_curve(np.ones((2, 1, 8)), np.zeros(8), np.full(8, CHANCE), 0)
    assert nothing is None


def test_the_trend_is_the_slope_of_the_line():
    curve = curve_of(lambda d: 0.06 * d, 1)
    slope, (low, high) = trend(DEPTHS, curve)
    assert slope == pytest.approx(stats.linregress(DEPTHS, curve.values).slope)
    assert low < slope < high and low < 0.06 < high


@given(arrays(float, (12, 3), elements=st.floats(-1, 1)))
@settings(max_examples=60, deadline=None)
def test_the_paired_t_test_is_scipys(differences):
    expected = stats.ttest_1samp(differences, 0, axis=0).pvalue
    moved = differences.std(axis=0) > 1e-6
    np.testing.assert_allclose(paired_t(differences)[moved], expected[moved], rtol=1e-6)


def test_margins_that_moved_are_named():
    rng = np.random.default_rng(0)
    before = rng.normal(0, 0.3, (200, 4))
    after = before + np.array([0, 0.2, -0.2, 0]) + rng.normal(0, 0.1, (200, 4))
    after[:, 0] = before[:, 0]
    shift = margin_shift(before, after, 0)
    assert shift.higher == [1] and shift.lower == [2] and shift.p_value[0] == 1
    assert shift.ci_low[1] < 0.2 < shift.ci_high[1]


# The ladder


@pytest.fixture(scope="module")
def demo_run(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    prune(demo, load_task("demo"), remove=12, calibration=48, evaluation=150, out=out)
    return out


QUICK = dict(method="full", lr=1e-3, steps=4, batch=16, check_every=4)


@pytest.mark.slow
def test_a_ladder(demo_run):
    told = []
    ladder = heal_ladder(
        demo_run, [6, 9, 11], seeds=2, progress=lambda _, *done: told.append(done), **QUICK
    )
    assert ladder.depths.tolist() == [8, 5, 3]
    result = ladder.to_dict()
    steps = [json.loads(line) for line in (demo_run / "steps.jsonl").read_text().splitlines()]
    for row, number in zip(result["depths"], (6, 9, 11), strict=True):
        assert row["retained_before"]["value"] == pytest.approx(steps[number]["retained"])
        np.testing.assert_allclose(row["retained_before"]["ci"], steps[number]["retained_ci"])
        assert row["max_abs_logit_difference"] <= 1e-4 and len(row["paths"]) == 2
    assert "at least 5" in result["levelling"]["reason"] and result["seeds"] == [0, 1]
    assert told == sorted(told) and told[-1] == (24, 24)
    assert json.loads((demo_run / "heal" / ladder.path.split("/")[-1] / "ladder.json").read_text())
    first, second = ladder.healed[1]
    assert (first.after.margins != second.after.margins).any()
    again = heal_ladder(demo_run, [6, 9, 11], seeds=2, **QUICK)
    assert again.state == "finished" and again.to_dict() == result
    ladder.plot().savefig(demo_run / "plot.png")
    first.plot().savefig(demo_run / "plot.png")


@pytest.mark.slow
def test_an_interrupted_ladder_goes_on_with_the_model_that_is_missing(demo_run, monkeypatch):
    def stop(label, done, total):
        if done > 4:
            raise KeyboardInterrupt

    options = QUICK | {"seed": 7}
    with pytest.raises(KeyboardInterrupt):
        heal_ladder(demo_run, [11, 12], progress=stop, name="mine", **options)
    assert json.loads((demo_run / "heal/mine/manifest.json").read_text())["status"] == "failed"
    told = []
    ladder = heal_ladder(
        demo_run,
        [11, 12],
        name="mine",
        progress=lambda _, done, total: told.append(done),
        **options,
    )
    assert ladder.state == "resumed" and min(told) > 4
    assert [row[0].state for row in ladder.healed] == ["finished", "resumed"]
    with pytest.raises(UserError, match="holds another run: its option ladder"):
        heal_ladder(demo_run, [10, 12], name="mine", **options)


@pytest.mark.slow
def test_the_command_of_a_ladder(demo_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "heal",
        str(demo_run),
        "--ladder",
        "9,11",
        "--method",
        "full",
        "--lr",
        "1e-3",
        "--steps",
        "4",
        "--batch",
        "16",
        "--check-every",
        "4",
        "--name",
        "shown",
    ]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert not ended.value.code
    out = capsys.readouterr().out
    shown, _, rest = out.partition("next:")
    assert "Recovery by remaining depth" in shown and max(map(len, shown.splitlines())) <= 80
    assert json.loads(rest.splitlines()[-1])["blocks"] == 14
    assert "Remaining blocks" in (demo_run / "heal/shown/report.html").read_text()
