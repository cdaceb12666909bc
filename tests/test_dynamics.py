"""What pruning does to the decision: transitions of pruned models, Option Frequency, cliff."""

import html
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaseprune.decision.dynamics import (
    fit_cliff,
    is_slope,
    live_transition,
    run_dynamics,
    same_frequencies,
    step_dynamics,
)
from phaseprune.decision.transition import find_transition
from phaseprune.questions.catalog import load_task
from phaseprune.report.dynamics_figures import dynamics_figure
from phaseprune.report.dynamics_words import dynamics_lines, fit_words, paired_line
from phaseprune.report.html import write_report
from phaseprune.search.prune import prune
from steps import Regime, step


def test_a_removed_block_does_not_count_twice():
    """The live readouts alone are fitted, and told by their original numbers."""
    live = Regime(80, step(6, 3, -0.3, 0.6), 2, 0.8).sample(np.random.default_rng(0))
    kept = [0, 1, 5, 6, 8]  # of ten blocks; live readouts 0, 1, 2, 6, 7, 9
    repeated = live[:, np.searchsorted([0, 1, 2, 6, 7, 9], np.arange(11), side="right") - 1]
    right = live[:, -1] > 0
    plain = find_transition(live, right, 0.25, seed=0)
    found = live_transition(repeated, right, 0.25, kept, seed=0)
    assert plain.readout == 3 and found.readout == 6
    assert found.silent_blocks == (0, 1, 5) and found.decisive_blocks == (6, 8)
    assert found.ci == tuple([0, 1, 2, 6, 7, 9][end] for end in plain.ci)
    for name in ("r2", "p_value", "silent_level", "decisive_level", "sharpness"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-12)


def test_a_single_live_block():
    live = Regime(80, step(2, 1, -0.3, 0.6), 2, 0.5).sample(np.random.default_rng(0))
    found = live_transition(live[:, [0, 0, 0, 1]], live[:, 1] > 0, 0.25, [2], seed=0)
    assert found.readout == 3 and found.silent_blocks == (2,) and found.decisive_blocks == ()


@given(st.integers(2, 5), st.data())
def test_same_frequencies_is_stuart_and_maxwells_formula(options, data):
    """From the table of counts: differences of the margins, without the last option."""
    pairs = data.draw(
        st.lists(st.tuples(*[st.integers(0, options - 1)] * 2), min_size=1, max_size=60)
    )
    table = np.zeros((options, options))
    for decided, gold in pairs:
        table[decided, gold] += 1
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    spread = np.diag(rows + columns - 2 * np.diag(table)) - (
        table + table.T - 2 * np.diag(np.diag(table))
    )
    spread, shift = spread[:-1, :-1], (rows - columns)[:-1]
    got = same_frequencies(*np.array(pairs).T)
    if np.linalg.matrix_rank(spread) == options - 1:
        expected = stats.chi2.sf(shift @ np.linalg.solve(spread, shift), options - 1)
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert 0 <= got <= 1


def test_same_frequencies_of_two_options_is_mcnemars_chi_square():
    decided = np.array([0] * 30 + [1] * 12 + [0] * 20)
    gold = np.array([1] * 30 + [0] * 12 + [0] * 20)
    assert same_frequencies(decided, gold) == pytest.approx(stats.chi2.sf(18**2 / 42, 1))
    assert same_frequencies(gold, gold) == 1


def test_same_frequencies_holds_its_level():
    rng = np.random.default_rng(0)
    draws = [rng.choice(4, size=(2, 100), p=[0.4, 0.3, 0.2, 0.1]) for _ in range(1000)]
    assert 0.03 < np.mean([same_frequencies(*draw) < 0.05 for draw in draws]) < 0.075


def falling(shares, questions=200, seed=0):
    """Right decisions of each step: a question is lost at some step, and sometimes guessed."""
    hard = np.random.default_rng(seed).random(questions)
    return [hard < share for share in shares]


def test_the_cliff_is_fitted():
    rows = falling([0.9, 0.9, 0.88, 0.87, 0.3, 0.28, 0.27])
    cliff = fit_cliff(rows, np.full(200, 0.25), seed=0)
    assert cliff["found"] and cliff["step"] == 4 and cliff["ci"] == [4, 4]
    accuracy = [row.mean() for row in rows]
    scale = accuracy[0] - 0.25
    assert cliff["before"] == pytest.approx((np.mean(accuracy[:4]) - 0.25) / scale)
    assert cliff["after"] == pytest.approx((np.mean(accuracy[4:]) - 0.25) / scale)
    assert cliff["r2"] > 0.95 > cliff["line_r2"] and not is_slope(cliff)
    assert fit_words(cliff) == f"R² {cliff['r2']:.2f}"


def test_a_slope_is_told_from_a_cliff():
    rows = falling([0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55])
    slope = fit_cliff(rows, np.full(200, 0.25), seed=0)
    means = [row.mean() for row in rows]
    assert slope["found"] and slope["line_r2"] == pytest.approx(
        stats.linregress(range(8), means).rvalue ** 2
    )
    assert is_slope(slope) and "a slope rather than a cliff" in fit_words(slope)
    removed = [0, 1, 2, 3, 10, 11, 12, 13]
    wide = fit_cliff(rows, np.full(200, 0.25), seed=0, removed=removed)["line_r2"]
    assert wide == pytest.approx(stats.linregress(removed, means).rvalue ** 2) != slope["line_r2"]
    assert not is_slope({"r2": 0.5})  # of an older version


def test_no_cliff_where_nothing_falls():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        rows = [rng.random(100) < 0.6 for _ in range(8)]
        found += fit_cliff(rows, np.full(100, 0.25), seed=0)["found"]
    assert found <= 3
    rows = [np.arange(40) % 4 == 0] * 3
    assert fit_cliff(rows, np.full(40, 0.25), seed=0) is None
    assert fit_cliff(rows[:1], np.full(40, 0.25), seed=0) is None
    same = fit_cliff([np.arange(40) % 4 != 0] * 3, np.full(40, 0.25), seed=0)
    assert not same["found"] and same["step"] is None


def test_the_cliffs_interval_holds_it():
    """A cliff before step 5 of ten, in 200 samples of few questions that guess once lost."""
    held = found = exact = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        share = np.where(np.arange(10) < 5, 0.56, 0.47)
        rows = list((rng.random((40, 1)) * 0.5 + rng.random((40, 10)) * 0.5 < share).T)
        cliff = fit_cliff(rows, np.full(40, 0.25), seed=seed)
        if cliff and cliff["found"]:
            found += 1
            exact += cliff["step"] == 5
            held += cliff["ci"][0] <= 5 <= cliff["ci"][1]
    assert found > 80 and exact < 0.9 * found
    assert held / found >= 0.92


def one_step(at, questions=100, seed=0, rise=0.9):
    regime = Regime(questions, step(9, at, -0.3, -0.3 + rise), 2, 0.8)
    margins = regime.sample(np.random.default_rng(seed))
    gold = np.arange(questions) % 4
    decided = np.where(margins[:, -1] > 0, gold, 0 if rise == 0 else (gold + 1) % 4)
    return step_dynamics(margins, decided, gold, 0.25, range(8), 0, steps=5), decided == gold


def test_a_run_is_corrected_and_the_vanishing_is_told():
    steps, rights = zip(*[one_step(4), one_step(4, seed=1), one_step(6, seed=2),
                          one_step(6, seed=3, rise=0.0), one_step(6, seed=4, rise=0.0)],
                        strict=True)  # fmt: skip
    told = run_dynamics(steps, rights, 4, np.full(100, 0.25), seed=0)
    json.dumps(told, allow_nan=False)
    assert [one["readout"] for one in told["transitions"]] == [4, 4, 6, None, None]
    assert told["vanishes_at_step"] == 3
    assert all(one["p_corrected"] >= one["p_value"] for one in told["transitions"])
    frequency = told["collapsed_frequency"]
    assert frequency["step"] == 4 and frequency["top_option"] == 0 and frequency["significant"]
    assert frequency["top_share"] > 0.5 and frequency["gold_share"] == 0.25
    assert frequency["distance"] == pytest.approx(frequency["top_share"] - 0.25)
    lines = dynamics_lines({"dynamics": told}, ("A", "B", "C", "D"))
    assert (
        "readout 4 in the full model, lies between 4 and 6" in lines[0]
        and "from step 3 on" in lines[0]
    )
    assert "decides for option A" in lines[1]
    whole = run_dynamics(steps[:3], rights[:3], None, np.full(100, 0.25), seed=0)
    assert whole["vanishes_at_step"] is None and whole["collapsed_frequency"] is None
    assert "does not vanish" in dynamics_lines({"dynamics": whole})[0]
    assert run_dynamics([*steps[:2], None], rights[:3], None, np.full(100, 0.25), 0) is None


def test_a_transition_that_the_correction_takes_away():
    base, right = one_step(4)
    weak = {**base, "p_value": 0.006}
    told = run_dynamics([base, weak, weak], [right] * 3, None, np.full(100, 0.25), seed=0)
    assert [one["found"] for one in told["transitions"]] == [True, False, False]
    assert told["transitions"][1]["reason"].startswith("not significant after the correction")
    assert told["vanishes_at_step"] == 1


def test_a_prune_run_tells_its_dynamics(demo, tmp_path):
    task = load_task("demo", limit=90)
    pruning = prune(demo, task, remove=13, calibration=12, out=tmp_path / "run")
    told = pruning.result["dynamics"]
    assert [one["step"] for one in told["transitions"]] == list(range(14))
    full = pruning.trace.transition
    assert told["transitions"][0]["readout"] == full.readout
    assert told["transitions"][0]["silent_blocks"] == list(full.silent_blocks)
    for one, at in zip(told["transitions"], pruning.steps, strict=True):
        blocks = one["silent_blocks"] + one["decisive_blocks"]
        assert blocks == (at.kept if one["found"] else [])
        frequency = at.dynamics["frequency"]
        shares = at.option_frequency_by_readout[-1]
        assert frequency["top_share"] == pytest.approx(max(shares))
    assert told["vanishes_at_step"] is not None and told["cliff_fit"]["found"]
    against = pruning.result["against_full"]
    rows = [np.array([flag == "1" for flag in pruning.steps[n].evaluation["correct"]])
            for n in (0, -1)]  # fmt: skip
    counts = [int((rows[0] > rows[1]).sum()), int((rows[1] > rows[0]).sum())]
    assert [against["only_full"], against["only_pruned"]] == counts
    assert against["p_value"] == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue)
    page = write_report(tmp_path / "run").read_text()
    assert paired_line(pruning.result) in html.unescape(page)
    assert 'id="dynamics"' in page and "Fitted cliff" in page
    axes = dynamics_figure(pruning.result).axes[0]
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
    gone = [one["step"] for one in told["transitions"] if not one["found"]]
    assert list(drawn["no transition"]) == gone
