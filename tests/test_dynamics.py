"""What pruning does to the decision: transitions of pruned models, Option Frequency, falls."""

import html
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from phaseprune.decision.collapse import fit_fall
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.dynamics import (
    live_transition,
    run_dynamics,
    same_frequencies,
    step_dynamics,
    transition_state,
)
from phaseprune.decision.transition import find_transition
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.report.collapse import (
    dynamics_lines,
    fall_lines,
    paired_line,
    transition_line,
)
from phaseprune.report.figures import dynamics_figure
from phaseprune.report.page import write_report
from populations import Population, churning, lost_one_by_one, step

#: Questions that are as good as sure from the transition on.
SURE = 6.0


def sample(at, readouts, questions=80, lead=SURE, seed=0):
    """Questions of four options whose gold leads from a readout on."""
    population = Population(step(at, lead, readouts=readouts), letters=False)
    return population.sample(questions, np.random.default_rng(seed))


def test_a_removed_block_does_not_count_twice():
    """The live readouts alone are fitted, and told by their original numbers."""
    live = sample(3, 6)
    kept = [0, 1, 5, 6, 8]  # of ten blocks; live readouts 0, 1, 2, 6, 7, 9
    numbers = [0, 1, 2, 6, 7, 9]
    repeated = live.at(np.searchsorted(numbers, np.arange(11), side="right") - 1)
    plain, found = find_transition(live, seed=0), live_transition(repeated, kept, seed=0)
    assert plain.readout == 3 and found.readout == 6
    assert found.silent_blocks == (0, 1, 5) and found.decisive_blocks == (6, 8)
    assert found.ci == tuple(numbers[end] for end in plain.ci)
    assert found.rise == tuple(numbers[end] for end in plain.rise)
    assert found.rise_ci == tuple(tuple(numbers[end] for end in ci) for ci in plain.rise_ci)
    for name in ("r2", "p_value", "silent_level", "decisive_level", "sharpness", "sharpness_ci"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-12)


def test_a_single_live_block():
    found = live_transition(sample(1, 2).at([0, 0, 0, 1]), [2], seed=0)
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


def test_a_cliff_is_fitted():
    rows = falling([0.9, 0.9, 0.88, 0.87, 0.3, 0.28, 0.27])
    cliff = fit_fall(rows, np.full(200, 0.25), seed=0)
    assert cliff.found and cliff.kind == "cliff" and cliff.step == 4 and cliff.ci == (4, 4)
    accuracy = [row.mean() for row in rows]
    scale = accuracy[0] - 0.25
    assert cliff.before == pytest.approx((np.mean(accuracy[:4]) - 0.25) / scale)
    assert cliff.after == pytest.approx((np.mean(accuracy[4:]) - 0.25) / scale)
    assert cliff.r2 > 0.95 > cliff.line_r2 and cliff.span == (3, 4)


@pytest.mark.slow
def test_a_slope_is_told_from_a_cliff():
    """A straight decline over 12 steps is a slope: in 40 samples never a cliff."""
    kinds = []
    for seed in range(40):
        rows = lost_one_by_one(200, 12, 0.9, np.random.default_rng(seed))
        kinds.append(fit_fall(rows, np.full(200, 0.25), seed=seed).kind)
    assert "cliff" not in kinds and kinds.count("slope") >= 36
    means = [row.mean() for row in rows]
    slope = fit_fall(rows, np.full(200, 0.25), seed=0)
    assert slope.line_r2 == pytest.approx(stats.linregress(range(13), means).rvalue ** 2)
    removed = [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22]
    wide = fit_fall(rows, np.full(200, 0.25), seed=0, at=removed).line_r2
    assert wide == pytest.approx(stats.linregress(removed, means).rvalue ** 2) != slope.line_r2


@pytest.mark.slow
def test_a_cliff_is_never_a_slope():
    kinds = []
    for seed in range(40):
        rows = lost_one_by_one(200, 12, 0.9, np.random.default_rng(seed), at=7)
        fall = fit_fall(rows, np.full(200, 0.25), seed=seed)
        kinds.append(fall.kind)
        assert fall.step == 7
    assert "slope" not in kinds and kinds.count("cliff") >= 38


@pytest.mark.slow
def test_no_fall_where_nothing_falls():
    found = 0
    for seed in range(50):
        rows = churning(100, 12, 0.6, 0.3, np.random.default_rng(seed))
        found += fit_fall(rows, np.full(100, 0.25), seed=0).found
    assert found <= 2
    rows = [np.arange(40) % 4 == 0] * 3
    assert fit_fall(rows, np.full(40, 0.25), seed=0) is None
    assert fit_fall(rows[:1], np.full(40, 0.25), seed=0) is None
    same = fit_fall([np.arange(40) % 4 != 0] * 3, np.full(40, 0.25), seed=0)
    assert not same.found and same.step is None and same.kind is None


@pytest.mark.slow
def test_the_cliffs_interval_holds_it():
    """A cliff before step 5 of ten, in 200 samples of few questions that guess once lost."""
    held = found = exact = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        share = np.where(np.arange(10) < 5, 0.56, 0.47)
        rows = list((rng.random((40, 1)) * 0.5 + rng.random((40, 10)) * 0.5 < share).T)
        cliff = fit_fall(rows, np.full(40, 0.25), seed=seed)
        if cliff and cliff.found:
            found += 1
            exact += cliff.step == 5
            held += cliff.ci[0] <= 5 <= cliff.ci[1]
    assert found > 80 and exact < 0.9 * found
    assert held / found >= 0.92


def one_step(at, questions=100, seed=0, lead=SURE, answers=None):
    """The dynamics of one model of eight blocks; one that knows nothing may have an answer."""
    decisions = sample(at, 9, questions, lead, seed)
    if answers is not None:
        scores = decisions.scores + 9.0 * (np.arange(4) == answers)
        decisions = Decisions(scores, decisions.gold, decisions.options)
    return step_dynamics(decisions, range(8), 0, steps=5)


def test_a_run_is_corrected_and_what_is_gone_is_told():
    steps = [
        one_step(4),
        one_step(4, seed=1),
        one_step(6, seed=2),
        one_step(6, seed=3, lead=0.0, answers=0),
        one_step(6, seed=4, lead=0.0, answers=0),
    ]
    told = run_dynamics(steps, 4)
    json.dumps(told, allow_nan=False)
    assert [one["readout"] for one in told["transitions"]] == [4, 4, 6, None, None]
    assert [one["state"] for one in told["transitions"]] == ["found"] * 3 + ["gone"] * 2
    assert told["gone_at_step"] == 3 and told["last_found_step"] == 2
    assert all(one["p_corrected"] >= one["p_value"] for one in told["transitions"])
    frequency = told["collapsed_frequency"]
    assert frequency["step"] == 4 and frequency["top_option"] == 0 and frequency["significant"]
    assert frequency["top_share"] > 0.9 and 0.1 < frequency["gold_share"] < 0.4
    lines = dynamics_lines({"dynamics": told}, ("A", "B", "C", "D"), 100)
    assert lines[0] == (
        "The transition is at readout 4 in the full model, lies between 4 and 6 over the steps, "
        "and at 6 at step 2; it is gone at steps 3 and 4 (DM rises by less than 50 % of what it "
        "does in the full model)."
    )
    assert "decides for option A" in lines[1] and len(lines) == 2
    whole = run_dynamics(steps[:3], None)
    assert whole["gone_at_step"] is None and whole["collapsed_frequency"] is None
    assert dynamics_lines({"dynamics": whole})[0].endswith("; it is found at every step.")
    assert run_dynamics([*steps[:2], None], None) is None
    older = {name: value for name, value in steps[1].items() if name != "rise"}
    assert run_dynamics([steps[0], older], None) is None


def test_a_transition_that_the_correction_takes_away_is_not_gone():
    """Not significant is no evidence of absence: the rise is as large as before."""
    base = one_step(4)
    weak = {**base, "p_value": 0.006}
    told = run_dynamics([base, weak, weak], None)
    assert [one["found"] for one in told["transitions"]] == [True, False, False]
    assert told["transitions"][1]["reason"].startswith("not significant after the correction")
    assert [one["state"] for one in told["transitions"]] == ["found", "unclear", "unclear"]
    assert told["gone_at_step"] is None and told["last_found_step"] == 0
    line = transition_line(told, 100)
    assert "whether there is one at steps 1 and 2 cannot be told" in line and "gone" not in line


@pytest.mark.parametrize(
    ("found", "ci", "state"),
    [
        (True, [0.0, 0.1], "found"),
        (False, [0.0, 0.29], "gone"),
        (False, [0.0, 0.31], "unclear"),
        (False, [-0.1, 0.1], "gone"),
        (False, [0.5, 0.7], "unclear"),
    ],
)
def test_gone_is_bound_against_bound(found, ci, state):
    rise = {"value": sum(ci) / 2, "ci": ci}
    assert transition_state(found, rise, {"value": 0.7, "ci": [0.6, 0.8]}) == state


def states(*told):
    """The dynamics of a run whose models have these states."""
    rises = {"found": 0.7, "gone": 0.0, "unclear": 0.2}
    return {
        "transitions": [
            {
                "step": number,
                "found": state == "found",
                "state": state,
                "readout": 4,
                "ci": [4, 4],
                "rise": {"value": rises[state], "ci": [rises[state] - 0.2, rises[state] + 0.2]},
            }
            for number, state in enumerate(told)
        ]
    }


def test_what_cannot_be_told_is_told_as_such():
    start = "The transition is at readout 4 in the full model"
    # Half of the full model's lower bound, 0.5, is 0.25; the rise is 0.2 (0 to 0.4) there.
    error = 0.4 / (2 * 1.959964)
    needed = 100 * ((1.959964 + 0.841621) * error / 0.05) ** 2
    line = transition_line(states("found", "unclear", "gone"), 100)
    assert line == (
        f"{start}; it is gone at step 2 (DM rises by less than 50 % of what it does in the full "
        "model); whether there is one at step 1 cannot be told (about "
        f"{-(-int(needed + 1) // 100) * 100:,} would tell)."
    )
    line = transition_line(states("found", *["unclear"] * 3, "gone", "gone", "gone"), None)
    assert line.endswith("; whether there is one at steps 1 to 3 cannot be told.")
    assert "it is gone at steps 4 to 6" in line
    assert transition_line(states("found")) == f"{start}; it is found at every step."
    assert transition_line(states("unclear", "gone")).startswith("No transition is found in any")


@pytest.mark.parametrize("told", [("found", "unclear", "gone"), ("found", "found", "found")])
def test_the_figure_shows_the_state_of_each_model(told):
    result = {
        "dynamics": states(*told),
        "removed": [1, 2],
        "kept": [0, 3, 4, 5, 6],
        "collapsed_at_step": None,
        "cliff": None,
    }
    drawn = {
        line.get_label(): list(line.get_xdata()) for line in dynamics_figure(result).axes[0].lines
    }
    for state, label in (("gone", "gone"), ("unclear", "cannot be told"), ("found", "transition")):
        at = [number for number, one in enumerate(told) if one == state]
        assert drawn.get(label, []) == at


@pytest.mark.slow
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
    states = [one["state"] for one in told["transitions"]]
    assert states[0] == "found" and states[-1] == "gone" and told["gone_at_step"] is not None
    assert set(states[told["gone_at_step"] :]) == {"gone"}
    fall = pruning.result["cliff"]
    rows = [step.correct for step in pruning.steps]
    by_hand = fit_fall(rows, np.full(len(rows[0]), pruning.trace.chance), 0)
    assert fall["found"] and (fall["step"], fall["kind"]) == (by_hand.step, by_hand.kind)
    assert fall["removed"] == pruning.steps[fall["step"]].removed
    assert fall["debiased"]["found"]
    against = pruning.result["against_full"]
    rows = [
        np.array([flag == "1" for flag in pruning.steps[n].evaluation["correct"]]) for n in (0, -1)
    ]
    counts = [int((rows[0] > rows[1]).sum()), int((rows[1] > rows[0]).sum())]
    assert [against["only_full"], against["only_pruned"]] == counts
    assert against["p_value"] == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue)
    page = write_report(tmp_path / "run").read_text()
    assert paired_line(pruning.result) in html.unescape(page)
    steps = [step.to_dict() for step in pruning.steps]
    assert 'id="dynamics"' in page
    for line in [*fall_lines(pruning.result, steps), transition_line(told, len(rows[0]))]:
        assert line in html.unescape(page)
    axes = dynamics_figure(pruning.result).axes[0]
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines}
    for state, label in (("gone", "gone"), ("unclear", "cannot be told")):
        at = [one["step"] for one in told["transitions"] if one["state"] == state]
        assert list(drawn.get(label, [])) == at
