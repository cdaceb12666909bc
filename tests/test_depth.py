"""Decision depth and trajectories of groups, on logits made by hand and by property."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phaseprune.decision.decisions import Decisions, decision_depths
from phaseprune.decision.trace import group_trajectories, summarize
from phaseprune.report.figures import decision_depth_figure, group_margins_figure
from phaseprune.report.page import render_report
from phaseprune.report.run_files import RunFiles
from phaseprune.report.trace import depth_lines
from populations import Population, step

#: By question: the option that is on top at each of five readouts; the right one is option 0.
TOP = [
    [1, 1, 0, 0, 0],  # right for good from 2
    [0, 0, 0, 0, 0],  # from the embeddings on
    [0, 1, 0, 1, 0],  # comes and goes, from 4
    [0, 0, 1, 1, 2],  # right at first, wrong in the end
    [1, 2, 2, 1, 1],  # never right
]


def logits(top, options=3):
    """Hand-made scores with the named option on top."""
    return np.eye(options)[np.asarray(top)] * 2.0


def test_depth_by_hand():
    depths = Decisions(logits(TOP), np.zeros(5, int), np.full(5, 3)).depths
    assert depths.depth.tolist() == [2, 0, 4, -1, -1]
    assert depths.flips.tolist() == [1, 0, 4, 2, 2]
    assert depths.lost.tolist() == [0, 0, 2, 1, 0]
    assert depths.never.tolist() == [False, False, False, False, True]
    assert depths.counts.tolist() == [1, 0, 1, 0, 1]
    told = depths.to_dict()
    assert told["depth"] == [2, 0, 4, None, None] and told["quartiles"] == [0, 2, 4]
    assert told["wrong_at_the_output"] == 2 and told["never_right_count"] == 1
    assert told["mean_flips"] == pytest.approx(9 / 5) and told["mean_lost"] == pytest.approx(3 / 5)


def test_a_model_that_is_always_wrong():
    told = decision_depths(np.ones((4, 3), int), np.zeros(4, int)).to_dict()
    assert told["quartiles"] == [] and told["depth"] == [None] * 4
    assert told["counts"] == [0, 0, 0] and told["never_right_count"] == 4


@given(
    hnp.arrays(
        np.int64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.integers(0, 3)
    ),
    st.data(),
)
def test_depth_by_its_definition(decided, data):
    gold = np.array([data.draw(st.integers(0, 3)) for _ in decided])
    depths = decision_depths(decided, gold)
    for q, (row, right) in enumerate(zip(decided.tolist(), gold.tolist(), strict=True)):
        good = [r for r in range(len(row)) if all(option == right for option in row[r:])]
        assert depths.depth[q] == (good[0] if good else -1)
        pairs = list(zip(row, row[1:], strict=False))
        assert depths.flips[q] == sum(a != b for a, b in pairs)
        assert depths.lost[q] == sum(a == right != b for a, b in pairs)
        assert depths.never[q] == (right not in row)
        assert not (depths.never[q] and good)
    assert depths.counts.sum() == (decided[:, -1] == gold).sum()


def together(parts):
    """Decisions on the questions of several samples, one behind the other."""
    return Decisions(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("scores", "gold", "options")
        )
    )


def grouped(steps, questions=60, seed=0, options=4):
    """Questions of one group for each (readout, lead); a lead of 0 has no transition."""
    rng = np.random.default_rng(seed)
    parts = [
        Population(step(at, lead, readouts=10), options=options).sample(questions, rng)
        for at, lead in steps
    ]
    names = [f"group {i}" for i in range(len(steps)) for _ in range(questions)]
    return together(parts), names


def test_each_group_has_its_own_transition():
    decisions, names = grouped([(3, 3.0), (7, 3.0), (5, 0.0)])
    found = group_trajectories(decisions, names, seed=0)
    assert [one.group for one in found] == ["group 0", "group 1", "group 2"]
    assert [one.questions for one in found] == [60, 60, 60]
    assert [one.transition.readout for one in found] == [3, 7, None]
    margins, correct = decisions.margins[60:120], decisions.correct[60:120]
    np.testing.assert_allclose(found[1].decision_margin[0], margins.mean(axis=0))
    np.testing.assert_allclose(found[1].accuracy[0], correct.mean(axis=0))
    assert (found[1].accuracy[1] <= found[1].accuracy[0]).all()
    json.dumps([one.to_dict() for one in found], allow_nan=False)


def test_a_group_is_debiased_by_the_label_prior_of_all():
    decisions, names = grouped([(3, 3.0), (7, 3.0)])
    prior = np.array([1.5, 0, 0, 0])
    asked = Decisions(decisions.scores + prior, decisions.gold, decisions.options, letters=True)
    plain = group_trajectories(decisions, names, seed=0)
    found = group_trajectories(asked, names, seed=0)
    assert [one.transition.readout for one in found] == [3, 7]
    assert found[0].decision_margin[0, -1] < plain[0].decision_margin[0, -1] - 0.02


def test_one_group_is_no_comparison():
    decisions, _ = grouped([(3, 3.0)])
    assert group_trajectories(decisions, [None] * 60, seed=0) == ()


@pytest.mark.slow
def test_a_transition_that_the_correction_takes_away():
    """A step that is significant alone is not called a transition among fifty others."""
    weak, questions = None, 24
    for seed in range(200):  # a group whose own p-value lies between α / 50 and α
        rng = np.random.default_rng(seed)
        one = Population(step(5, 1.2, readouts=10)).sample(questions, rng)
        flat = [Population(np.zeros(10)).sample(8, rng) for _ in range(50)]
        names = ["weak"] * questions + [f"flat {i}" for i in range(50) for _ in range(8)]
        few = together([one, flat[0]])
        alone = group_trajectories(few, names[: questions + 8], seed=0)
        if alone[0].transition.found and alone[0].p_value > 0.001:
            weak = group_trajectories(together([one, *flat]), names, seed=0)[0]
            break
    assert weak is not None and weak.p_value < 0.01 <= weak.p_corrected
    assert not weak.transition.found and "Holm" in weak.transition.reason


@pytest.mark.slow
def test_many_groups_can_all_be_significant():
    """The smallest possible p-value stays below the level after the correction."""
    found = group_trajectories(*grouped([(5, 5.0)] * 40, questions=40), seed=0)
    assert all(one.transition.found and one.transition.readout == 5 for one in found)
    assert max(one.p_corrected for one in found) < 0.01


@pytest.fixture
def traced():
    decisions, names = grouped([(3, 3.0), (7, 3.0)], options=2)
    return summarize(
        decisions,
        raw_scores=decisions.scores,
        question_ids=tuple(map(str, range(120))),
        groups=names,
        option_labels=("A", "B"),
        model="m",
        task="t",
        scoring="letter",
        seed=0,
    )


def test_the_trace_tells_of_questions_and_groups(traced):
    told = json.loads(json.dumps(traced.to_dict(), allow_nan=False))
    assert len(told["decision_depth"]["depth"]) == 120
    assert [g["transition"]["readout"] for g in told["by_group"].values()] == [3, 7]
    assert told["by_option_count"] == {}
    lines = depth_lines(told)
    low, middle, high = told["decision_depth"]["quartiles"]
    assert f"from readout {middle} [{low}, {high}]" in lines[0]
    assert "2 of 2 groups (readouts 3 to 7)" in lines[1]
    assert all(len(line) <= 80 for line in lines)
    del told["decision_depth"], told["by_group"], told["by_option_count"]
    assert depth_lines(told) == []  # written before these were known
    render_report(RunFiles(Path(), {}, told, []))


def test_the_figure_has_every_question_once(traced):
    told = traced.to_dict()
    figure = decision_depth_figure(told)
    bars = {c.get_label(): [bar.get_height() for bar in c] for c in figure.axes[0].containers}
    depth = told["decision_depth"]
    np.testing.assert_allclose(bars["decision depth"], np.array(depth["counts"]) / 120)
    assert sum(bars["decision depth"]) + sum(bars["wrong at the output"]) == pytest.approx(1)
    assert bars["right at no readout"][0] == pytest.approx(depth["never_right_count"] / 120)
    page = render_report(RunFiles(Path(), {}, told, []))
    assert 'id="depth"' in page and 'id="by-group"' in page and 'id="by-option-count"' not in page


def test_the_figure_of_groups(traced):
    groups = traced.to_dict()["by_group"]
    axes = group_margins_figure(groups, "group").axes[0]
    mesh = np.asarray(axes.collections[0].get_array()).reshape(2, 10)
    np.testing.assert_allclose(mesh, [g["decision_margin"]["mean"] for g in groups.values()])
    (marks,) = [line for line in axes.lines if line.get_label() == "transition"]
    assert list(marks.get_xdata()) == [2.5, 6.5] and list(marks.get_ydata()) == [0, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "group 0 (60)",
        "group 1 (60)",
    ]
