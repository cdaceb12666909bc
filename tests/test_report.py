"""The report: figures, terminal tables and the page, from synthetic but plausible runs."""

import json
import math
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from rich.console import Console

from phaseprune.errors import UserError
from phaseprune.report import figures, style, words
from phaseprune.report.html import write_report
from phaseprune.report.svg import inline_svg
from phaseprune.report.tables import margin_bar, phases_line, steps_table, trace_table

HOSTILE = (
    '<script>alert(1)</script>"><img src=http://evil.example/x onerror=a()> {{7*7}} $\\frac{$ [b]'
)


def wilson(share, n):
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [middle - half, middle + half]


def make_trace(
    blocks=14, at=7, labels=("A", "B", "C", "D"), questions=500, found=True, seed=0, **more
):
    rng = np.random.default_rng(seed)
    k = len(labels)
    chance = more.pop("chance", 1 / k)
    readouts = np.arange(blocks + 1)
    rise = 1 / (1 + np.exp(-(readouts - at + 0.5) * 2.2)) if found else np.zeros(blocks + 1)
    margin = -0.3 + 1.02 * rise + rng.normal(0, 0.02, blocks + 1)
    accuracy = np.clip(chance + (0.9 - chance) * rise + rng.normal(0, 0.008, blocks + 1), 0, 1)
    gold = np.array([1.0] * k) + rng.normal(0, 0.04, k)
    gold /= gold.sum()
    frequency = []
    for readout in readouts:
        one = np.eye(k)[(readout // 3) % k] * 0.97 + 0.03 / k
        frequency.append((rise[readout] * gold + (1 - rise[readout]) * one).tolist())
    bounds = [wilson(float(a), questions) for a in accuracy]
    transition = {
        "found": True,
        "readout": at,
        "ci": [at - 1, at + 1],
        "silent_blocks": list(range(at)),
        "decisive_blocks": list(range(at, blocks)),
        "silent_level": float(margin[:at].mean()),
        "decisive_level": float(margin[at:].mean()),
        "sharpness": 0.55,
        "r2": 0.93,
        "p_value": 0.0005,
        "reason": None,
    }
    if not found:
        transition = dict.fromkeys(transition) | {
            "found": False,
            "silent_blocks": [],
            "decisive_blocks": [],
            "reason": "the final accuracy 0.262 on 500 questions is not above chance 0.250 "
            "(exact binomial test, p = 0.28)",
        }
    return {
        "model": "demo",
        "task": "demo",
        "scoring": "letter",
        "questions": questions,
        "blocks": blocks,
        "readouts": readouts.tolist(),
        "decision_margin": {
            "mean": margin.tolist(),
            "ci_low": (margin - 0.04).tolist(),
            "ci_high": (margin + 0.04).tolist(),
        },
        "accuracy": {
            "mean": accuracy.tolist(),
            "ci_low": [b[0] for b in bounds],
            "ci_high": [b[1] for b in bounds],
        },
        "option_labels": list(labels),
        "option_frequency": frequency,
        "gold_frequency": gold.tolist(),
        "chance": chance,
        "transition": transition,
    } | more


def make_steps(trace, count=None, seed=0):
    rng = random.Random(seed)
    blocks, transition = trace["blocks"], trace["transition"]
    late, early = list(transition["decisive_blocks"]), list(transition["silent_blocks"])
    if not transition["found"]:
        late = list(range(blocks))
    rng.shuffle(late)
    rng.shuffle(early)
    order = (late + early)[: blocks - 2 if count is None else count]
    full, chance = trace["accuracy"]["mean"][-1], trace["chance"]
    margin = np.array(trace["decision_margin"]["mean"])
    removed, steps, hit = [], [], 0
    for number, block in enumerate([None, *order]):
        if block is not None:
            removed.append(block)
            hit += block in early
        keep = max(1 - 0.012 * number, 0) * (1, 0.62, 0.3, 0.06, 0)[min(hit, 4)]
        accuracy = chance + (full - chance) * keep
        row = (margin[0] + (margin - margin[0]) * keep).tolist()
        for readout in range(blocks):
            if readout in removed:
                row[readout + 1] = row[readout]
        retained = (accuracy - chance) / (full - chance)
        ci = wilson(accuracy, trace["questions"])
        steps.append(
            {
                "step": number,
                "removed": block,
                "kept": [b for b in range(blocks) if b not in removed],
                "objective": row[-1] + 0.01,
                "calibration": {
                    "accuracy": min(accuracy + 0.02, 1),
                    "decision_margin": row[-1] + 0.02,
                },
                "evaluation": {
                    "accuracy": accuracy,
                    "ci": ci,
                    "decision_margin": row[-1],
                    "decision_margin_ci": [row[-1] - 0.04, row[-1] + 0.04],
                    "correct": "0110",
                },
                "retained": retained,
                "retained_ci": [retained - 0.05, retained + 0.05],
                "collapsed": retained + 0.05 < 0.25,
                "phase": None
                if block is None or not transition["found"]
                else "silent"
                if block in early
                else "decisive",
                "decision_margin_by_readout": row,
                "option_frequency_by_readout": trace["option_frequency"],
                "block_passes": 0 if block is None else 12345 // number,
                "seconds": 1.25 * number,
            }
        )
    return steps


def make_result(trace, steps, chosen):
    losses = [a["retained"] - b["retained"] for a, b in zip(steps, steps[1:], strict=False)]
    at = int(np.argmax(losses)) + 1
    collapsed = [s["step"] for s in steps if s["collapsed"]]
    return {
        "chosen_step": chosen,
        "removed": [s["removed"] for s in steps[1 : chosen + 1]],
        "kept": steps[chosen]["kept"],
        "full": {k: steps[0]["evaluation"][k] for k in ("accuracy", "ci")},
        "pruned": {k: steps[chosen]["evaluation"][k] for k in ("accuracy", "ci")},
        "retained": steps[chosen]["retained"],
        "retained_ci": steps[chosen]["retained_ci"],
        "collapsed": steps[chosen]["collapsed"],
        "collapsed_at_step": collapsed[0] if collapsed else None,
        "cliff": {
            "step": at,
            "removed": steps[at]["removed"],
            "phase": steps[at]["phase"],
            "loss": losses[at - 1],
            "loss_ci": [losses[at - 1] - 0.07, losses[at - 1] + 0.06],
            "significant": True,
        },
        "stopped_by": "collapse",
        "export": {"path": "run/model", "max_abs_logit_difference": 0.0},
    }


def make_manifest(trace, result=None, status="finished", **more):
    return {
        "command": "prune" if result or status != "finished" else "trace",
        "arguments": "phaseprune prune demo --task demo --seed 0 --out run",
        "options": {"remove": 6, "search": "exact", "dtype": "float32"},
        "model": {
            "name": trace["model"],
            "family": "llama",
            "blocks": trace["blocks"],
            "fingerprint": "3f9a" * 16,
        },
        "task": {"name": trace["task"], "scoring": trace["scoring"], "fingerprint": "77c1" * 16},
        "prompt_format": "mmlu letters",
        "calibration_questions": 128,
        "evaluation_questions": trace["questions"],
        "versions": {"phaseprune": "0.1.0", "torch": "2.8.0", "transformers": "5.0.1"},
        "seed": 17,
        "timings": {"search": 61.3, "evaluation": 4.21},
        "status": status,
        "result": result,
    } | more


def write_run(path, trace=None, steps=(), manifest=None):
    path.mkdir(parents=True, exist_ok=True)
    if trace is not None:
        (path / "trace.json").write_text(json.dumps(trace))
    if steps:
        (path / "steps.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps))
    if manifest is not None:
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def four_options(**more):
    trace = make_trace(14, 7, **more)
    steps = make_steps(trace)
    return trace, steps, make_result(trace, steps, chosen=6)


def two_options():
    trace = make_trace(12, 12, labels=("A", "B"), questions=96)
    steps = make_steps(trace)
    return trace, steps, make_result(trace, steps, chosen=0)


def five_options_unequal():
    trace = make_trace(40, 20, labels=tuple("ABCDE"), chance=0.23, questions=300)
    steps = make_steps(trace)
    return trace, steps, make_result(trace, steps, chosen=12)


def no_transition():
    trace = make_trace(12, found=False)
    steps = make_steps(trace, count=4)
    return (
        trace,
        steps,
        make_result(trace, steps, chosen=2)
        | {
            "retained": None,
            "retained_ci": None,
            "cliff": None,
            "export": None,
        },
    )


RUNS = [four_options, two_options, five_options_unequal, no_transition]


@pytest.fixture(params=RUNS, ids=lambda make: make.__name__)
def run(request):
    return request.param()


class Page(HTMLParser):
    """Checks the nesting of elements and collects what the tests ask for."""

    VOID = {"meta", "br", "hr", "img", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)


def page_of(path):
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def assert_self_contained(page, text):
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{tag} has {name}"
        if name in {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}:
            assert value.startswith(("#", "data:image/png;base64,")), f"{tag} {name}={value}"
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.startswith("#")
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    references = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert set(references) <= set(page.ids)


# ---------------------------------------------------------------- the page


def test_page_holds_the_run_and_loads_nothing(tmp_path, run):
    trace, steps, result = run
    path = write_report(write_run(tmp_path / "run", trace, steps, make_manifest(trace, result)))
    assert path == tmp_path / "run" / "report.html"
    page, text = page_of(path)
    assert_self_contained(page, text)
    assert page.tags.count("svg") == 5
    for step in steps:
        low, high = step["evaluation"]["ci"]
        accuracy = step["evaluation"]["accuracy"]
        assert f"{100 * accuracy:.1f} {100 * low:.1f} to {100 * high:.1f}" in page.text
        assert f"{100 * step['calibration']['accuracy']:.1f}" in page.text
    full, pruned = result["full"], result["pruned"]
    assert f"full model {100 * full['accuracy']:.1f} % (95 % CI" in page.text
    assert f"pruned model {100 * pruned['accuracy']:.1f} % (95 % CI" in page.text
    assert f"on {trace['questions']} evaluation questions" in page.text
    assert words.phases_line(trace) in page.text
    assert page.tags.count("tr") == len(steps) + 1
    for word in (
        "Readout",
        "Decision Margin (DM)",
        "Option Frequency (OF)",
        "Transition",
        "Silent Phase",
        "Decisive Phase",
        "Retained",
        "Collapse, cliff",
    ):
        assert word in page.text
    for told in (
        "3f9a3f9a3f9a…",
        "mmlu letters",
        "torch 2.8.0",
        "Seed 17",
        "phaseprune prune demo --task demo --seed 0 --out run",
    ):
        assert told in page.text
    assert "3f9a" * 16 not in text


def test_page_says_where_the_model_decides_and_falls(tmp_path):
    trace, steps, result = four_options()
    page, _ = page_of(write_report(write_run(tmp_path, trace, steps, make_manifest(trace, result))))
    assert "Silent blocks 0-6, Decisive blocks 7-13." in page.text
    cliff = result["cliff"]
    assert cliff["phase"] == "silent"
    assert f"step {cliff['step']}, the removal of block {cliff['removed']} (Silent)" in page.text
    assert f"{100 * cliff['loss']:.1f} points of retained" in page.text
    assert "6 of 14 blocks were removed (6 Decisive): blocks " in page.text
    assert "has not collapsed; the search goes on and collapses at step" in page.text
    # the figures' own words are texts of the page
    for word in (
        "Silent Phase, blocks 0-6",
        "Decisive Phase, blocks 7-13",
        "gold",
        "transition at readout 7",
        "chosen: 6 removed",
        f"cliff: block {cliff['removed']}",
        "full model",
        "chance 25.0 %",
    ):
        assert word in page.text, word


def test_page_without_a_transition_says_why(tmp_path):
    trace, steps, result = no_transition()
    page, _ = page_of(write_report(write_run(tmp_path, trace, steps, make_manifest(trace, result))))
    assert page.text.count("is not above chance 0.250") == 2
    assert "Silent Phase, blocks" not in page.text
    assert "Retained is not defined" in page.text


def test_trace_alone(tmp_path):
    trace = make_trace(40, 20)
    page, text = page_of(write_report(write_run(tmp_path, trace)))
    assert_self_contained(page, text)
    assert page.tags.count("svg") == 3
    assert "40 blocks traced on 500 questions" in page.text
    assert "table" not in page.tags


def test_unfinished_run_shows_what_there_is(tmp_path):
    trace, steps, _ = four_options()
    manifest = make_manifest(trace, status="running")
    run = write_run(tmp_path, trace, steps[:3], manifest)
    line = json.dumps(steps[3])
    with open(run / "steps.jsonl", "a") as file:
        file.write(line[: len(line) // 2])
    before = (run / "steps.jsonl").read_bytes()
    page, text = page_of(write_report(run))
    assert_self_contained(page, text)
    assert "This run is not finished. It has 3 steps so far." in page.text
    assert "2 blocks removed so far" in page.text
    assert "chosen:" not in page.text
    assert (run / "steps.jsonl").read_bytes() == before, "a report changes nothing it reads"


def test_run_that_has_only_begun(tmp_path):
    page, _ = page_of(
        write_report(write_run(tmp_path, None, (), make_manifest(make_trace(), status="running")))
    )
    assert "There is nothing to show yet" in page.text
    assert "svg" not in page.tags


def test_steps_without_a_trace(tmp_path):
    trace, steps, result = four_options()
    page, text = page_of(
        write_report(write_run(tmp_path, None, steps, make_manifest(trace, result)))
    )
    assert_self_contained(page, text)
    assert page.tags.count("svg") == 2


def test_hostile_names_are_only_text(tmp_path):
    trace, steps, result = four_options(
        model=HOSTILE, task=HOSTILE + "\ud800", labels=(HOSTILE, "B", "$x_{$", "</svg>")
    )
    manifest = make_manifest(
        trace, result, arguments=HOSTILE, prompt_format=HOSTILE, options={HOSTILE: HOSTILE}
    )
    page, text = page_of(write_report(write_run(tmp_path, trace, steps, manifest)))
    assert_self_contained(page, text)
    assert "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "{{7*7}}" in page.text
    assert "$x_{$" in page.text
    trace = make_trace(12, found=False)
    trace["transition"]["reason"] = HOSTILE
    page, text = page_of(write_report(write_run(tmp_path / "other", trace)))
    assert_self_contained(page, text)
    assert "img" not in page.tags


def test_same_run_same_page(tmp_path):
    trace, steps, result = four_options()
    run = write_run(tmp_path, trace, steps, make_manifest(trace, result))
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.iterdir()) == [
        "manifest.json",
        "report.html",
        "steps.jsonl",
        "trace.json",
    ]


def spoil(run, name, text):
    (run / name).write_text(text)


BAD_RUNS = {
    "not JSON": (lambda run: spoil(run, "trace.json", "{"), "trace.json is not JSON"),
    "a list": (lambda run: spoil(run, "manifest.json", "[]"), "manifest.json is not a JSON object"),
    "keys gone": (lambda run: spoil(run, "trace.json", '{"model": "m"}'), "lacks task, blocks"),
    "not text": (lambda run: (run / "trace.json").write_bytes(b"\xff\xfe\x00"), "trace.json"),
    "a bad line": (lambda run: spoil(run, "steps.jsonl", "{}\n"), "steps.jsonl line 1 lacks step"),
    "a folder": (
        lambda run: ((run / "manifest.json").unlink(), (run / "manifest.json").mkdir()),
        "manifest.json",
    ),
    "empty calibration": (
        lambda run: spoil(
            run, "steps.jsonl",
            json.dumps(make_steps(make_trace())[0] | {"calibration": {}}) + "\n",
        ),
        "do not fit together",
    ),
    "empty evaluation": (
        lambda run: spoil(
            run, "steps.jsonl",
            json.dumps(make_steps(make_trace())[0] | {"evaluation": {}}) + "\n",
        ),
        "do not fit together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_RUNS)
def test_bad_files_are_named(tmp_path, name):
    trace, steps, result = four_options()
    run = write_run(tmp_path / "run", trace, steps, make_manifest(trace, result))
    (run / "report.html").write_text("the old report")
    damage, message = BAD_RUNS[name]
    damage(run)
    with pytest.raises(UserError) as caught:
        write_report(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (run / "report.html").read_text() == "the old report"


def test_lengths_that_differ_are_named(tmp_path):
    trace = make_trace()
    trace["accuracy"]["ci_low"].pop()
    with pytest.raises(UserError, match="15 values of accuracy.ci_low"):
        write_report(write_run(tmp_path, trace))


def test_no_run_directory(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_report(tmp_path / "file")


# ---------------------------------------------------------------- the figures


def line(axes, label):
    found = [one for one in axes.lines if one.get_label() == label]
    assert len(found) == 1, f"{len(found)} lines named {label!r}"
    return found[0]


def texts(figure):
    axes = figure.axes[0]
    return [text.get_text() for text in [*axes.texts, *axes.get_yticklabels()]]


def spans(axes):
    return {
        patch.get_label(): (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if not patch.get_label().startswith("_")
    }


def band(axes):
    (area,) = [one for one in axes.collections if one.get_label() == "95 % interval"]
    return area.get_paths()[0].vertices


def test_decision_margin_figure_holds_the_trace():
    trace = make_trace(14, 7)
    axes = figures.decision_margin_figure(trace).axes[0]
    margin = line(axes, "Decision Margin")
    assert list(margin.get_xdata()) == list(range(15))
    assert list(margin.get_ydata()) == trace["decision_margin"]["mean"]
    corners = {(round(x, 9), round(y, 9)) for x, y in band(axes)}
    for bound in ("ci_low", "ci_high"):
        for at, value in enumerate(trace["decision_margin"][bound]):
            assert (at, round(value, 9)) in corners
    assert set(line(axes, "transition").get_xdata()) == {7}
    assert set(line(axes, "zero").get_ydata()) == {0}
    assert spans(axes)["Silent Phase"] == pytest.approx((-0.5, 7))
    assert spans(axes)["Decisive Phase"] == pytest.approx((7, 14.5))
    assert spans(axes)["transition CI"] == pytest.approx((6, 8))
    silent, decisive = (line(axes, f"{name} level") for name in ("Silent", "Decisive"))
    assert set(silent.get_ydata()) == {trace["transition"]["silent_level"]}
    assert silent.get_color() == style.SILENT
    assert decisive.get_color() == style.DECISIVE


def test_decision_margin_figure_without_transition_notes_the_reason():
    figure = figures.decision_margin_figure(make_trace(12, found=False))
    assert "not above chance" in " ".join(" ".join(texts(figure)).split())
    assert not {"Silent Phase", "Decisive Phase"} & set(spans(figure.axes[0]))


def test_transition_at_the_last_readout_has_no_decisive_block():
    figure = figures.decision_margin_figure(make_trace(12, 12))
    assert "Decisive Phase, no block" in texts(figure)
    assert phases_line(make_trace(12, 12)).endswith("Silent blocks 0-11, no Decisive block.")


@pytest.mark.parametrize("labels", [("A", "B"), tuple("ABCDE"), tuple("ABCDEFGHIJKLMNOP")])
def test_option_frequency_figure_holds_the_shares(labels):
    trace = make_trace(12, 5, labels=labels)
    axes = figures.option_frequency_figure(trace).axes[0]
    floor = np.zeros(14)
    for option in range(len(labels)):
        (bars,) = [group for group in axes.containers if group.get_label() == f"option {option}"]
        heights = [bar.get_height() for bar in bars]
        told = [row[option] for row in trace["option_frequency"]] + [
            trace["gold_frequency"][option]
        ]
        assert heights == pytest.approx(told)
        assert [bar.get_y() for bar in bars] == pytest.approx(floor)
        floor += heights
        assert bars[13].get_x() > bars[12].get_x() + 1, "the gold bar stands apart"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(labels)[::-1]
    assert axes.get_xticklabels()[-1].get_text() == "gold"
    colours = style.option_colours(len(labels))
    assert len(set(colours)) == len(labels)
    assert not {style.SILENT, style.DECISIVE} & set(colours)


def test_accuracy_figure_holds_accuracy_and_chance():
    trace = make_trace(40, 20, chance=0.23)
    axes = figures.accuracy_by_readout_figure(trace).axes[0]
    assert list(line(axes, "accuracy").get_ydata()) == trace["accuracy"]["mean"]
    assert set(line(axes, "chance").get_ydata()) == {0.23}
    assert band(axes)[:, 1].min() == pytest.approx(min(trace["accuracy"]["ci_low"]))


@pytest.mark.parametrize("make", [four_options, five_options_unequal])
def test_pruning_figure_holds_the_steps(make):
    trace, steps, result = make()
    figure = figures.pruning_figure(steps, result, trace["chance"])
    axes = figure.axes[0]
    accuracy = [step["evaluation"]["accuracy"] for step in steps]
    assert list(line(axes, "evaluation accuracy").get_ydata()) == accuracy
    assert list(line(axes, "evaluation accuracy").get_xdata()) == list(range(len(steps)))
    assert set(line(axes, "chance").get_ydata()) == {trace["chance"]}
    assert set(line(axes, "full model").get_ydata()) == {accuracy[0]}
    assert set(line(axes, "chosen step").get_xdata()) == {result["chosen_step"]}
    at = result["cliff"]["step"]
    assert spans(axes)["cliff"] == pytest.approx((at - 1, at))
    for phase, name, colour, marker in (
        ("silent", "Silent", style.SILENT, "s"),
        ("decisive", "Decisive", style.DECISIVE, "o"),
    ):
        points = line(axes, f"removed: {name} block")
        told = [step["step"] for step in steps if step["phase"] == phase]
        assert list(points.get_xdata()) == told
        assert list(points.get_ydata()) == [accuracy[step] for step in told]
        assert (points.get_color(), points.get_marker()) == (colour, marker)
    labelled = {note.xy: note.get_text() for note in axes.texts if hasattr(note, "xy")}
    for step in steps[1:]:
        assert labelled[step["step"], accuracy[step["step"]]] == str(step["removed"])


@pytest.mark.parametrize("chance", [0.1, 0.89, 0.91])
def test_names_of_close_levels_do_not_meet(chance):
    _, steps, result = four_options()
    steps[0]["evaluation"]["accuracy"] = 0.9
    figure = figures.pruning_figure(steps, result, chance)
    figure.draw_without_rendering()
    full, guess = (
        next(text for text in figure.axes[0].texts if text.get_text().startswith(name))
        for name in ("full model", "chance")
    )
    assert not full.get_window_extent().overlaps(guess.get_window_extent())


def test_pruning_figure_finds_chance_in_what_is_retained():
    trace, steps, result = four_options()
    axes = figures.pruning_figure(steps, result).axes[0]
    assert line(axes, "chance").get_ydata()[0] == pytest.approx(trace["chance"])
    axes = figures.pruning_figure(steps[:1], None).axes[0]
    assert not [one for one in axes.lines if one.get_label() in {"chance", "chosen step"}]


@pytest.mark.parametrize("make", [four_options, five_options_unequal, no_transition])
def test_heatmap_holds_the_margins_and_greys_removed_blocks(make):
    trace, steps, _ = make()
    figure = figures.margin_heatmap_figure(steps, trace)
    axes = figure.axes[0]
    mesh, strokes = axes.collections[:2]
    told = np.array([step["decision_margin_by_readout"] for step in steps])
    shown = mesh.get_array().reshape(told.shape)
    removed = np.zeros(told.shape, dtype=bool)
    for row in range(1, len(steps)):
        removed[row] = removed[row - 1]
        removed[row, steps[row]["removed"] + 1] = True
    assert (np.ma.getmaskarray(shown) == removed).all()
    assert shown.compressed() == pytest.approx(told[~removed])
    assert len(strokes.get_segments()) == removed.sum()
    low, high = mesh.get_clim()
    assert low == -high
    assert high >= np.abs(told).max()
    lines = [one.get_xdata()[0] for one in axes.lines if one.get_label() == "transition"]
    assert lines == ([trace["transition"]["readout"] - 0.5] if trace["transition"]["found"] else [])
    assert "full" in texts(figure)


def test_every_size_draws_without_a_warning(recwarn):
    for blocks, at, labels in ((12, 1, "AB"), (80, 46, "ABCDE"), (80, 80, "ABCDEFGHIJKLMNOP")):
        trace = make_trace(blocks, at, labels=tuple(labels))
        steps = make_steps(trace)
        result = make_result(trace, steps, chosen=blocks // 2)
        for number, figure in enumerate(
            (
                figures.decision_margin_figure(trace),
                figures.option_frequency_figure(trace),
                figures.accuracy_by_readout_figure(trace),
                figures.pruning_figure(steps, result),
                figures.margin_heatmap_figure(steps, trace),
            )
        ):
            assert inline_svg(figure, f"f{number}", "a figure").startswith("<svg")
    assert [str(one.message) for one in recwarn.list] == []


def test_drawing_leaves_no_global_trace():
    before = dict(matplotlib.rcParams)
    inline_svg(figures.decision_margin_figure(make_trace()), "margin", 'a "quoted" <figure>')
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, phaseprune.report.html, phaseprune.report.tables\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_svg_keeps_texts_and_needs_no_outside():
    markup = inline_svg(figures.decision_margin_figure(make_trace()), "margin", 'a "b" <c>')
    assert "http" not in markup
    assert ">Decision Margin by readout</text>" in markup
    assert 'aria-label="a &quot;b&quot; &lt;c&gt;"' in markup
    assert 'viewBox="' in markup


# ---------------------------------------------------------------- the terminal


def printed(table, width):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [row.rstrip() for row in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_into_80_columns(run, width):
    trace, steps, result = run
    for rows in (printed(trace_table(trace), width), printed(steps_table(steps, result), width)):
        assert max(len(row) for row in rows) <= 80
        assert not any("…" in row for row in rows)
    starts = [row.split()[0] for row in printed(trace_table(trace), width) if row[:4].strip()]
    assert [start for start in starts if start.isdigit()] == [str(at) for at in trace["readouts"]]
    assert "gold" in starts


@pytest.mark.parametrize("labels", ["AB", "ABC", "ABCD", "ABCDE", "ABCDEFGH", "ABCDEFGHIJKLMNOP"])
def test_extreme_values_fit_into_80_columns(labels):
    trace, steps, result = four_options(labels=tuple(label * 9 for label in labels))
    for name in ("mean", "ci_low", "ci_high"):
        trace["decision_margin"][name] = [-1.0] * 8 + [1.0] * 7
        trace["accuracy"][name] = [0.0] * 8 + [1.0] * 7
    trace["option_frequency"] = [[1.0] + [0.0] * (len(labels) - 1)] * 15
    for step in steps:
        step |= {"retained": -1.234, "retained_ci": [-2.345, 1.234], "collapsed": True}
        step["evaluation"] |= {"accuracy": 1.0, "ci": [0.9991, 1.0], "decision_margin": -1.0}
    result["cliff"]["step"] = 6
    for table in (trace_table(trace), steps_table(steps, result)):
        rows = printed(table, 200)
        assert max(len(row) for row in rows) <= 80
        assert rows == printed(table, 80)


def test_trace_table_shows_the_transition_without_colour():
    trace = make_trace(14, 7)
    rows = printed(trace_table(trace), 80)
    at = next(number for number, row in enumerate(rows) if row.startswith("   6 "))
    six, rule, seven = rows[at : at + 3]
    assert six.endswith("Silent")
    assert set(rule.strip()) == {"─"}
    assert seven.startswith("   7 ")
    assert seven.endswith("Decisive ◀")
    margin = trace["decision_margin"]
    assert (
        f"{margin['mean'][7]:+.2f} [{margin['ci_low'][7]:+.2f}, {margin['ci_high'][7]:+.2f}]"
        in seven
    )
    assert f" {100 * trace['accuracy']['mean'][7]:.0f} [" in seven
    assert not any("Silent" in row for row in printed(trace_table(make_trace(found=False)), 80))


def test_steps_table_marks_chosen_cliff_and_collapse():
    _, steps, result = four_options()
    rows = {
        row.split()[0]: row for row in printed(steps_table(steps, result), 80) if row[:4].strip()
    }
    for step in steps:
        row = rows[str(step["step"])]
        assert ("chosen" in row) == (step["step"] == result["chosen_step"])
        assert ("cliff" in row) == (step["step"] == result["cliff"]["step"])
        assert ("collapsed" in row) == step["collapsed"]
        name = "full" if step["removed"] is None else f"{step['removed']} {step['phase'].title()}"
        assert name in row
    unfinished = printed(steps_table(steps), 80)
    assert not any("chosen" in row or "cliff" in row for row in unfinished)


def test_tables_show_hostile_names_as_they_are():
    trace = make_trace(model="[bold red]x[/]", task="[/]", labels=("[b]", "[/]"))
    rows = printed(trace_table(trace), 80)
    assert rows[0].startswith("[bold red]x[/] on [/]")
    assert any("[b]" in row for row in rows)
    rows = printed(trace_table(make_trace(12, 5, labels=("[b]", "[/]", "c", "d", "e"))), 80)
    assert any("[b] 9" in row for row in rows)


@pytest.mark.parametrize(
    ("value", "bar"),
    [(-1, "█████│     "), (-0.5, "  ▐██│     "), (-0.02, "     │     "), (0, "     │     "),
     (1, "     │█████"),     (0.5, "     │██▌  "), (0.2, "     │█    "), (2.0, "     │█████")],
)  # fmt: skip
def test_margin_bar(value, bar):
    assert margin_bar(value) == bar


# ---------------------------------------------------------------- words


def test_numbers_in_words():
    assert words.percent(0.8614) == "86.1"
    assert words.percent(-0.0001) == "0.0"
    assert words.percent(None) == words.percent(float("nan")) == "–"
    assert words.signed(-0.256) == "-0.26"
    assert words.signed(0.0) == "0.00"
    assert words.percent_with_interval(0.5, [0.4, 0.6]) == "50.0 % (95 % CI 40.0 to 60.0)"
    assert words.blocks_in_words([0, 1, 2]) == "blocks 0-2"
    assert words.blocks_in_words([2, 1, 0]) == "blocks 2, 1, 0"
    assert words.blocks_in_words([4]) == "block 4"


def test_findings_in_words():
    _, steps, result = four_options()
    assert words.removed_line(steps, result | {"removed": [steps[1]["removed"]]}).startswith(
        "1 of 9 blocks was removed (1 Decisive): block "
    )
    assert words.collapse_line(result | {"collapsed": True, "collapsed_at_step": 4}).endswith(
        "The pruned model has collapsed; the collapse comes at step 4."
    )
    assert "collapse cannot be told" in words.collapse_line(result | {"retained_ci": None})
    doubtful = result["cliff"] | {"significant": False}
    assert words.cliff_line(result | {"cliff": doubtful}).endswith("which is not significant.")
    assert words.cliff_line(result | {"cliff": None}).startswith("No cliff")
