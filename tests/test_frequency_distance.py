"""Distance of Option Frequency from the gold shares: definition, coverage, words, old traces."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from phaseprune import trace
from phaseprune.cli.main import app
from phaseprune.decision.decisions import Decisions
from phaseprune.decision.frequency import frequency_distance, output_frequency
from phaseprune.decision.intervals import resamples
from phaseprune.decision.trace import summarize
from phaseprune.decision.transition import Transition
from phaseprune.questions.catalog import load_task
from phaseprune.replication.judges import one_sided
from phaseprune.report.page import render_report
from phaseprune.report.run_files import RunFiles
from phaseprune.report.trace import frequency_caption, frequency_line

NONE = Transition(found=False, reason="for the test")


def before(readout):
    return Transition(found=True, readout=readout)


def plain_distance(decided, gold, options, counts=None):
    """Total variation of weighted lists, one option at a time."""
    counts = [1] * len(gold) if counts is None else counts
    apart = []
    for option in range(options):
        said = sum(c for d, c in zip(decided, counts, strict=True) if d == option)
        right = sum(c for g, c in zip(gold, counts, strict=True) if g == option)
        apart.append((said - right) / sum(counts))
    return sum(abs(one) for one in apart) / 2, apart


@st.composite
def decided_questions(draw):
    questions, readouts = draw(st.integers(1, 7)), draw(st.integers(2, 4))
    options = draw(st.integers(2, 4))
    one = st.integers(0, options - 1)
    gold = draw(st.lists(one, min_size=questions, max_size=questions))
    row = st.lists(one, min_size=readouts, max_size=readouts)
    decided = draw(st.lists(row, min_size=questions, max_size=questions))
    return np.array(decided), np.array(gold), options, draw(st.integers(1, readouts - 1))


@pytest.mark.slow
@given(decided_questions(), st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_distance_and_bounds_by_plain_counting(case, seed):
    decided, gold, options, at = case
    questions, readouts = decided.shape
    found = frequency_distance(decided, gold, options, before(at), seed).to_dict()
    columns = [decided[:, r].tolist() for r in range(readouts)]
    here = [plain_distance(column, gold.tolist(), options) for column in columns]
    draws = np.rint(np.concatenate(list(resamples(questions, seed))) * questions).astype(int)
    errors = np.empty((len(draws), readouts))
    for number, counts in enumerate(draws.tolist()):
        for r, column in enumerate(columns):
            _, drawn = plain_distance(column, gold.tolist(), options, counts)
            pairs = zip(drawn, here[r][1], strict=True)
            errors[number, r] = sum(abs(a - b) for a, b in pairs) / 2

    def reach(of, level):
        return max(np.quantile(of, level), 1 - (1 - level) ** (1 / questions))

    for r in range(readouts):
        mean, wide = here[r][0], reach(errors[:, r], 0.95)
        assert found["mean"][r] == pytest.approx(mean, abs=1e-9)
        assert found["ci_low"][r] == pytest.approx(max(0, mean - wide), abs=1e-9)
        assert found["ci_high"][r] == pytest.approx(min(1, mean + wide), abs=1e-9)
        assert found["noise"][r] == pytest.approx(errors[:, r].mean(), abs=1e-9)
    silent, decisive = errors[:, :at].mean(axis=1), errors[:, at:].mean(axis=1)
    means = [np.mean([one[0] for one in part]) for part in (here[:at], here[at:])]
    phases = found["phases"]
    for name, mean, of in (("silent", means[0], silent), ("decisive", means[1], decisive)):
        assert phases[name]["mean"] == pytest.approx(mean, abs=1e-9)
        assert phases[name]["ci_high"] == pytest.approx(min(1, mean + reach(of, 0.95)), abs=1e-9)
    difference = phases["difference"]
    assert difference["mean"] == pytest.approx(means[0] - means[1], abs=1e-9)
    low = max(-1, means[0] - means[1] - reach(silent + decisive, 0.95))
    assert difference["ci_low"] == pytest.approx(low, abs=1e-9)
    far = reach(silent + decisive, 0.99)
    if abs(abs(means[0] - means[1]) - far) > 1e-9:
        assert difference["significant"] == (abs(means[0] - means[1]) > far)


def population(rng, questions, silent, decisive, gold, right, readouts=6, at=3):
    """Decisions of a model that picks by shares, from ``at`` on rightly with a probability.

    Neighbouring Silent readouts mostly agree question by question, as those of a model do.
    """
    gold = rng.choice(len(gold), questions, p=gold)
    decided = np.empty((questions, readouts), dtype=int)
    for r in range(readouts):
        shares = silent if r < at else decisive
        new = rng.choice(len(shares), questions, p=shares)
        if 0 < r < at:
            new = np.where(rng.random(questions) < 0.7, decided[:, r - 1], new)
        decided[:, r] = np.where(rng.random(questions) < right, gold, new) if r >= at else new
    return decided, gold


EVEN, BENT = [0.25] * 4, [0.4, 0.3, 0.2, 0.1]
#: Shares before and after, of the gold, how often decided rightly, questions; truths follow.
REGIMES = {
    "equal": (EVEN, EVEN, EVEN, 0.0, 60),
    "equal, often right": (EVEN, EVEN, EVEN, 0.7, 60),
    "one option, then nearly always right": ([0.97, 0.01, 0.01, 0.01], BENT, EVEN, 0.98, 60),
    "somewhat apart": (BENT, [0.3, 0.25, 0.25, 0.2], EVEN, 0.3, 150),
    "two options": ([0.85, 0.15], [0.5, 0.5], [0.55, 0.45], 0.5, 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES)
def test_intervals_cover_the_true_distance(name):
    silent, decisive, gold, right, questions = REGIMES[name]
    true_silent = np.abs(np.subtract(silent, gold)).sum() / 2
    true_decisive = (1 - right) * np.abs(np.subtract(decisive, gold)).sum() / 2
    rng = np.random.default_rng(3)
    held, samples = np.zeros(5), 150
    for seed in range(samples):
        decided, right_options = population(rng, questions, silent, decisive, gold, right)
        found = frequency_distance(decided, right_options, len(gold), before(3), seed)
        each, phases = found.by_readout, found.phases
        truth = true_silent - true_decisive
        held += [
            each.ci_low[0] <= true_silent + 1e-9 <= each.ci_high[0] + 2e-9,
            each.ci_low[-1] <= true_decisive + 1e-9 <= each.ci_high[-1] + 2e-9,
            phases.silent.ci_low <= true_silent + 1e-9 <= phases.silent.ci_high + 2e-9,
            phases.decisive.ci_low <= true_decisive + 1e-9 <= phases.decisive.ci_high + 2e-9,
            phases.difference[1] <= truth <= phases.difference[2],
        ]
    # 0.90 is 2.8 standard errors below the level.
    assert (held / samples >= 0.90).all(), held / samples


def test_percentiles_of_resampled_distances_would_not_cover_equal_shares():
    """Why the interval is what it is."""
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(60):
        decided, gold = population(rng, 60, EVEN, EVEN, EVEN, 0.0, readouts=2, at=1)
        each = np.eye(4)[decided[:, 0]] - np.eye(4)[gold]
        means = np.concatenate([weights @ each for weights in resamples(60, seed)])
        held += np.percentile(np.abs(means).sum(axis=1) / 2, 2.5) <= 1e-9
    assert held < 30


@pytest.mark.slow
def test_a_difference_is_found_and_none_is_made_up():
    rng = np.random.default_rng(7)
    apart = [population(rng, 150, [0.7, 0.1, 0.1, 0.1], EVEN, EVEN, 0.6) for _ in range(60)]
    same = [population(rng, 150, EVEN, EVEN, EVEN, 0.6) for _ in range(60)]

    def share(samples):
        found = [frequency_distance(*one, 4, before(3), seed=0).phases for one in samples]
        return np.mean([phases.significant for phases in found])

    assert share(apart) > 0.95
    assert share(same) <= 1 / 60


@pytest.mark.slow
def test_noise_is_what_equal_shares_show():
    rng = np.random.default_rng(11)
    found = [
        output_frequency(rng.integers(0, 4, 80), rng.integers(0, 4, 80), 4, seed).distance
        for seed in range(250)
    ]
    told, shown = np.mean([one.noise for one in found]), np.mean([one.mean for one in found])
    assert shown > 0.05
    assert told == pytest.approx(shown, rel=0.06)


def test_without_errors_the_interval_is_the_rule_of_three():
    gold = np.arange(100) % 4
    distance = output_frequency(gold, gold, 4, seed=0).distance
    assert (distance.mean, distance.ci_low, distance.noise) == (0, 0, 0)
    assert distance.ci_high == pytest.approx(0.0295, abs=1e-4)
    assert (1 - distance.ci_high) ** 100 == pytest.approx(0.05)


def test_equal_seeds_give_equal_bytes():
    decided, gold = population(np.random.default_rng(0), 90, BENT, EVEN, EVEN, 0.5)
    one, again, other = (
        json.dumps(frequency_distance(decided, gold, 4, before(2), seed).to_dict())
        for seed in (1, 1, 2)
    )
    assert one == again != other


def test_it_is_cheap():
    decided, gold = population(np.random.default_rng(0), 1000, BENT, EVEN, EVEN, 0.5, readouts=31)
    began = time.process_time()
    frequency_distance(decided, gold, 4, before(15), seed=0)
    assert time.process_time() - began < 2


def traced(groups, options=(4, 4), decisive=0.9):
    """A trace of made-up scores over 200 questions; odd ones have the second number of options."""
    rng = np.random.default_rng(2)
    k = np.array([options[q % 2] for q in range(200)])
    gold = rng.integers(0, k)
    scores = rng.normal(size=(200, 7, max(options)))
    scores[:, :3, 0] += 2
    right = rng.random(200) < decisive
    scores[np.flatnonzero(right)[:, None], np.arange(3, 7), gold[right, None]] += 6
    scores[
        np.broadcast_to((np.arange(max(options)) >= k[:, None])[:, None], scores.shape)
    ] = -np.inf
    return summarize(
        Decisions(scores, gold, k),
        raw_scores=scores,
        question_ids=tuple(map(str, range(200))),
        groups=groups,
        option_labels=tuple("ABCDE"[: max(options)]),
        model="m",
        task="t",
        scoring="letter",
        seed=0,
    )


def test_groups_have_a_distance_of_their_own():
    groups = ["x", "y", None, "x"] * 50
    made = traced(groups, options=(3, 5))
    told = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    decided, gold = made.decisions.decided[:, -1].tolist(), made.decisions.gold.tolist()
    counts = made.decisions.options.tolist()
    for entries, of in ((told["by_group"], groups), (told["by_option_count"], counts)):
        assert len(entries) == len(set(of))
        for name, entry in entries.items():
            own = [q for q in range(200) if str(of[q]).lower() == name]
            mine = [decided[q] for q in own], [gold[q] for q in own]
            distance = entry["option_frequency_distance"]
            assert entry["questions"] == len(own)
            assert distance["mean"] == pytest.approx(plain_distance(*mine, 5)[0])
            assert distance["ci_low"] <= distance["mean"] <= distance["ci_high"]
            for key, picked in zip(("option_frequency", "gold_frequency"), mine, strict=True):
                expected = [picked.count(option) / len(own) for option in range(5)]
                assert entry[key] == pytest.approx(expected)


@pytest.mark.slow
def test_words_of_a_trace():
    told = traced([None] * 200).to_dict()
    assert told["transition"]["readout"] == 3
    phases = told["option_frequency_distance"]["phases"]
    line = frequency_line(told)
    for name in ("silent", "decisive"):
        assert f"{phases[name]['mean']:.2f} (95 % CI {phases[name]['ci_low']:.2f} to " in line
    assert "the difference is significant" in line
    phases["difference"]["significant"] = False
    assert "the difference is not significant" in frequency_line(told)
    assert one_sided({"trace": told}).verdict == "undecided"
    page = render_report(RunFiles(Path(), {}, told, []))
    assert frequency_line(told) in page
    assert frequency_caption(told).strip() in page


@pytest.mark.slow
def test_words_without_a_transition():
    told = traced([None] * 200, decisive=0.0).to_dict()
    distance = told["option_frequency_distance"]
    assert distance["phases"] is None and not told["transition"]["found"]
    line = frequency_line(told)
    assert f"is {distance['mean'][-1]:.2f} (95 % CI" in line and "at the output" in line
    assert line in render_report(RunFiles(Path(), {}, told, []))
    finding = one_sided({"trace": told})
    assert finding.verdict == "undecided" and "no phases" in finding.text


@pytest.mark.slow
def test_an_older_trace_is_still_reported():
    told = traced(["x", "y"] * 100).to_dict()
    page = render_report(RunFiles(Path(), {}, told, []))
    del told["option_frequency_distance"]
    for entry in told["by_group"].values():
        del entry["option_frequency"], entry["option_frequency_distance"]
    assert frequency_line(told) is None and frequency_caption(told) == ""
    older = render_report(RunFiles(Path(), {}, told, []))
    assert "from the gold shares" in page and "from the gold shares" not in older
    finding = one_sided({"trace": told})
    assert finding.verdict == "undecided" and "older version" in finding.text


@pytest.mark.slow
def test_the_demo_model_is_one_sided_before_its_transition(demo):
    told = trace(demo, load_task("demo")).to_dict()
    distance = told["option_frequency_distance"]
    apart = np.abs(np.subtract(told["option_frequency"], told["gold_frequency"])).sum(axis=1) / 2
    np.testing.assert_allclose(distance["mean"], apart, atol=1e-12)
    at = told["transition"]["readout"]
    assert distance["phases"]["silent"]["mean"] == pytest.approx(apart[:at].mean())
    assert distance["phases"]["decisive"]["mean"] == pytest.approx(apart[at:].mean())
    finding = one_sided({"trace": told})
    assert finding.verdict == "agrees" and "in the Silent Phase and 0.05" in finding.text


@pytest.mark.slow
def test_the_command_says_it(tmp_path):
    run = tmp_path / "run"
    done = CliRunner().invoke(app, ["trace", "demo", "--limit", "60", "--out", str(run)])
    assert done.exit_code == 0, done.output
    told = json.loads((run / "trace.json").read_text())
    said = " ".join(done.output.split())
    assert frequency_line(told) in said
    assert frequency_line(told) in (run / "report.html").read_text()
