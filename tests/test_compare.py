"""Methods compared: against deleting the blocks and slow statistics; runs, tables, the page."""

import io
import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from rich.console import Console
from scipy import stats

from conftest import QUESTIONS, WORDS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.comparison import task as compare_task
from phaseprune.comparison.compare import compare
from phaseprune.comparison.orders import draw_seed, method_names
from phaseprune.comparison.result import conclude_task
from phaseprune.decision.collapse import Retained, collapse_kind, fit_fall, retained
from phaseprune.decision.comparison import (
    Cell,
    Retaining,
    compare_cells,
    front,
    gains,
    mean_p,
    paired_p,
    standings,
)
from phaseprune.decision.tests import holm, mcnemar
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.methods.rank import rank_blocks
from phaseprune.methods.registry import METHODS
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.compare import (
    compare_lines,
    debiased_lines,
    debiased_table,
    numbers_in_words,
    retained_table,
    standing_lines,
)
from phaseprune.report.compare_figures import (
    compare_figure,
    cost_figure,
    looks,
    orders_figure,
    removal_places,
)
from phaseprune.report.page import write_report
from phaseprune.runs.atomic import read_json_lines
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.trace import trace
from phaseprune.sweep.walk import block_passes
from test_phasewise import Stopped
from test_sweep import naive_scores, without

FREE = ["magnitude", "tail", "tail_all", "reverse", "random"]
OPTIONS = dict(remove=[1, 3, 6], calibration=24, draws=3, seed=0)


@pytest.fixture(scope="module")
def demo_task():
    return load_task("demo", limit=72)


@pytest.fixture
def tiny_task(tmp_path):
    rows = [
        dict(row, question=f"{row['question']} {WORDS.split()[number]}")
        for number in range(5)
        for row in QUESTIONS
    ]
    return load_task(str(write_jsonl(tmp_path / "questions.jsonl", rows)))


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    words = WORDS.split()
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(words[(7 * i + i // 5) % len(words)] for i in range(500)))
    return path


def lasting(result):
    """A result without what differs from run to run: times, and how sets were put together."""
    copied = json.loads(json.dumps(result))
    for task in copied["tasks"]:
        task.pop("scored")
        for method in task["methods"]:
            method.pop("seconds")
    return copied


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_cells_are_of_the_model_without_the_blocks(tiny, tiny_task, text_file, tmp_path, family):
    decoder, run = tiny[family], tmp_path / "run"
    names = ["decision_margin", "sleb", "block_influence", "angular", "taylor", "tail", "random"]
    got = compare(
        decoder,
        [tiny_task],
        methods=names,
        remove=[1, 3],
        text=text_file,
        protect=[4],
        calibration=8,
        draws=2,
        seed=5,
        out=run,
    )
    chosen_on, scored_on = split(tiny_task, 8, None, 5)
    (task,) = got.result["tasks"]
    assert [one["method"] for one in task["methods"]] == names  # the registry's order
    orders = {}
    for one in task["methods"]:
        name = one["method"]
        given_to = text_file if name in ("sleb", "taylor") else chosen_on
        for cell in one["cells"]:
            seeds = [draw_seed(5, draw) for draw in range(2)] if name == "random" else [5]
            expected = [
                sorted(
                    rank_blocks(
                        decoder,
                        given_to,
                        method=name,
                        seed=seed,
                        protect=[4],
                        remove=cell["removed_blocks"] if name == "angular" else 3,
                    ).order[: cell["removed_blocks"]]
                )
                for seed in seeds
            ]
            assert cell["sets"] == expected and 4 not in sum(expected, [])
            rights = []
            for blocks in expected:
                scores = naive_scores(
                    without(decoder.model, decoder.blocks_path, blocks),
                    decoder.tokenizer,
                    scored_on,
                )
                rights.append(scores.argmax(axis=1) == scored_on.gold)
            assert cell["accuracy"] == pytest.approx(np.mean(rights))
            orders[name, cell["removed_blocks"]] = rights
    assert np.ptp([np.mean(rights) for rights in orders.values()]) > 0.05  # choices matter
    assert task["transition"] == json.loads(
        json.dumps(trace(decoder, chosen_on, seed=5).to_dict()["transition"])
    )


@pytest.mark.slow
def test_equal_sets_are_scored_once_and_all_walk_together(demo, demo_task, tmp_path):
    got = compare(demo, [demo_task], methods=FREE + ["angular"], out=tmp_path / "run", **OPTIONS)
    (task,) = got.result["tasks"]
    lines = RunDirectory(tmp_path / "run" / "demo").candidates()
    sets = [tuple(line["blocks"]) for line in lines]
    asked = [tuple(s) for one in task["methods"] for cell in one["cells"] for s in cell["sets"]]
    assert len(set(asked)) < len(asked)
    assert len(sets) == len(set(sets)) and set(sets) == {(), *asked}
    assert task["scored"]["sets"] == len(sets)
    assert task["scored"]["block_passes"] == block_passes(14, [set(one) for one in sets])
    assert task["scored"]["naive_block_passes"] == sum(14 - len(one) for one in sets)


@pytest.mark.slow
def test_walks_of_few_sets_share_most(demo, demo_task, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_task, "SETS_A_WALK", 4)
    apart = compare(demo, [demo_task], methods=FREE, out=tmp_path / "a", **OPTIONS).result
    monkeypatch.undo()
    whole = compare(demo, [demo_task], methods=FREE, out=tmp_path / "b", **OPTIONS).result
    assert lasting(apart) == lasting(whole)
    few, many = (one["tasks"][0]["scored"]["block_passes"] for one in (apart, whole))
    assert many < few < whole["tasks"][0]["scored"]["naive_block_passes"]


@pytest.mark.slow
def test_a_killed_run_goes_on_cell_by_cell(demo, demo_task, tmp_path, monkeypatch):
    names = ["decision_margin", "block_influence", "tail", "reverse"]
    whole = compare(demo, [demo_task], methods=names, **OPTIONS)
    monkeypatch.setattr(compare_task, "SETS_A_WALK", 4)
    run = tmp_path / "run"

    def stop_at(begin):
        def listen(label, done, total):
            if begin in label:
                raise Stopped

        return listen

    stops = (("block_influence (2 of 4)", 1, 0), ("walk 2 of", 4, 4))
    for begin, rankings, scored in stops:
        with pytest.raises(Stopped):
            compare(demo, [demo_task], methods=names, out=run, progress=stop_at(begin), **OPTIONS)
        assert RunDirectory(run).manifest["status"] == "failed"
        assert len(read_json_lines(run / "demo/rankings.jsonl")) == rankings
        assert len(RunDirectory(run / "demo").candidates()) == scored
    page = write_report(run).read_text()
    assert "failed" in page and "nothing to show yet" in page
    labels = set()
    resumed = compare(
        demo,
        [demo_task],
        methods=names,
        out=run,
        progress=lambda label, *_: labels.add(label),
        **OPTIONS,
    )
    assert resumed.state == "resumed" and labels  # nothing but the walks that were missing
    assert all("choices scored" in label for label in labels)
    assert lasting(resumed.result) == lasting(whole.result)
    again = compare(demo, [demo_task], methods=names, out=run, **OPTIONS)
    assert again.state == "finished" and again.result == resumed.result
    # A torn line: the process died while it wrote.
    lines = (run / "demo/rankings.jsonl").read_text().splitlines(keepends=True)
    (run / "demo/rankings.jsonl").write_text("".join(lines[:-1]) + lines[-1][:25])
    mended = compare(demo, [demo_task], methods=names, out=run, **OPTIONS)
    assert mended.state == "resumed" and lasting(mended.result) == lasting(whole.result)


@pytest.mark.slow
def test_methods_are_added_to_a_finished_run(demo, demo_task, tmp_path):
    run, labels = tmp_path / "run", set()
    compare(demo, [demo_task], methods=["loss", "tail"], out=run, **OPTIONS)
    added = compare(
        demo,
        [demo_task],
        methods=["cka"],
        out=run,
        progress=lambda label, *_: labels.add(label),
        **OPTIONS,
    )
    whole = compare(demo, [demo_task], methods=["tail", "cka", "loss"], **OPTIONS)
    assert added.state == "resumed" and lasting(added.result) == lasting(whole.result)
    assert all(" cka (1 of 1)" in label or "choices scored" in label for label in labels)
    assert len(labels) == 2
    assert json.loads((run / "compare.json").read_text()) == added.result


@pytest.mark.slow
def test_a_ranking_by_text_is_made_once_for_all_tasks(tiny, text_file, tmp_path):
    decoder, tasks, labels = tiny["llama"], [], []
    for place, name in enumerate(["first", "second"]):
        rows = [
            dict(row, question=f"{row['question']} {WORDS.split()[number + place]}")
            for number in range(5)
            for row in QUESTIONS
        ]
        tasks.append(load_task(str(write_jsonl(tmp_path / f"{name}.jsonl", rows))))
    options = dict(methods=["sleb", "block_influence"], remove=[1, 3], text=text_file)
    both = compare(
        decoder,
        tasks,
        calibration=[8, 6],
        evaluation=[7, 5],
        **options,
        progress=lambda label, *_: labels.append(label),
    )
    ranked = {
        (Path(label.split(":")[0]).stem, name)
        for label in labels
        for name in options["methods"]
        if f" {name} (" in label
    }
    assert ("first", "sleb") in ranked and ("second", "sleb") not in ranked
    assert ("second", "block_influence") in ranked
    alone = [
        compare(decoder, [task], calibration=chosen, evaluation=scored, **options)
        for task, chosen, scored in zip(tasks, [8, 6], [7, 5], strict=True)
    ]
    for one, other in zip(lasting(both.result)["tasks"], alone, strict=True):
        (expected,) = lasting(other.result)["tasks"]
        assert one | {"folder": ""} == expected | {"folder": ""}


@pytest.mark.slow
def test_what_cannot_run_is_left_out_with_the_reason(tiny_dirs, tiny_task, text_file, tmp_path):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    notes, run = [], tmp_path / "run"
    options = dict(remove=[1, 3], protect=[2], calibration=8, draws=2, out=run, note=notes.append)
    names = ["angular", "ppl", "taylor", "magnitude_plus", "tail"]
    first = compare(streamed, [tiny_task], methods=names, **options)
    (task,) = first.result["tasks"]
    assert [one["method"] for one in task["methods"]] == ["angular", "tail"]
    reasons = {(one["method"], one["at"]): one["reason"] for one in task["left_out"]}
    assert set(reasons) == {("angular", "3"), *((n, "all") for n in names[1:4])}
    assert "3 neighbouring blocks" in reasons["angular", "3"]
    assert "plain text" in reasons["ppl", "all"] and "keeps the first 4" in str(reasons)
    assert [cell["removed_blocks"] for cell in task["methods"][0]["cells"]] == [1]
    assert task["methods"][0]["mean_retained"]["value"] is None or task["common_numbers"] == [1]
    assert any("angular is left out at 3" in one for one in notes)
    assert any("taylor is left out, as ppl is" in one for one in notes)
    assert sum("Left out: ppl, taylor (" in line for line in compare_lines(task)) == 1
    with_text = compare(streamed, [tiny_task], methods=["ppl", "taylor"], text=text_file, **options)
    (task,) = with_text.result["tasks"]
    assert [one["method"] for one in task["methods"]] == ["angular", "ppl", "tail"]
    reasons = {one["method"]: one["reason"] for one in task["left_out"]}
    assert "gradients" in reasons["taylor"] and "ppl" not in reasons
    other = text_file.with_name("other.txt")
    other.write_text(text_file.read_text()[5:])
    with pytest.raises(UserError, match="holds another run: its text was .*text.txt"):
        compare(streamed, [tiny_task], methods=["ppl"], text=other, **options)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seed": 1}, "its seed was 0 and now is 1"),
        ({"remove": [1, 3]}, r"its option remove was \[1, 3, 6\] and now is \[1, 3\]"),
        ({"calibration": 23}, "its option calibration questions of demo was 24 and now is 23"),
        ({"evaluation": 30}, "its option evaluation questions of demo was 48 and now is 30"),
        ({"draws": 2}, "its option draws was 3 and now is 2"),
        ({"protect": [3]}, r"its option protect was \[\] and now is \[3\]"),
    ],
)
def test_another_run_is_refused_by_name(demo, demo_task, tmp_path_factory, changed, says):
    run = tmp_path_factory.getbasetemp() / "compare-refused"
    compare(demo, [demo_task], methods=["tail"], out=run, **OPTIONS)
    with pytest.raises(UserError, match=says):
        compare(demo, [demo_task], methods=["tail"], out=run, **OPTIONS | changed)


@pytest.mark.slow
def test_other_questions_and_models_are_refused(demo, tiny, demo_task, tmp_path):
    compare(demo, [demo_task], methods=["tail"], out=tmp_path / "run", **OPTIONS)
    with pytest.raises(UserError, match="its task demo questions was 72 and now is 73"):
        compare(
            demo,
            [load_task("demo", limit=73)],
            methods=["tail"],
            out=tmp_path / "run",
            **OPTIONS | {"evaluation": 48},
        )
    with pytest.raises(UserError, match="its model"):
        compare(
            tiny["llama"],
            [demo_task],
            methods=["tail"],
            out=tmp_path / "run",
            **OPTIONS | {"remove": [1, 2]},
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "block_influenc"], "Did you mean 'block_influence'"),
        (["--methods", ","], "names nothing"),
        (["--remove", "some"], "must say how many blocks"),
        (["--calibration", "9,many"], "must say how many questions"),
        (["--draws", "1"], "at least 2"),
        (["--protect", "x"], "--protect 'x'"),
        (["--text", "/no/such.txt"], "--text /no/such.txt"),
    ],
)
def test_bad_input_is_said_before_anything_is_loaded(words, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "no-such-model", "--task", "demo", *words])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and says in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"remove": [0]}, "give 1 to 13"),
        ({"remove": [14]}, "give 1 to 13"),
        ({"remove": []}, "names no number"),
        ({"protect": range(14)}, "nothing is left to remove"),
        ({"protect": [14]}, "blocks 0 to 13"),
        ({"calibration": 72}, "are needed"),
        ({"calibration": [24, 24]}, "names 2 numbers of questions for 1 tasks"),
        ({"methods": []}, "methods names none"),
    ],
)
def test_options_that_do_not_do(demo, demo_task, changed, says):
    with pytest.raises(UserError, match=says):
        compare(demo, [demo_task], **OPTIONS | changed)
    with pytest.raises(UserError, match="twice"):
        compare(demo, [demo_task, demo_task], **OPTIONS)


def test_all_methods_but_the_dear_ones_are_the_default():
    assert method_names(None) == tuple(name for name in METHODS if not METHODS[name].expensive)
    assert method_names(["tail", "loss"]) == ("loss", "tail")


# Statistics.


def right(share, questions, seed, draws=1):
    return np.random.default_rng(seed).random((draws, questions)) < share


def test_pairs_against_a_slow_computation():
    cells = {
        2: {
            "a": Cell(1, right(0.9, 80, 1)),
            "b": Cell(2, right(0.4, 80, 2)),
            "c": Cell(3, right(0.85, 80, 3)),
        },
        5: {"a": Cell(4, right(0.8, 80, 4)), "b": Cell(5, right(0.3, 80, 5))},
    }
    cells[2]["same"] = cells[2]["a"]
    pairs = compare_cells(cells)
    expected = []
    for number, names in ((2, "ab"), (2, "ac"), (2, "bc"), (5, "ab")):
        one, other = (cells[number][name].correct[0] for name in names)
        lost = sum(bool(x and not y) for x, y in zip(one, other, strict=True))
        won = sum(bool(y and not x) for x, y in zip(one, other, strict=True))
        p = min(
            1.0, 2 * sum(stats.binom.pmf(k, lost + won, 0.5) for k in range(min(lost, won) + 1))
        )
        expected.append((number, lost, won, p))
    assert [(p.removed_blocks, p.only_first, p.only_second) for p in pairs] == [
        one[:3] for one in expected
    ]
    assert [p.p_value for p in pairs] == pytest.approx([one[3] for one in expected])
    assert [p.p_corrected for p in pairs] == pytest.approx(holm([one[3] for one in expected]))
    assert pairs[0].first == ("a", "same")  # the same blocks: one choice, never tested
    found = standings(cells, pairs)
    assert found[2].best == ("a", "same") and found[2].not_worse == ("c",)
    assert found[2].worse == ("b",) and found[5].worse == ("b",)


def test_the_correction_is_over_all_numbers():
    strong = {"a": Cell(1, right(1, 12, 0)), "b": Cell(2, np.arange(12)[None] >= 6)}
    alone = compare_cells({1: strong})
    assert alone[0].p_value == pytest.approx(2 * 0.5**6) and alone[0].significant
    more = compare_cells({1: strong, 2: strong})
    assert more[0].p_corrected == pytest.approx(4 * 0.5**6) and not more[0].significant
    assert standings({1: strong, 2: strong}, more)[1].not_worse == ("b",)


def test_draws_are_tested_by_the_median():
    one, draws = right(0.9, 60, 1), right(0.6, 60, 2, draws=5)
    tests = [mcnemar(int((one[0] & ~row).sum()), int((~one[0] & row).sum())) for row in draws]
    assert paired_p(one, draws) == pytest.approx(min(1, 2 * np.median(tests)))
    assert paired_p(draws, one) == paired_p(one, draws)
    # Draws on both sides of the one: no difference, however large each is.
    level = np.arange(60)[None] < 30
    both = np.stack([np.ones(60, bool), np.ones(60, bool), np.zeros(60, bool)])
    assert mcnemar(0, 30) < 1e-6 and paired_p(level, both[1:]) == 1.0


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is():
    """Methods of one accuracy, 200 times: at most about 5 % runs with any false finding."""
    false = steps = 0
    for seed in range(200):
        cells = {
            number: {
                name: Cell(name, right(0.6, 100, [seed, number, place], 3 if name == "r" else 1))
                for place, name in enumerate("abcr")
            }
            for number in (1, 2)
        }
        false += any(pair.significant for pair in compare_cells(cells))
        pooled = {n: np.mean([cells[k][n].correct for k in cells], axis=0) for n in "abcr"}
        retaining = Retaining(right(0.9, 100, [seed, 9])[0], np.full(100, 0.25), seed)
        costs = dict(a=1, b=2, c=3, r=0)
        values = {name: retaining.value(rows) for name, rows in pooled.items()}
        order = front(costs, values)
        steps += any(gain.significant for gain in gains(order, costs, pooled, retaining))
    assert false <= 14 and steps <= 14


def test_retained_is_that_of_a_pruning_step():
    full, correct, chances = right(0.9, 70, 1)[0], right(0.6, 70, 2), np.full(70, 0.25)
    got = Retaining(full, chances, 4).estimate(correct)
    expected = retained(correct[0], full, chances)  # its interval is Fieller's, this a bootstrap's
    assert got.value == pytest.approx(expected.value)
    assert got.ci == pytest.approx(expected.ci, abs=0.03)
    drawn = np.concatenate([right(share, 70, 3) for share in (0.3, 0.9, 0.3, 0.9)])
    wide = Retaining(full, chances, 4).estimate(drawn).ci
    narrow = Retaining(full, chances, 4).estimate(drawn.mean(axis=0, keepdims=True)).ci
    assert np.diff(wide) > 1.5 * np.diff(narrow)  # draws differ too
    nothing = Retaining(right(0.2, 70, 1)[0], chances, 4)
    assert nothing.estimate(correct) is None and not nothing.defined
    near = Retaining(np.arange(70) < 19, chances, 4)
    low, high = near.estimate(correct).ci  # of a full model that is hardly above chance: wide
    assert near.defined and high - low > 10


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=1),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
        min_size=1,
    )
)
def test_the_front_is_what_nothing_beats(points):
    costs, values = ({k: v[i] for k, v in points.items()} for i in (0, 1))
    expected = {
        one
        for one in points
        if not any(
            (costs[o] < costs[one] and values[o] >= values[one])
            or (costs[o] == costs[one] and values[o] > values[one])
            for o in points
        )
    }
    got = front(costs, values)
    assert set(got) == expected and list(got) == sorted(got, key=lambda m: (costs[m], -values[m]))


def test_gains_are_corrected_over_all_pairs():
    correct = {"dear": right(0.9, 200, 1), "cheap": right(0.6, 200, 2), "off": right(0.3, 200, 3)}
    costs = {"dear": 100, "cheap": 0, "off": 50}
    retaining = Retaining(right(0.95, 200, 4)[0], np.full(200, 0.25), 0)
    order = front(costs, {name: retaining.value(rows) for name, rows in correct.items()})
    assert order == ("cheap", "dear")
    (gain,) = gains(order, costs, correct, retaining)
    by_hand = (correct["dear"].mean() - correct["cheap"].mean()) / (retaining.full.mean() - 0.25)
    assert gain.estimate.value == pytest.approx(by_hand) and gain.significant
    difference = correct["dear"][0].astype(float) - correct["cheap"][0]
    z = difference.mean() / (difference.std() / np.sqrt(200))
    assert np.log(gain.p_value) == pytest.approx(np.log(2 * stats.norm.sf(z)), rel=0.25)
    assert gain.p_corrected > gain.p_value
    assert mean_p(0.0, np.zeros(5)) == 1.0 and mean_p(0.1, np.full(5, 0.1)) == 0.0


@pytest.mark.slow
def test_the_result_by_hand(demo, demo_task, tmp_path):
    got = compare(
        demo,
        [demo_task],
        methods=["loss", "angular", "tail", "random"],
        out=tmp_path,
        **OPTIONS | {"remove": [2, 6, 10]},
    )
    (task,) = got.result["tasks"]
    assert task["common_numbers"] == [2, 6] and task["cliff"]["removed_blocks"] == 10
    assert task["cliff"]["found"]
    lines = {tuple(one["blocks"]): one for one in RunDirectory(tmp_path / "demo").candidates()}
    flags = {
        blocks: np.array([flag == "1" for flag in one["correct"]]) for blocks, one in lines.items()
    }
    full = flags[()].mean()
    debiased = {
        blocks: np.array([flag == "1" for flag in one["correct_debiased"]])
        for blocks, one in lines.items()
    }
    assert task["full"]["accuracy_debiased"] == pytest.approx(debiased[()].mean())
    numbers, chances = [0, 2, 6, 10], np.full(len(flags[()]), task["chance"])
    best = [flags[()].astype(float)]
    for number in numbers[1:]:
        cells = [
            cell
            for one in task["methods"]
            for cell in one["cells"]
            if cell["removed_blocks"] == number
        ]
        cell = max(cells, key=lambda cell: cell["accuracy"])
        best.append(np.mean([flags[tuple(blocks)] for blocks in cell["sets"]], axis=0))
    by_hand = fit_fall(best, chances, 0, numbers)
    assert task["cliff"]["removed_blocks"] == numbers[by_hand.step]
    for name in ("before", "after", "kind", "p_value"):
        assert task["cliff"][name] == getattr(by_hand, name)
    for one in task["methods"]:
        fit = one["cliff_fit"]
        assert (fit is None) == (one["method"] == "random")
        if fit:
            curve = [flags[()], *(flags[tuple(cell["sets"][0])] for cell in one["cells"])]
            by_hand = fit_fall(curve, chances, 0, numbers)
            assert fit["found"] and fit["removed_blocks"] == numbers[by_hand.step]
            assert fit["ci"] == [numbers[end] for end in by_hand.ci]
            assert fit["span"] == [numbers[end] for end in by_hand.span]
            assert fit["span_ci"] == [[numbers[end] for end in ci] for ci in by_hand.span_ci]
            assert fit["after"] == by_hand.after < fit["before"]
            assert fit["line_r2"] == by_hand.line_r2 and fit["kind"] == by_hand.kind
        means = []
        for cell in one["cells"]:
            accuracy = np.mean([flags[tuple(blocks)].mean() for blocks in cell["sets"]])
            assert cell["accuracy"] == pytest.approx(accuracy)
            assert cell["retained"] == pytest.approx((accuracy - 0.25) / (full - 0.25))
            other = np.mean([debiased[tuple(blocks)].mean() for blocks in cell["sets"]])
            left = (other - 0.25) / (debiased[()].mean() - 0.25)
            assert cell["accuracy_debiased"] == pytest.approx(other)
            assert cell["retained_debiased"] == pytest.approx(left)
            low, high = cell["retained_debiased_ci"]
            assert low <= cell["retained_debiased"] <= high
            both = (
                Retained(cell[name], tuple(cell[f"{name}_ci"]))
                for name in ("retained", "retained_debiased")
            )
            assert cell["collapse"] == collapse_kind(*both)
            if cell["removed_blocks"] in task["common_numbers"]:
                means.append(cell["retained"])
            assert (cell["accuracy_ci"] is None) == (one["method"] == "random")
        assert one["mean_retained"]["value"] == pytest.approx(np.mean(means))
    for row in task["by_removed"]:
        of = {
            one["method"]: cell["accuracy"]
            for one in task["methods"]
            for cell in one["cells"]
            if cell["removed_blocks"] == row["removed_blocks"]
        }
        assert row["best"] == [name for name in of if of[name] == max(of.values())]
        assert sorted(row["best"] + row["not_worse"] + row["worse"]) == sorted(of)
    drawn = {line.get_label(): line.get_ydata() for line in got.plot().axes[0].lines}
    for one in task["methods"]:
        expected = [cell["retained"] for cell in one["cells"]]
        np.testing.assert_allclose(drawn[one["method"]], expected)
    costs = {one["method"]: one["block_passes"] for one in task["methods"]}
    assert costs["tail"] == costs["random"] == 0 and costs["angular"] == 14
    assert costs["loss"] > 100
    json.dumps(got.to_dict(), allow_nan=False)


# Tables, words, figures, the page, the command.


@pytest.fixture(scope="module")
def everything(demo, demo_task, tmp_path_factory):
    """All methods at all numbers."""
    run = tmp_path_factory.mktemp("compare") / "run"
    text = run.parent / "text.txt"
    text.write_text("\n".join(question.text for question in demo_task.questions))
    found = compare(
        demo,
        [demo_task],
        text=text,
        calibration=24,
        draws=3,
        out=run,
        methods=[name for name in METHODS if name not in ("accuracy", "loss", "sleb")],
    )
    return run, found.result["tasks"][0]


def printed(tables, width=80):
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    for table in tables:
        console.print(table)
    return console.export_text(clear=False), console.export_text(styles=True)


@pytest.mark.slow
def test_tables_fit_and_mark_the_best(everything):
    _, task = everything
    assert task["numbers"] == list(range(1, 14))
    text, styled = printed([retained_table(task)], 200)
    assert max(map(len, text.splitlines())) <= 80
    for one in task["methods"]:
        rows = [line for line in text.splitlines() if line.split()[:1] == [one["method"]]]
        assert len(rows) == 2
        cells = " ".join(rows).split()
        shown = [cell for cell in cells if cell[0] in "-–0123456789" and "," not in cell]
        assert len(shown) == 2 + 13  # passes twice
        marked = {cell["removed_blocks"] for cell in one["cells"]}
        for number, cell in zip(
            task["numbers"], [c for r in rows for c in r.split()[2:]], strict=True
        ):
            stand = task["by_removed"][number - 1]
            assert (cell == "–") == (number not in marked)
            assert cell.endswith("*") == (one["method"] in stand["best"])
            assert cell.endswith("~") == (one["method"] in stand["not_worse"])
    assert "\x1b[1m" in styled
    long = dict(
        task,
        numbers=list(range(1, 30)),
        by_removed=[dict(task["by_removed"][0], removed_blocks=number) for number in range(1, 30)],
    )
    assert max(map(len, printed([retained_table(long)], 200)[0].splitlines())) <= 80


@pytest.mark.slow
def test_figures_can_be_read(everything):
    _, task = everything
    names = [one["method"] for one in task["methods"]]
    styles = [tuple(map(str, look.values())) for look in looks(tuple(METHODS)).values()]
    assert len(set(styles)) == len(METHODS)
    legend = compare_figure(task).axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == set(names)
    figure = cost_figure(task)
    figure.draw_without_rendering()
    shown = [one["method"] for one in task["methods"] if one["mean_retained"]["value"] is not None]
    texts = [text for text in figure.axes[0].texts if text.get_text() in names]
    assert {text.get_text() for text in texts} == set(shown)
    boxes = [Text.get_window_extent(text) for text in texts]  # without the leader lines
    assert max(box.x1 for box in boxes) > 200  # drawn where they stand
    for one, other in combinations(boxes, 2):
        assert not one.shrunk(1, 0.8).overlaps(other.shrunk(1, 0.8))
    strip = orders_figure(task)
    drawn = [t.get_text() for t in strip.axes[0].texts]
    assert "Silent" in drawn and "Decisive" in drawn
    assert drawn.count("1") == len(names)


def test_places_of_removal():
    order = {"orders": [{"number": None, "draw": None, "order": [5, 2, 7]}]}
    assert removal_places(order) == {5: 1, 2: 2, 7: 3}
    windows = {
        "orders": [
            {"number": 3, "draw": None, "order": [4, 5, 6]},
            {"number": 1, "draw": None, "order": [8]},
            {"number": 2, "draw": None, "order": [5, 6]},
        ]
    }
    assert removal_places(windows) == {8: 1, 5: 2, 6: 2, 4: 3}


def test_claims_are_no_more_than_the_tests_allow(everything):
    _, task = everything
    told = " ".join(compare_lines(task))
    worse = {
        name
        for row in task["by_removed"]
        if row["removed_blocks"] in task["common_numbers"]
        for name in row["worse"]
    }
    sentence = next(line for line in compare_lines(task) if line.startswith("Best, or with no"))
    for one in task["methods"]:
        complete = one["mean_retained"]["value"] is not None
        said = f"{one['method']} (" in sentence
        assert said == (complete and one["method"] not in worse), one["method"]
    for gain in task["gains"]:
        verdict = "a significant" if gain["significant"] else "no significant"
        assert f"the cheaper {gain['than']}: {verdict} difference" in told
    assert len(standing_lines(task)) == 13
    (budget,) = [one["budget"] for one in task["methods"] if one["budget"]]
    of = f"{budget['blocks']} blocks ({budget['low']} to {budget['high']}) can go"
    assert f"planned predicted from the calibration questions that {of}." in told
    assert "What planned retains falls " in told and "No transition" not in told
    assert "What the best method at each number retains falls " in told
    alike = json.loads(json.dumps(task))
    alike["transition"]["found"] = False
    assert "can go. No transition was found there" in " ".join(compare_lines(alike))
    for row in alike["by_removed"]:
        row["not_worse"], row["worse"] = row["not_worse"] + row["worse"], []
    assert "do not tell them apart" in " ".join(compare_lines(alike))
    (first, second, *_) = alike["methods"]
    alike["methods"], alike["front"], alike["gains"] = [first, second], [first["method"]], []
    for row in alike["by_removed"]:
        row["worse"] = [second["method"]]
    assert "The other one is significantly worse" in " ".join(compare_lines(alike))
    alike["methods"] = [first]
    told = " ".join(compare_lines(alike))  # alone, it is not compared with itself
    assert "significantly worse" not in told and "tell them apart" not in told
    assert numbers_in_words([1, 2, 3]) == "1 to 3" and numbers_in_words([2, 4]) == "2, 4"


@pytest.mark.slow
def test_the_page_is_offline_and_whole(everything):
    run, task = everything
    page = write_report(run).read_text()
    assert "http" not in page.replace("http-equiv", "")
    for key in ("retained", "orders", "cost"):
        assert f'id="demo-{key}"' in page
    assert "retained % by number of removed blocks" in page and "<strong>" in page
    assert "retained % without the label prior" in page
    for line in standing_lines(task):
        assert line in page
    assert page.count('<td class="words">block_influence</td>') == 2  # as it answers, debiased


@pytest.mark.slow
def test_a_model_at_chance(tiny, tiny_task, tmp_path):
    got = compare(
        tiny["llama"],
        [tiny_task],
        methods=["tail", "magnitude"],
        remove=[1, 2],
        calibration=5,
        out=tmp_path / "run",
    )
    (task,) = got.result["tasks"]
    task = dict(task, full=dict(task["full"], accuracy=0.1))
    text, _ = printed([retained_table(task)])
    assert "questions: accuracy %" in text
    assert any("not above chance" in line for line in compare_lines(task))
    write_report(tmp_path / "run")


@pytest.mark.slow
def test_the_command_on_two_tasks(capsys, tmp_path, monkeypatch, demo_task):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        {"question": q.text, "choices": list(q.choices), "answer": q.answer}
        for q in demo_task.questions
    ]
    other = write_jsonl(tmp_path / "other.jsonl", rows)
    words = [
        "compare",
        "demo",
        "--task",
        f"demo,{other}",
        "--methods",
        "tail,random,ppl",
        "--remove",
        "2,5",
        "--limit",
        "60",
        "--calibration",
        "20",
        "--draws",
        "2",
        "--protect",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert not ended.value.code and "next: phaseprune" in out
    assert max(map(len, out.split("report:")[0].splitlines())) <= 80
    assert "ppl is left out" in " ".join(err.split())
    with pytest.raises(SystemExit):
        main([*words, "--json", "--quiet"])
    told, err = capsys.readouterr()
    result = json.loads(told)
    assert [task["folder"] for task in result["tasks"]] == ["demo", "other"] and not err
    assert result["protect"] == [0] and result["remove"] == [2, 5]
    assert all(
        0 not in one
        for task in result["tasks"]
        for m in task["methods"]
        for cell in m["cells"]
        for one in cell["sets"]
    )
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "run"), "--copy", str(tmp_path / "copy.html"), "--quiet"])
    assert 'id="other-orders"' in (tmp_path / "copy.html").read_text()


def made(rights, numbers, debiased=None):
    """The entry of a task on which one method leaves so many of 40 right, the full model first."""

    def line(place):
        told = {
            "blocks": list(range(([0, *numbers])[place])),
            "decision_margin": 0.5,
            "correct": "1" * rights[place] + "0" * (40 - rights[place]),
        }
        if debiased:
            right = debiased[place]
            told["correct_debiased"] = "1" * right + "0" * (40 - right)
        return told | {"removed_blocks": len(told["blocks"])}

    return conclude_task(
        folder="made",
        numbers=numbers,
        left_out={},
        scoring={},
        seed=0,
        trace={"task": "made", "scoring": "letter", "questions": 9, "blocks": 12, "transition": {}},
        rankings=[
            {
                "method": "tail",
                "number": None,
                "draw": None,
                "order": list(range(11)),
                "chosen_on": None,
                "block_passes": 0,
                "seconds": 0.0,
            }
        ],
        lines=[line(place) for place in range(len(rights))],
        evaluation=SimpleNamespace(options=np.full(40, 4)),
    )


@pytest.mark.parametrize(("lost", "significant"), [(1, False), (20, True)])
def test_a_fall_is_told_where_it_is_significant(lost, significant):
    found = made([36, 36, 36, 36 - lost, 36 - lost], [1, 2, 3, 4])
    (method,) = found["methods"]
    for fit in (found["cliff"], method["cliff_fit"]):
        assert fit["found"] == significant
        assert fit["removed_blocks"] == (3 if significant else None)
        assert fit["kind"] == ("cliff" if significant else None)
        assert fit["ci"] == ([3, 3] if significant else None) and fit["before"] == pytest.approx(1)
        assert fit["after"] == pytest.approx(1 - lost / 26)
    assert found["common_numbers"] == ([1, 2] if significant else [1, 2, 3, 4])
    lines = compare_lines(found)
    told = {
        True: "off a cliff at 3 removed blocks (95 % CI 3 to 3): 100.0 % on average before it, "
        "23.1 % from there on.",
        False: "has no significant fall",
    }[significant]
    best = "What the best method at each number retains"
    follows = f"What follows is of {'1, 2' if significant else '1 to 4'} removed."
    between = "falls " if significant else ""
    assert any(one.startswith(f"{best} {between}{told}") for one in lines)
    assert any(one.endswith(follows) for one in lines)
    assert any(one.startswith(f"What tail retains {between}{told}") for one in lines)
    older = dict(
        found,
        cliff={
            "removed_blocks": 3,
            "best_before": 1.0,
            "best": 0.2,
            "loss_ci": [0.6, 0.9],
            "significant": True,
        },
    )
    assert follows in compare_lines(older) and best not in " ".join(compare_lines(older))


def test_collapses_by_letters_are_told_apart():
    found = made([36, 36, 10, 10], [1, 2, 3], debiased=[36, 36, 35, 10])
    (method,) = found["methods"]
    assert [cell["collapse"] for cell in method["cells"]] == [None, "calibration", "knowledge"]
    assert method["cells"][1]["retained_debiased"] == pytest.approx(25 / 26)
    assert debiased_lines(found) == [
        "Collapsed in calibration alone, as without the label prior more is retained (at numbers "
        "of removed blocks): tail at 2.",
        "Collapsed in knowledge, without the label prior as well (at numbers of removed blocks): "
        "tail at 3.",
    ]
    ((_, row),) = debiased_table(found).rows
    assert [cell.long()[0] for _, cell in row] == ["tail", "100.0", "96.2", "0.0"]
    assert [cell.kind == "strong" for _, cell in row] == [False, False, True, False]
    without = made([36, 36, 10, 10], [1, 2, 3])  # texts, and lines of older versions
    assert debiased_lines(without) == [] and debiased_table(without) is None
    assert all("retained_debiased" not in cell for cell in without["methods"][0]["cells"])


def test_pairs_of_a_run_are_all_different_choices(everything):
    _, task = everything
    for number in task["numbers"]:
        groups = {}
        for one in task["methods"]:
            for cell in one["cells"]:
                if cell["removed_blocks"] == number:
                    model = json.dumps([cell["sets"], cell.get("merged")])
                    groups.setdefault(model, []).append(one["method"])
        expected = {(*map(tuple, pair),) for pair in combinations(groups.values(), 2)}
        got = {
            (tuple(p["first"]), tuple(p["second"]))
            for p in task["pairs"]
            if p["removed_blocks"] == number
        }
        assert got == expected
