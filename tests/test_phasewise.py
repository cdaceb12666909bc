"""Sets of blocks in one walk against deleting them; the phases compared; runs."""

import json
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaseprune.cli.main import main
from phaseprune.decision.phases import Sets, compare_phases, retained_of_sets
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.html import write_report
from phaseprune.report.phasewise_words import difference_line, difference_tile
from phaseprune.runs.directory import RunDirectory
from phaseprune.search.phasewise import draw_sets, phasewise
from phaseprune.sweep.measure import prepare, trace
from phaseprune.sweep.sets import set_scores
from phaseprune.sweep.side_by_side import block_passes, branch
from phaseprune.sweep.walk import trace_scores
from test_sweep import count_tokens, naive_scores, without

SETS = [(), (0,), (0, 1), (1, 4), (4,), (0, 1, 2, 3), (2, 3, 4), (0, 4), (1, 2, 3, 4), (0, 1)]


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


def test_a_streamed_model_gives_the_same(tiny, tiny_dirs, small_task):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    assert streamed.stream is not None
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


def test_a_full_model_near_chance_has_no_interval():
    got, _, _ = compared([[0.3] * 4], [[0.3] * 4], full=0.3, questions=40, seed=3)
    one = got.differences[1]
    assert one.estimate.ci is None and one.p_value is None and not one.significant


OPTIONS = dict(draws=3, most=2, calibration=32, seed=0)


@pytest.fixture(scope="module")
def demo_task():
    return load_task("demo", limit=72)


def test_a_run_and_its_figures(demo, demo_task, tmp_path):
    got = phasewise(demo, demo_task, out=tmp_path / "run", **OPTIONS)
    calibration, evaluation = split(demo_task, 32, None, 0)
    traced = trace(demo, calibration)
    assert got.trace.to_dict() == traced.to_dict()
    phases = got.result["phases"]
    assert phases["silent"] == list(traced.transition.silent_blocks)
    prepared = prepare(demo, evaluation)
    pools = phases | {"anywhere": list(range(14))}
    for line in got.lines:
        assert set(line["blocks"]) <= set(pools.get(line["kind"], ()))
        assert len(line["blocks"]) == line["removed_blocks"]
        raw = trace_scores(
            demo, prepared.rows, prepared.needs_vocabulary, removed=line["blocks"], output_only=True
        )
        decisions = prepared.decide(raw)
        assert line["correct"] == "".join("01"[int(c)] for c in decisions.correct[:, -1])
        assert line["decision_margin"] == pytest.approx(decisions.margins.mean(), abs=1e-4)
    assert [row["removed_blocks"] for row in got.result["by_removed"]] == [1, 2]
    assert got.result["block_passes"] < got.result["naive_block_passes"]
    assert got.result["pooled"]["difference"] > 0
    page = write_report(tmp_path / "run").read_text()
    assert (
        difference_tile(got.result)[1] in page
        and 'id="phasewise"' in page
        and difference_line(got.result) in page
    )
    axes = got.plot().axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(
        drawn["removed: Silent"], [row["silent"]["retained"] for row in got.result["by_removed"]]
    )
    json.dumps(got.to_dict(), allow_nan=False)


class Stopped(Exception):
    pass


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
        demo, demo_task, out=tmp_path / "run",
        progress=lambda label, *_: labels.append(label), **OPTIONS,
    )  # fmt: skip
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
        ({"draws": 1}, "--draws 1: an interval over sets needs at least 2"),
        ({"most": 0}, "--most 0: at least 1"),
        ({"most": 9}, "--most 9: the Decisive Phase has"),
    ],
)
def test_options_that_do_not_do(demo, demo_task, changed, says):
    with pytest.raises(UserError, match=says):
        phasewise(demo, demo_task, **OPTIONS | changed)


def test_no_transition_is_one_sentence_and_exit_2(tiny_dirs, question_file, capsys, tmp_path):
    words = ["phasewise", str(tiny_dirs["llama"]), "--task", str(question_file), "--calibration",
             "4", "--out", str(tmp_path / "run"), "--quiet"]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in err
    assert "no transition is found on 4 calibration questions" in err
    assert not (tmp_path / "run/candidates.jsonl").exists()


def test_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["phasewise", "demo", "--limit", "72", "--draws", "3", "--most", "2", "--calibration",
             "32", "--out", str(tmp_path / "run")]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(words)
    out = capsys.readouterr().out
    assert not ended.value.code and "next: phaseprune prune" in out
    assert max(map(len, out.split("report:")[0].splitlines())) <= 80
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["result"]["by_removed"][0]["difference_ci"][0] > -1
    assert set(told) == {"trace", "result"}
