"""Sets of blocks in one walk against deleting them; the phases compared; runs."""

import json
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase_samples import phase_sample, transition_at, truths
from phaseprune.cli.main import main
from phaseprune.decision.intervals import questions_needed
from phaseprune.decision.phases import (
    Control,
    Difference,
    Estimate,
    Sets,
    block_costs,
    compare_phases,
    fit_jump,
    phase_verdict,
    retained_of_sets,
)
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.probes.phasewise import phasewise
from phaseprune.probes.phasewise_sets import draw_sets, drawn_sets, kinds_of
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.page import write_report
from phaseprune.report.phasewise import (
    control_line,
    difference_line,
    difference_tile,
    phasewise_lines,
)
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import trace
from phaseprune.sweep.walk import block_passes, branch, set_scores, trace_scores
from test_sweep import count_tokens, naive_scores, without

SETS = [(), (0,), (0, 1), (1, 4), (4,), (0, 1, 2, 3), (2, 3, 4), (0, 4), (1, 2, 3, 4), (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
def test_every_set_scores_as_the_model_without_its_blocks(tiny, family, small_task):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    swept = set_scores(decoder, prepared.rows, prepared.needs_vocabulary, SETS)
    for blocks, scores in zip(SETS, swept.scores, strict=True):
        plain = without(decoder.model, decoder.blocks_path, blocks)
        expected = naive_scores(plain, decoder.tokenizer, small_task)
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert swept.naive_passes == sum(5 - len(blocks) for blocks in set(SETS))
    assert swept.block_passes < swept.naive_passes


@pytest.mark.parametrize("family", ["llama", "falcon"])  # packed and plain rows
def test_block_passes_are_what_the_blocks_see(tiny, small_task, family):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    counts, handles = count_tokens(decoder)
    swept = set_scores(decoder, prepared.rows, prepared.needs_vocabulary, SETS)
    for handle in handles:
        handle.remove()
    # Sets that agree before a block and keep it share one run of it.
    runs = {
        block: len({tuple(b for b in some if b < block) for some in SETS if block not in some})
        for block in range(5)
    }
    assert swept.block_passes == sum(runs.values())
    expected = {block: prepared.rows.padded_tokens * count for block, count in runs.items()}
    if family == "llama":  # the last one is run for what is read alone
        expected[4] = sum(shard.reads for shard in prepared.rows.shards) * runs[4]
    assert counts == expected


def test_many_small_shards_give_the_same(tiny, small_task, monkeypatch):
    decoder = tiny["llama"]
    whole = prepare(decoder, small_task)
    monkeypatch.setattr("phaseprune.sweep.measure.shard_tokens", lambda decoder, streams: 40)
    pieces = prepare(decoder, small_task)
    assert len(pieces.rows.shards) > 2
    one, two = (set_scores(decoder, p.rows, p.needs_vocabulary, SETS) for p in (whole, pieces))
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)
    assert one.block_passes == two.block_passes


@pytest.mark.slow
def test_a_streamed_model_gives_the_same(tiny, tiny_dirs, small_task):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    assert not streamed.placement.in_place
    swept = [
        set_scores(decoder, prepared.rows, prepared.needs_vocabulary, SETS[1:])
        for decoder in (tiny["llama"], streamed)
        for prepared in [prepare(decoder, small_task)]
    ]
    np.testing.assert_allclose(swept[0].scores, swept[1].scores, atol=1e-5)
    assert swept[0].block_passes == swept[1].block_passes


@given(st.integers(1, 7), st.data())
def test_branches_give_each_set_its_own_blocks(blocks, data):
    """Follow the streams: each set ends alone, having run exactly the blocks it keeps."""
    subsets = st.frozensets(st.integers(0, blocks - 1), max_size=blocks - 1)
    sets = data.draw(st.lists(subsets, min_size=1, max_size=12, unique=True))
    histories, streams, passes = [()], [tuple(range(len(sets)))], 0
    for block in range(blocks):
        run, skip, sources = branch(streams, block, sets)
        came = [histories[source] for source in sources]
        histories = [one + (block,) for one in came[: len(run)]] + came[len(run) :]
        streams, passes = run + skip, passes + len(run)
        assert len(set(histories)) == len(histories) == len(streams)  # nothing runs twice
    assert passes == block_passes(blocks, sets)
    for history, (number,) in zip(histories, streams, strict=True):
        assert set(history) == set(range(blocks)) - sets[number]
    assert sorted(stream for (stream,) in streams) == list(range(len(sets)))


@given(st.integers(1, 9), st.data())
def test_drawn_sets(size, data):
    count = data.draw(st.integers(1, size))
    draws, seed = data.draw(st.integers(2, 30)), data.draw(st.integers(0, 99))
    pool = tuple(range(3, 3 + size))
    drawn = draw_sets(pool, count, draws, [seed, count, 0])
    assert drawn == draw_sets(pool, count, draws, [seed, count, 0])
    assert len(set(drawn)) == len(drawn) == min(draws, comb(size, count))
    everything = set(combinations(pool, count))
    assert set(drawn) <= everything


def test_draws_are_of_all_sets_alike():
    seen = np.zeros(6)
    sets = list(combinations(range(4), 2))
    for seed in range(600):
        for one in draw_sets(range(4), 2, 2, [seed, 2, 0]):
            seen[sets.index(one)] += 1
    assert np.abs(seen / 200 - 1).max() < 0.25  # six standard errors and more


def right(shares, questions, seed, easy=0.0):
    """``[S, Q]`` decisions of sets that are right in the given shares; questions differ."""
    rng = np.random.default_rng(seed)
    level = np.asarray(shares)[:, None] + easy * rng.normal(size=questions)
    return rng.random((len(shares), questions)) < level


def compared(silent, decisive, full=0.9, questions=120, seed=0, all_sets=False):
    sets = {
        m: {
            "silent": Sets(right(low, questions, [seed, m, 0]), all_sets),
            "decisive": Sets(right(high, questions, [seed, m, 1]), all_sets),
        }
        for m, (low, high) in enumerate(zip(silent, decisive, strict=True), start=1)
    }
    whole = right([full], questions, [seed, 0])[0]
    return compare_phases(sets, whole, np.full(questions, 0.25), seed), sets, whole


def test_differences_by_hand():
    got, sets, full = compared([[0.5] * 8, [0.3] * 8], [[0.8] * 8, [0.7] * 8])
    by_hand = []
    for m in (1, 2):
        left = {
            kind: np.mean([(row.mean() - 0.25) / (full.mean() - 0.25) for row in of.correct])
            for kind, of in sets[m].items()
        }
        assert got.retained[m]["silent"].value == pytest.approx(left["silent"])
        by_hand.append(left["decisive"] - left["silent"])
        one = got.differences[m].estimate
        assert one.value == pytest.approx(by_hand[-1]) and one.ci[0] < one.value < one.ci[1]
        assert got.differences[m].significant
        np.testing.assert_allclose(
            retained_of_sets(sets[m]["silent"].correct, full, np.full(120, 0.25)).mean(),
            left["silent"],
        )
    assert got.pooled.estimate.value == pytest.approx(np.mean(by_hand)) and got.pooled.significant
    again, _, _ = compared([[0.5] * 8, [0.3] * 8], [[0.8] * 8, [0.7] * 8])
    assert again == got


def test_sets_that_differ_make_the_interval_wider_unless_they_are_all():
    shares = np.linspace(0.3, 0.9, 8)
    some, _, _ = compared([shares], [[0.8] * 8])
    every, _, _ = compared([shares], [[0.8] * 8], all_sets=True)
    widths = [np.diff(one.differences[1].estimate.ci)[0] for one in (some, every)]
    assert widths[0] > 1.5 * widths[1]
    assert some.differences[1].estimate.value == every.differences[1].estimate.value


@pytest.mark.slow
def test_intervals_cover_and_nothing_is_found_where_nothing_is():
    """Sets of both phases from one population, 300 times: at most about 5 % false findings."""
    covered = false = 0
    for seed in range(300):
        rng = np.random.default_rng([seed, 9])
        shares = rng.uniform(0.3, 0.9, size=(2, 2, 10))
        got, _, _ = compared(shares[0], shares[1], questions=60, seed=seed)
        low, high = got.differences[1].estimate.ci
        covered += low <= 0 <= high
        false += any(one.significant for one in got.differences.values())
    assert 0.90 <= covered / 300 <= 0.99
    assert false / 300 <= 0.08


def test_a_full_model_near_chance_has_a_wide_interval():
    got, _, _ = compared([[0.3] * 4], [[0.3] * 4], full=0.3, questions=40, seed=3)
    one = got.differences[1]
    assert np.diff(one.estimate.ci)[0] > 1 and not one.significant


def test_kinds_of_sets():
    kinds = kinds_of(range(8), range(8, 14))
    assert kinds["later_silent"].blocks == tuple(range(2, 8))  # a tenth of 14, rounded up
    assert kinds["near_silent"].blocks == tuple(range(2, 8))
    assert kinds["near_decisive"].blocks == tuple(range(8, 14))
    assert kinds["window_across"].all(2) == [(7, 8)]
    assert kinds["window_across"].all(3) == [(6, 7, 8), (7, 8, 9)]
    late = kinds_of(range(26), range(26, 32))
    assert late["near_silent"].blocks == tuple(range(20, 26))
    assert late["later_silent"].blocks == tuple(range(4, 26))
    kept = kinds_of(range(8), range(8, 14), protect=(0, 1, 2, 10))
    assert not any({0, 1, 2, 10} & set(kind.blocks) for kind in kept.values())
    assert kept["near_silent"].blocks == (3, 4, 5, 6, 7)
    assert kept["near_decisive"].blocks == (8, 9, 11, 12, 13)
    assert kept["window_decisive"].all(2) == [(8, 9), (11, 12), (12, 13)]
    only_first = kinds_of(range(1), range(1, 14))
    assert "later_silent" not in only_first and "near_decisive" not in only_first


@given(st.integers(2, 12), st.data())
def test_sets_are_of_their_kinds(blocks, data):
    silent = data.draw(st.integers(1, blocks - 1))
    number = data.draw(st.integers(1, min(silent, blocks - silent)))
    draws = data.draw(st.integers(2, 9))
    kinds = kinds_of(range(silent), range(silent, blocks))
    sets = drawn_sets(kinds, number, draws, data.draw(st.integers(0, 99)))
    for name, kind in kinds.items():
        own = [one for one, names in sets.items() if name in names]
        assert len(own) == (min(draws, kind.count(number)) if number > 1 else kind.count(1))
        assert all(set(one) <= set(kind.blocks) and len(one) == number for one in own)
        if name.startswith("window"):
            assert all(one == tuple(range(one[0], one[0] + number)) for one in own)
    if number == 1:  # every block, whatever the draws
        assert set(sets) == {(block,) for block in range(blocks)}


def test_sets_that_were_drawn_before_are_taken_first_and_no_set_is_favoured():
    kinds = kinds_of(range(8), range(8, 14))
    seen, shared = dict.fromkeys(combinations(kinds["later_silent"].blocks, 2), 0), 0
    for seed in range(300):
        sets = drawn_sets(kinds, 2, 5, seed)
        for one, names in sets.items():
            if "later_silent" in names:
                seen[one] += 1
                shared += "silent" in names
            assert ("near_decisive" in names) == ("decisive" in names)
    counts = np.array(list(seen.values()))
    assert counts.sum() == 1500 and shared > 500
    assert np.abs(counts / counts.mean() - 1).max() < 0.4  # four standard errors


def costs_of(values, questions=4000):
    """Costs of blocks that a full model without mistakes loses exactly."""
    lost = np.arange(questions) < np.round(np.asarray(values)[:, None] * 0.75 * questions)
    full, chances = np.ones(questions), np.full(questions, 0.25)
    return block_costs(range(len(values)), ~lost, full, chances, 0)


@pytest.mark.slow
def test_the_jump_by_hand():
    depth = (np.arange(14) - 7.5) / 13  # readout 8 is between blocks 7 and 8
    values = 0.2 - 0.3 * depth + 0.1 * (np.arange(14) < 8)
    costs = costs_of(values)
    np.testing.assert_allclose([one.value for one in costs.costs], values, atol=2e-4)
    for one in costs.costs:
        assert one.ci[0] < one.value < one.ci[1]
    fit = fit_jump(costs, range(2, 14), 8, 14)
    assert fit.blocks == tuple(range(2, 14))
    for found, true in ((fit.level, 0.2), (fit.slope, -0.3), (fit.jump, 0.1)):
        assert found.value == pytest.approx(true, abs=1e-3)
        assert found.ci[0] < true < found.ci[1] and found.p_value < 0.01
    # A single dear block at the end of the near ones is no jump, however many questions there are.
    odd = np.where(np.arange(14) == 2, 0.35, 0.01)
    fit = fit_jump(costs_of(odd), range(2, 14), 8, 14)
    assert fit.jump.p_questions < 0.01 < fit.jump.p_value
    assert fit.jump.widest_ci == fit.jump.block_ci
    assert fit_jump(costs, (7, 8), 8, 14) is None
    nothing = fit_jump(costs_of(np.zeros(14)), range(2, 14), 8, 14).jump
    assert nothing.value == 0 and nothing.p_value == 1


def control(value, p_value=0.001, plain=0.3):
    return Control(value, (value - 0.1, value + 0.1), p_value, (0, 1), p_value, (1, 2), plain)


@pytest.mark.parametrize(
    ("plain", "changed", "verdict"),
    [
        (0.3, {}, "agrees"),
        (0.3, {"jump": control(0.3, p_value=0.2)}, "partly"),
        (0.3, {"near": control(0.3, p_value=0.02)}, "partly"),
        (0.3, {"without_first": control(0.1)}, "partly"),  # small
        (0.3, {"jump": control(-0.3)}, "partly"),
        (0.3, {"near": control(-0.3)}, "disagrees"),
        (0.3, {"jump": None}, "partly"),
        (-0.3, {}, "disagrees"),
        (0.0, {}, "undecided"),
        (0.0, {"near": control(-0.3)}, "disagrees"),
    ],
)
def test_verdicts(plain, changed, verdict):
    p_value = 0.001 if plain else 0.5
    difference = Difference(Estimate(plain, (plain - 0.1, plain + 0.1)), p_value, p_value, 0.01)
    controls = dict.fromkeys(("without_first", "near", "jump"), control(0.3)) | changed
    controls = {name: one for name, one in controls.items() if one is not None}
    assert phase_verdict(difference, controls) == verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, right, _) in truths(14, 8).items() if right])
def test_phase_or_depth(name):
    """Few samples of each truth; benchmarks/phase_or_depth.py takes many."""
    costs, right, _ = truths(14, 8)[name]
    results = [phase_sample(costs, 8, seed, questions=150, draws=5) for seed in range(5)]
    assert [result["verdict"] for result in results] == [right] * 5
    for result in results:
        (line,) = [line for line in phasewise_lines(result) if line == control_line(result, result)]
        assert ("that may be their depth" in line) == (right == "partly")
        assert len(result["regression"]["costs"]) == 14


def test_an_undecided_difference_says_how_many_questions_it_takes():
    costs = np.where(np.arange(14) < 8, 0.02, 0.0)
    result = phase_sample(costs, 8, 3, questions=60, draws=5)
    pooled = result["pooled"]
    assert result["verdict"] == "undecided" and not pooled["significant"]
    needed = questions_needed(pooled["difference"], pooled["difference_ci"], 60, 0.99)
    assert pooled["questions_needed"] == needed > 60
    assert f"about {needed:,} questions would do" in difference_line(result)


def test_texts_have_no_debiased_part():
    result = phase_sample(np.full(14, 0.1), 8, 0)
    assert result["debiased"] is None
    assert len(phasewise_lines(result)) == 4  # no sentence on it


def test_a_phase_of_few_blocks_has_no_jump():
    result = phase_sample(np.full(14, 0.1), 13, 0, most=1)
    assert result["regression"]["fit"] is None and "jump" not in result["controlled"]
    assert "there are too few blocks" in control_line(result, result)
    result = phase_sample(np.full(14, 0.1), 2, 0, most=1)  # all Silent blocks are first ones
    assert result["controlled"] == {}
    assert transition_at(2, 14).silent_blocks == tuple(result["first_blocks"])


OPTIONS = dict(draws=3, most=2, calibration=32, seed=0)


@pytest.fixture(scope="module")
def demo_task():
    return load_task("demo", limit=72)


@pytest.mark.slow
def test_a_run_and_its_figures(demo, demo_task, tmp_path):
    got = phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS)
    calibration, evaluation = split(demo_task, 32, None, 0)
    traced = trace(demo, calibration)
    assert got.trace.to_dict() == traced.to_dict()
    phases = got.result["phases"]
    assert phases["silent"] == list(traced.transition.silent_blocks)
    prepared = prepare(demo, evaluation)
    kinds = kinds_of(phases["silent"], phases["decisive"])
    assert len({tuple(line["blocks"]) for line in got.lines}) == len(got.lines)
    for line in got.lines:
        for kind in line["kinds"] if line["blocks"] else ():
            assert set(line["blocks"]) <= set(kinds[kind].blocks)
        assert len(line["blocks"]) == line["removed_blocks"]
        raw = trace_scores(
            demo, prepared.rows, prepared.needs_vocabulary, removed=line["blocks"], output_only=True
        )
        decisions = prepared.decide(raw)
        for suffix, of in (("", decisions), ("_debiased", decisions.debiased)):
            assert line[f"correct{suffix}"] == "".join("01"[int(c)] for c in of.correct[:, -1])
            assert line[f"accuracy{suffix}"] == pytest.approx(of.correct[:, -1].mean())
            assert line[f"decision_margin{suffix}"] == pytest.approx(of.margins.mean(), abs=1e-4)
    single = [line for line in got.lines if line["removed_blocks"] == 1]
    assert len(single) == 14
    for measure, suffix in ((got.result, ""), (got.result["debiased"], "_debiased")):
        above = [line[f"accuracy{suffix}"] - 0.25 for line in (got.lines[0], *single)]
        costs = {one["block"]: one["cost"] for one in measure["regression"]["costs"]}
        for line, left in zip(single, above[1:], strict=True):
            assert costs[line["blocks"][0]] == pytest.approx(1 - left / above[0])
        assert measure["by_removed"][0]["silent"]["retained"] == pytest.approx(
            1 - np.mean([costs[block] for block in phases["silent"]])
        )
        assert set(measure["controlled"]) == {"without_first", "near", "jump"}
    assert [row["removed_blocks"] for row in got.result["by_removed"]] == [1, 2]
    assert got.result["block_passes"] < got.result["naive_block_passes"]
    assert got.result["pooled"]["difference"] > 0
    page = write_report(tmp_path / "run").read_text()
    assert (
        difference_tile(got.result).number in page
        and control_line(got.result, got.result) in page
        and 'id="phasewise"' in page
        and difference_line(got.result) in page
    )
    upper, costs, controls = got.plot().axes
    drawn = {line.get_label(): line.get_ydata() for line in upper.lines}
    np.testing.assert_allclose(
        drawn["removed: Silent"], [row["silent"]["retained"] for row in got.result["by_removed"]]
    )
    np.testing.assert_allclose(
        drawn["debiased: Silent"],
        [row["silent"]["retained"] for row in got.result["debiased"]["by_removed"]],
    )
    shown = {line.get_label(): line.get_ydata() for line in costs.lines}
    assert len(shown["cost: Silent"]) == len(phases["silent"]) and "fit: Decisive" in shown
    assert len(controls.get_yticklabels()) == 5
    json.dumps(got.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_protected_blocks_are_in_no_set(demo, demo_task, tmp_path):
    got = phasewise(demo, demo_task, out=tmp_path / "run", protect=(2, 0, 1), **OPTIONS)
    assert not {0, 1, 2} & {block for line in got.lines for block in line["blocks"]}
    assert got.result["protect"] == [0, 1, 2]
    assert [one["block"] for one in got.result["regression"]["costs"]] == list(range(3, 14))
    # The first blocks are among these, so that leaving them out changes nothing.
    controlled, plain = got.result["controlled"], got.result["pooled"]
    assert controlled["without_first"]["difference"] == plain["difference"]
    with pytest.raises(UserError, match="protect"):
        phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS)


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_goes_on(demo, demo_task, tmp_path):
    def interrupt(label, done, total):
        if label.startswith("2 of 2"):
            raise Stopped

    whole = phasewise(demo, demo_task, **OPTIONS)
    with pytest.raises(Stopped):
        phasewise(demo, demo_task, out=tmp_path / "run", progress=interrupt, **OPTIONS)
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["status"] == "failed"
    assert {line["removed_blocks"] for line in run.candidates()} == {0, 1}
    labels = []
    resumed = phasewise(
        demo,
        demo_task,
        out=tmp_path / "run",
        progress=lambda label, *_: labels.append(label),
        **OPTIONS,
    )
    assert resumed.state == "resumed" and {label[:6] for label in labels} == {"2 of 2"}
    assert resumed.result == whole.result
    lines = (tmp_path / "run/candidates.jsonl").read_text().splitlines(keepends=True)
    again = phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS)
    assert again.state == "finished" and again.result == whole.result
    # Killed in the middle of a write: the last lines are missing, and one is torn.
    (tmp_path / "run/candidates.jsonl").write_text("".join(lines[:-4]) + lines[-4][:30])
    run.update(status="running", result=None)
    mended = phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS)
    passes = ("block_passes", "naive_block_passes")
    for name in set(whole.result) - set(passes):
        assert mended.result[name] == whole.result[name]
    assert len(mended.lines) == len(whole.lines)
    with pytest.raises(UserError, match="draws was 3 and now is 4"):
        phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS | {"draws": 4})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"draws": 1}, "draws=1: an interval over sets needs at least 2"),
        ({"most": 0}, "most=0: at least 1"),
        ({"most": 9}, "most=9: the Decisive Phase has"),
        ({"most": 4, "protect": range(9, 14)}, "blocks that are not protected, and as many"),
        ({"protect": range(7, 14)}, "the Decisive Phase .* has no other blocks"),
        ({"protect": [14]}, "protect=14: the model has blocks 0 to 13"),
    ],
)
def test_options_that_do_not_do(demo, demo_task, changed, says):
    with pytest.raises(UserError, match=says):
        phasewise(demo, demo_task, **OPTIONS | changed)


def test_no_transition_is_one_sentence_and_exit_2(tiny_dirs, question_file, capsys, tmp_path):
    words = [
        "phasewise",
        str(tiny_dirs["llama"]),
        "--task",
        str(question_file),
        "--calibration",
        "4",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in err
    assert "no transition is found on 4 calibration questions" in err
    assert not (tmp_path / "run/candidates.jsonl").exists()


@pytest.mark.slow
def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "phasewise",
        "demo",
        "--limit",
        "72",
        "--draws",
        "3",
        "--most",
        "2",
        "--calibration",
        "32",
        "--protect",
        "0,1",
        "--out",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(words)
    out = capsys.readouterr().out
    assert not ended.value.code and "next: phaseprune prune" in out
    assert max(map(len, out.split("report:")[0].splitlines())) <= 80
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["result"]["by_removed"][0]["difference_ci"][0] > -1
    assert set(told) == {"trace", "result"} and told["result"]["protect"] == [0, 1]
