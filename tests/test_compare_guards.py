"""Guards and the plain text of a comparison: against those of prune, and by hand."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from conftest import QUESTIONS, WORDS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.comparison import text as compare_text
from phaseprune.comparison.compare import compare
from phaseprune.decision.guards import drawn_figures, guard_figures, short_figures
from phaseprune.decision.intervals import resamples
from phaseprune.errors import UserError
from phaseprune.methods.plain_text import read_windows
from phaseprune.methods.rank import rank_blocks
from phaseprune.probes.guards import Guard, guard_model
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.report.compare import guarded_lines, guarded_tables, text_lines
from phaseprune.report.figures import guarded_figure
from phaseprune.report.page import write_report
from phaseprune.report.view import View
from phaseprune.runs.atomic import read_json_lines
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.text import read_text_file, text_windows
from test_compare import lasting, printed
from test_phasewise import Stopped

SMALL = Guard(windows=9, window_tokens=24, prompts=4, prompt_tokens=8, tokens=6)
OPTIONS = dict(remove=[1, 3], calibration=8, draws=2, seed=5)


@pytest.fixture
def task(tmp_path):
    rows = [
        dict(row, question=f"{row['question']} {WORDS.split()[number]}")
        for number in range(4)
        for row in QUESTIONS
    ]
    return load_task(str(write_jsonl(tmp_path / "questions.jsonl", rows)))


def cells(result, method, task=0):
    (found,) = [one for one in result["tasks"][task]["methods"] if one["method"] == method]
    return found["cells"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_cells_have_the_guards_of_prune(tiny, task, tmp_path, family):
    decoder = tiny[family]
    got = compare(
        decoder, [task], methods=["magnitude", "tail"], text="none", guard=SMALL, **OPTIONS
    )
    for name in ("magnitude", "tail"):
        pruning = prune(decoder, task, method=name, remove=3, calibration=8, seed=5, guard=SMALL)
        for cell in cells(got.result, name):
            step = pruning.steps[cell["removed_blocks"]]
            assert cell["sets"] == [sorted(pruning.removed[: step.step])]
            assert cell["guard"] == short_figures(step.guard)
        (entry,) = got.result["tasks"]
        assert entry["full"]["guard"] == short_figures(pruning.steps[0].guard)
    losses = {
        cell["guard"]["text_loss"]
        for name in ("magnitude", "tail")
        for cell in cells(got.result, name)
    }
    assert len(losses) >= 3  # else this compares nothing


@pytest.mark.slow
def test_guards_look_at_what_follows_the_text_chosen_by(tiny, task, tmp_path):
    decoder = tiny["llama"]
    text, _ = read_text_file()
    cut = text_windows(decoder, text, 256)[:18]
    path = tmp_path / "text.txt"
    path.write_text(decoder.tokenizer.decode(np.concatenate(cut)), encoding="utf-8")
    got = compare(decoder, [task], methods=["sleb"], text=path, guard=SMALL, **OPTIONS)
    pruning = prune(
        decoder, task, method="sleb", text=path, remove=3, calibration=8, seed=5, guard=SMALL
    )
    assert got.result["guard"]["guard_text_skipped_tokens"] == 16 * 256
    for cell in cells(got.result, "sleb"):
        assert cell["sets"] == [sorted(pruning.removed[: cell["removed_blocks"]])]
        assert cell["guard"] == short_figures(pruning.steps[cell["removed_blocks"]].guard)
    path.write_text(decoder.tokenizer.decode(np.concatenate(cut[:16])), encoding="utf-8")
    with pytest.raises(UserError, match="tokens behind the first 4,096"):
        compare(decoder, [task], methods=["sleb"], text=path, guard=SMALL, **OPTIONS)


@pytest.mark.slow
def test_what_is_drawn_is_a_mean_over_draws(tiny, task):
    got = compare(tiny["gemma2"], [task], methods=["random"], text="none", guard=SMALL, **OPTIONS)
    for cell in cells(got.result, "random"):
        alone = [
            guard_model(tiny["gemma2"], blocks, guard=SMALL, seed=5) for blocks in cell["sets"]
        ]
        for name, value in cell["guard"].items():
            if not name.endswith("_ci"):
                assert value == pytest.approx(np.mean([one["pruned"][name] for one in alone]))


def test_intervals_of_draws():
    rng = np.random.default_rng(1)
    full = guard_figures(rng.uniform(2, 3, 12), rng.integers(3, size=(5, 9)), None, 0)
    full["guessing"] = 5.0
    drawn = [
        guard_figures(rng.uniform(3, 6, 12) + shift, rng.integers(3, size=(5, 9)), full, 0)
        for shift in (0, 1, 4)
    ]
    found = drawn_figures(drawn, full, 0)
    assert set(found) == set(short_figures(full))
    losses = np.array([one["losses"] for one in drawn])
    chooser, values = np.random.default_rng([0, 1]), []
    weights = np.concatenate(list(resamples(12, 0)))
    chosen = chooser.multinomial(3, np.full(3, 1 / 3), size=2000)
    for one, of in zip(weights, chosen, strict=True):
        rises = [one @ row / (one @ np.array(full["losses"])) - 1 for row in losses]
        values.append(np.average(rises, weights=of))
    assert found["text_loss_rise_ci"] == pytest.approx(np.percentile(values, [2.5, 97.5]))
    single = drawn_figures(drawn[:1], full, 0)
    for name, value in short_figures(drawn[0]).items():
        assert single[name] == pytest.approx(value), name
    low, high = found["text_loss_rise_ci"]
    assert high - low > 1.5 * np.diff(drawn[0]["text_loss_rise_ci"])[0]  # draws differ too


@pytest.mark.slow
def test_guards_are_added_to_a_finished_run_and_shared_between_tasks(tiny, task, tmp_path):
    decoder, run = tiny["llama"], tmp_path / "run"
    rows = [
        dict(question=q.text, choices=list(q.choices), answer=q.answer)
        for q in task.questions[::-1]
    ]
    other = load_task(str(write_jsonl(tmp_path / "other.jsonl", rows)))
    names = ["magnitude", "tail", "random"]
    common = dict(methods=names, text="none", **OPTIONS)
    bare = compare(decoder, [task, other], out=run, **common)
    assert bare.result["guard"] is None and cells(bare.result, "tail")[0]["guard"] is None
    assert bare.result["tasks"][0]["full"]["guard"] is None
    labels = set()
    added = compare(
        decoder,
        [task, other],
        out=run,
        guard=SMALL,
        progress=lambda label, *_: labels.add(label),
        **common,
    )
    assert added.state == "resumed" and all(label.startswith("guards of") for label in labels)
    lines = [tuple(line["blocks"]) for line in read_json_lines(run / "guards.jsonl")]
    asked = {
        tuple(one)
        for entry in added.result["tasks"]
        for method in entry["methods"]
        for cell in method["cells"]
        for one in cell["sets"]
    }
    assert len(lines) == len(set(lines)) and set(lines) == {(), *asked} and lines[0] == ()
    whole = compare(decoder, [task, other], guard=SMALL, **common)
    assert lasting(added.result) == lasting(whole.result)
    assert json.loads((run / "compare.json").read_text()) == added.result
    again = compare(decoder, [task, other], out=run, **common)
    assert again.state == "finished" and again.result == added.result  # guards stay
    more = compare(decoder, [task, other], out=run, **common | {"methods": ["reverse"]})
    assert (0, 1, 2) not in lines  # a dash until asked for
    assert cells(more.result, "reverse")[1]["guard"] is None
    assert cells(more.result, "tail") == cells(added.result, "tail")
    write_report(run)
    with pytest.raises(UserError, match="of its guard, guard_windows was 9 and now is 10"):
        compare(
            decoder, [task, other], out=run, guard=Guard(windows=10, window_tokens=24), **common
        )
    assert RunDirectory(run).manifest["status"] == "finished"


@pytest.mark.slow
def test_a_killed_run_goes_on_guard_by_guard(tiny, task, tmp_path):
    decoder, run = tiny["gemma2"], tmp_path / "run"
    common = dict(methods=["magnitude", "tail"], text="none", guard=SMALL, **OPTIONS)
    whole = compare(decoder, [task], **common)

    def stop(label, done, total):
        if label.startswith("guards of 3 of") and "continuations" in label:
            raise Stopped

    with pytest.raises(Stopped):
        compare(decoder, [task], out=run, progress=stop, **common)
    assert len(read_json_lines(run / "guards.jsonl")) == 2
    labels = []
    resumed = compare(
        decoder, [task], out=run, progress=lambda label, *_: labels.append(label), **common
    )
    assert labels[0].startswith("guards of 1 of") and resumed.state == "resumed"
    assert lasting(resumed.result) == lasting(whole.result)


# The text that methods choose by.


@pytest.mark.slow
def test_a_bundled_text_is_the_default(tiny, task, tmp_path, monkeypatch):
    decoder, run = tiny["llama"], tmp_path / "run"
    monkeypatch.setattr(compare_text, "guessing_loss", lambda decoder: 1e9)
    common = dict(methods=["ppl", "tail"], **OPTIONS)
    got = compare(decoder, [task], out=run, guard=SMALL, **common)
    order = rank_blocks(decoder, read_windows(decoder, None), method="ppl", remove=3).order
    assert [one["order"] for one in got.result["tasks"][0]["methods"][0]["orders"]] == [list(order)]
    assert got.result["text"]["name"] == got.result["guard"]["name"] == "the bundled text"
    assert got.result["tasks"][0]["methods"][0]["chosen_on"] == "the bundled text"
    taken = got.result["text"]["text_windows"] * got.result["text"]["text_window_tokens"]
    assert got.result["guard"]["guard_text_skipped_tokens"] == taken
    assert "chose by the bundled text" in text_lines(got.result)[0]
    assert f"behind its first {taken:,} tokens" in text_lines(got.result)[1]
    assert compare(decoder, [task], out=run, **common).state == "finished"
    with pytest.raises(UserError, match="its text was the bundled text .* and now is .*text.txt"):
        path = tmp_path / "text.txt"
        path.write_text(WORDS * 40)
        compare(decoder, [task], out=run, text=path, **common)


def test_half_of_a_short_text_is_left_to_guards(tiny, monkeypatch):
    decoder = tiny["gpt2"]
    length = decoder.max_length
    text, fingerprint = read_text_file()
    some = decoder.tokenizer.decode(np.concatenate(text_windows(decoder, text, length)[:7]))
    monkeypatch.setattr(
        "phaseprune.methods.plain_text.read_text_file", lambda path: (some, fingerprint)
    )
    assert len(read_windows(decoder, None).windows) == 3
    assert len(read_windows(decoder, "a file").windows) == 7


@pytest.mark.slow
def test_the_bundled_text_gives_way(tiny, task, tmp_path):
    """To what a model does not know, and to a text that was given before."""
    decoder, run, labels = tiny["llama"], tmp_path / "run", []
    common = dict(methods=["ppl", "tail"], out=run, **OPTIONS)
    got = compare(decoder, [task], progress=lambda label, *_: labels.append(label), **common)
    (left_out,) = got.result["tasks"][0]["left_out"]
    assert left_out["method"] == "ppl" and got.result["text"] is None
    assert "is no better than guessing among all tokens (5.768)" in left_out["reason"]
    known = RunDirectory(run).manifest["bundled_text"]["text_loss"]
    assert f"{known:.3f} nats" in left_out["reason"] and known > np.log(320)
    assert any("the bundled text" in label for label in labels)
    again = compare(decoder, [task], progress=lambda label, *_: labels.append("again"), **common)
    assert again.state == "finished" and "again" not in labels  # measured once
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 40)
    given = compare(decoder, [task], text=path, **common)
    assert not given.result["tasks"][0]["left_out"] and given.result["text"]["name"] == str(path)
    more = compare(decoder, [task], **common | {"methods": ["ppl_plus", "sleb"]})
    reasons = {one["method"]: one["reason"] for one in more.result["tasks"][0]["left_out"]}
    assert "this run's is" in reasons["sleb"] and "text.txt" in reasons["sleb"]
    assert cells(more.result, "ppl") == cells(given.result, "ppl")


def test_without_text(tiny, task):
    got = compare(tiny["llama"], [task], methods=["sleb", "tail"], text="none", **OPTIONS)
    (left_out,) = got.result["tasks"][0]["left_out"]
    assert "--text none says to do without" in left_out["reason"]
    assert text_lines(got.result) == []


# Tables, words, figures, the page, the command.


@pytest.fixture
def guarded(tiny, task, tmp_path):
    run = tmp_path / "guarded"
    got = compare(
        tiny["gemma2"],
        [task],
        methods=["magnitude", "tail", "reverse", "random"],
        text="none",
        guard=SMALL,
        out=run,
        **OPTIONS,
    )
    return run, got.result["tasks"][0]


def known(entry):
    """The same as if the full model knew the text."""
    entry = json.loads(json.dumps(entry))
    entry["full"]["guard"]["guessing"] = 1e9
    return entry


def test_tables_and_words(guarded):
    run, entry = guarded
    assert list(View(guarded_tables(entry)).terminal()) == []
    (line,) = guarded_lines(entry)
    assert "tells nothing" in line
    entry = known(entry)
    text, _ = printed(View(guarded_tables(entry)).terminal(), 200)
    assert max(map(len, text.splitlines())) <= 80
    for one in entry["methods"]:
        (row,) = [line.split() for line in text.splitlines() if line.startswith(one["method"])]
        rises = [100 * cell["guard"]["text_loss_rise"] for cell in one["cells"]]
        assert [float(cell) for cell in row[1:]] == pytest.approx(rises, abs=0.5)
    number = entry["common_numbers"][-1] if entry["common_numbers"] else 1
    at = {
        one["method"]: cell["guard"]["text_loss"]
        for one in entry["methods"]
        for cell in one["cells"]
        if cell["removed_blocks"] == number
    }
    assert f"lowest with {min(at, key=at.get)} (" in guarded_lines(entry)[1]
    entry["methods"][0]["cells"][0]["guard"] = None
    text, _ = printed(View(guarded_tables(entry)).terminal(), 200)
    assert next(row for row in text.splitlines() if row.startswith("magn")).split()[1] == "–"
    entry["methods"][0]["cells"][1]["guard"]["text_loss_rise"] = 12.5
    assert ">999" in printed(View(guarded_tables(entry)).terminal(), 200)[0]


@pytest.mark.slow
def test_the_figure_and_the_page(guarded):
    run, entry = guarded
    figure = guarded_figure(entry)
    assert isinstance(figure, Figure) and len(figure.axes) == 3
    for axes, name in zip(figure.axes, ("text_loss_rise", "agreement", "repetition"), strict=True):
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
        for one in entry["methods"]:
            assert drawn[one["method"]] == [cell["guard"][name] for cell in one["cells"]]
    assert len(figure.legends[0].get_texts()) == len(entry["methods"])
    page = write_report(run).read_text()
    assert 'id="questions-guards"' in page and "Guards look at the bundled text:" in page
    assert "greedy tokens equal to the full model" in page and "tells nothing of it" in page


@pytest.mark.slow
def test_the_command(capsys, tmp_path):
    words = [
        "compare",
        "demo",
        "--methods",
        "tail,sleb",
        "--remove",
        "2",
        "--limit",
        "40",
        "--calibration",
        "12",
        "--guard",
        "--out",
        str(tmp_path / "run"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert not ended.value.code
    assert "sleb is left out: it needs plain text" in " ".join(err.split())
    out = " ".join(out.split())
    assert "Guards look at the bundled text, behind its first 5,632 tokens" not in err
    assert "Guards look at the bundled text, behind its first 5,632 tokens" in out
    assert "tells nothing of it" in out
