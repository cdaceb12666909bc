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
from phaseprune.report.collapse import collapse_line, fall_lines, step_marks
from phaseprune.report.page import write_report
from phaseprune.report.prune import removed_line, steps_table
from phaseprune.report.svg import inline_svg
from phaseprune.report.trace import phases_line, trace_table
from phaseprune.report.view import margin_bar

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
        "shape": "step",
        "rise": [at - 1, at],
        "rise_ci": [[at - 1, at - 1], [at, at]],
        "sharpness_ci": [0.51, 0.6],
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


def fall(steps, kind, at, last=None):
    """A fitted fall, as ``result["cliff"]`` has it: at a step, or up to a last one."""
    last = last or at
    retained = [step["retained"] for step in steps]
    return {
        "found": True,
        "kind": kind,
        "step": at,
        "ci": [at, at],
        "before": float(np.mean(retained[:at])),
        "after": float(np.mean(retained[at:])),
        "r2": 0.9,
        "line_r2": 0.7,
        "span": [at - 1, last],
        "span_ci": [[at - 1, at - 1], [last, last]],
        "p_value": 0.0005,
        "removed": steps[at]["removed"],
        "phase": steps[at]["phase"],
    }


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
        "cliff": fall(steps, "cliff", at),
        "largest_loss": {
            "step": at,
            "removed": steps[at]["removed"],
            "phase": steps[at]["phase"],
            "loss": losses[at - 1],
            "loss_ci": [losses[at - 1] - 0.07, losses[at - 1] + 0.06],
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


@pytest.mark.slow
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
    assert phases_line(trace) in page.text
    assert page.tags.count("tr") == len(steps) + 1 + len(trace["readouts"]) + 2
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


@pytest.mark.slow
def test_page_says_where_the_model_decides_and_falls(tmp_path):
    trace, steps, result = four_options()
    page, _ = page_of(write_report(write_run(tmp_path, trace, steps, make_manifest(trace, result))))
    assert "Silent blocks 0-6, Decisive blocks 7-13." in page.text
    cliff = result["cliff"]
    assert cliff["phase"] == "silent"
    at = f"step {cliff['step']} (95 % CI {cliff['step']} to {cliff['step']})"
    assert (
        f"Retained falls off a cliff at {at}, the removal of block {cliff['removed']} (Silent): "
        f"{100 * cliff['before']:.1f} % on average before it, {100 * cliff['after']:.1f} % from "
        "there on." in page.text
    )
    assert f"{100 * result['largest_loss']['loss']:.1f} points" not in page.text
    assert "6 of 14 blocks were removed (6 Decisive): blocks " in page.text
    assert "has not collapsed; the search goes on and collapses at step" in page.text
    # the figures' own words are texts of the page
    for word in (
        "Silent Phase, blocks 0-6",
        "Decisive Phase, blocks 7-13",
        "gold",
        "transition at readout 7",
        "chosen: 6 removed",
        f"cliff: step {cliff['step']}, from {100 * cliff['before']:.0f} to "
        f"{100 * cliff['after']:.0f} % retained",
        "full model",
        "chance 25.0 %",
    ):
        assert word in page.text, word


@pytest.mark.slow
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
    assert page.tags.count("table") == 1 and page.tags.count("tr") == 41 + 2
    assert f"<td>{100 * trace['option_frequency'][3][1]:.1f}</td>" in text


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
            run,
            "steps.jsonl",
            json.dumps(make_steps(make_trace())[0] | {"calibration": {}}) + "\n",
        ),
        "do not fit together",
    ),
    "empty evaluation": (
        lambda run: spoil(
            run,
            "steps.jsonl",
            json.dumps(make_steps(make_trace())[0] | {"evaluation": {}}) + "\n",
        ),
        "do not fit together",
    ),
}


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_drawing_leaves_no_global_trace():
    before = dict(matplotlib.rcParams)
    inline_svg(figures.decision_margin_figure(make_trace()), "margin", 'a "quoted" <figure>')
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, phaseprune.report.page, phaseprune.report.figures\n"
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
    [
        (-1, "█████│     "),
        (-0.5, "  ▐██│     "),
        (-0.02, "     │     "),
        (0, "     │     "),
        (1, "     │█████"),
        (0.5, "     │██▌  "),
        (0.2, "     │█    "),
        (2.0, "     │█████"),
    ],
)
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
    assert removed_line(steps, result | {"removed": [steps[1]["removed"]]}).startswith(
        "1 of 9 blocks was removed (1 Decisive): block "
    )
    assert collapse_line(result | {"collapsed": True, "collapsed_at_step": 4}).endswith(
        "The pruned model has collapsed; the collapse comes at step 4."
    )
    assert "collapse cannot be told" in collapse_line(result | {"retained_ci": None})


# The shape of a rise and of a fall: no more is said than was found.


def shaped(trace, shape, rise, rise_ci, **more):
    of = trace["transition"] | {"shape": shape, "rise": rise, "rise_ci": rise_ci} | more
    return trace | {"transition": of}


@pytest.mark.slow
def test_a_model_decides_at_a_readout_only_in_a_step():
    trace = make_trace(14, 7)
    phases = "Silent blocks 0-6, Decisive blocks 7-13."
    assert phases_line(trace) == f"The model decides at readout 7 of 14 (95 % CI 6 to 8): {phases}"
    split = f"Split into two levels, at readout 7 (95 % CI 6 to 8): {phases}"
    ends = [4, 9], [[3, 5], [8, 10]]
    told = phases_line(shaped(trace, "gradual", *ends))
    assert told == (
        "The Decision Margin rises gradually from readout 4 (95 % CI 3 to 5) to 9 (95 % CI 8 to "
        f"10) of 14. {split}"
    )
    told = phases_line(shaped(trace, "several", *ends))
    assert told == (
        "The Decision Margin rises in two steps, at readouts 4 (95 % CI 3 to 5) and 9 (95 % CI 8 "
        f"to 10) of 14. {split}"
    )
    told = phases_line(shaped(trace, "unclear", [6, 8], [[5, 6], [8, 9]]))
    assert told == (
        "The Decision Margin rises between readouts 6 (95 % CI 5 to 6) and 8 (95 % CI 8 to 9) of "
        f"14, where these 500 questions cannot tell a step from a gradual rise. {split}"
    )
    older = trace | {
        "transition": {
            k: v
            for k, v in trace["transition"].items()
            if k not in ("shape", "rise", "rise_ci", "sharpness_ci")
        }
    }
    told = phases_line(older)
    assert "the model decides" not in told.lower() and "an older version did not look" in told
    for one in (
        older,
        *(shaped(trace, shape, *ends) for shape in ("gradual", "several", "unclear")),
    ):
        assert "decides at" not in phases_line(one)
        figures.decision_margin_figure(one).draw_without_rendering()
        assert len(printed(trace_table(one), 80)) == len(printed(trace_table(trace), 80))


def test_how_many_questions_would_tell():
    """By hand: the standard error of a 95 % interval, and a power of 80 %."""
    error = (0.7 - 0.3) / (2 * 1.959964)
    needed = 100 * ((1.959964 + 0.841621) * error / 0.1) ** 2
    assert 810 < needed < 820
    assert words.enough_words(0.1, [-0.1, 0.3], 100) == "; about 820 would tell"
    assert words.enough_words(-0.1, [-0.3, 0.1], 100) == "; about 820 would tell"
    assert words.enough_words(0.4, [-0.1, 0.3], 100) == "; about 110 would tell"  # never fewer
    for nothing in ((0.0, [-0.1, 0.1], 100), (0.1, None, 100), (0.1, [-0.1, 0.3], None)):
        assert words.enough_words(*nothing) == ""


def test_a_level_below_zero_is_told():
    trace = make_trace(14, 7)
    trace["accuracy"]["mean"] = [0.4] * 15
    low = trace | {"transition": trace["transition"] | {"decisive_level": -0.123}}
    assert phases_line(low).endswith(
        " Behind it the Decision Margin is still below 0 (-0.12 on average): most questions are "
        "not decided rightly there (40 % are)."
    )
    low["accuracy"]["mean"] = [0.6] * 15  # so low a mean is of some that are very wrong
    assert phases_line(low).endswith("is still below 0 (-0.12 on average).")


def lettered(trace, raw=None):
    """The same with figures less the label prior, and another raw transition."""
    lower = {part: [value - 0.1 for value in of] for part, of in trace["decision_margin"].items()}
    accuracy = {part: [1 - value / 2 for value in of] for part, of in trace["accuracy"].items()}
    debiased = {"decision_margin": lower, "accuracy": accuracy}
    return trace | {"debiased": debiased, "raw_transition": raw or trace["transition"]}


def test_raw_and_debiased_transitions_are_both_told_where_they_differ():
    trace = make_trace(14, 7)
    found = trace["transition"]
    same = phases_line(lettered(trace))
    assert same == phases_line(trace)
    assert phases_line(lettered(trace, found | {"shape": "unclear"})) == same
    prior = "the label prior (how much a letter is preferred whatever the question says)"
    later = found | {"readout": 9, "ci": [9, 10]}
    assert phases_line(lettered(trace, later)) == (
        f"Without {prior}, the model decides at readout 7 of 14 (95 % CI 6 to 8): Silent blocks "
        "0-6, Decisive blocks 7-13; as it answers, it decides at readout 9 of 14 (95 % CI 9 to 10)."
    )
    gradual = found | {"shape": "gradual", "rise": [4, 9], "rise_ci": [[3, 5], [8, 10]]}
    assert "; as it answers, the Decision Margin rises gradually from readout 4" in phases_line(
        lettered(trace, gradual)
    )
    none = make_trace(found=False)["transition"]
    assert "; as it answers, none is found (the final accuracy 0.262" in phases_line(
        lettered(trace, none)
    )
    told = phases_line(lettered(trace | {"transition": none}, found))
    assert told.startswith(f"No transition was found without {prior}: the final accuracy")
    assert told.endswith(
        "as the model answers, the model decides at readout 7 of 14 (95 % CI 6 to 8), which the "
        "label prior may have made."
    )


def with_debiased(steps, kinds=("knowledge",)):
    """Steps of letters: less the label prior a little more is left; kinds of collapse in turn."""
    collapsed = iter(kinds * len(steps))
    return [
        step
        | {
            "evaluation": step["evaluation"] | {"debiased": step["evaluation"]},
            "retained_debiased": step["retained"] + 0.1,
            "retained_debiased_ci": [step["retained"] + 0.05, step["retained"] + 0.15],
            "collapse": next(collapsed) if step["collapsed"] else None,
        }
        for step in steps
    ]


@pytest.mark.parametrize("labels", ["AB", "ABCD", "ABCDE", "ABCDEFGH"])
def test_tables_of_letters_show_raw_and_debiased_within_80_columns(labels):
    trace, steps, result = four_options(labels=tuple(labels))
    trace, steps = lettered(trace), with_debiased(steps, ("knowledge", "calibration", "unclear"))
    rows = printed(trace_table(trace), 200)
    assert max(len(row) for row in rows) <= 80
    for at in trace["readouts"]:
        (row,) = [row for row in rows if row.startswith(f"{at:>4} ")]
        debiased = trace["debiased"]
        ends = (f"{debiased['decision_margin'][part][at]:+.2f}" for part in ("ci_low", "ci_high"))
        assert row.split()[1] == f"{trace['decision_margin']['mean'][at]:+.2f}"
        assert f"{debiased['decision_margin']['mean'][at]:+.2f} [{', '.join(ends)}]" in row
        shares = (trace["accuracy"]["mean"][at], debiased["accuracy"]["mean"][at])
        assert " ".join(f"{100 * share:3.0f}" for share in shares) in row
    rows = printed(steps_table(steps, result), 200)
    assert max(len(row) for row in rows) <= 80
    marks = {
        "knowledge": "knowledge lost",
        "calibration": "calibration lost",
        "unclear": "collapsed",
    }
    text = " ".join(" ".join(rows).split())
    for step in steps:
        (row,) = [row for row in rows if row.startswith(f"{step['step']:>4} ")]
        low, high = step["retained_debiased_ci"]
        told = f"{100 * step['retained_debiased']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        assert told.replace("-0 ", "0 ") in row.replace("-0 ", "0 ")
        if step["collapse"]:
            assert marks[step["collapse"]].split()[0] in row
    assert "debiased: less the label prior" in text
    for step in steps:
        step |= {
            "retained": -1.234,
            "retained_ci": [-2.345, 1.234],
            "retained_debiased": -1.234,
            "retained_debiased_ci": [-2.345, 1.234],
            "collapsed": True,
        }
    assert max(len(row) for row in printed(steps_table(steps, result), 200)) <= 80


def test_a_collapse_is_of_calibration_or_of_knowledge():
    _, steps, result = four_options()
    steps = with_debiased(steps)
    at = result["collapsed_at_step"]
    steps[0]["evaluation"]["correct"] = "1" * 200
    for kind, left, ci, told in (
        (
            "calibration",
            0.98,
            [0.9, 1.06],
            ", a collapse of calibration: without the label prior 98.0 % (95 % CI 90.0 to 106.0) "
            "is retained.",
        ),
        (
            "knowledge",
            0.02,
            [-0.1, 0.1],
            ", a collapse of knowledge: without the label prior 2.0 % (95 % CI -10.0 to 10.0) is "
            "retained.",
        ),
        (
            "unclear",
            0.35,
            [0.15, 0.55],
            ", of calibration or of knowledge: these questions cannot tell: without the label "
            "prior 35.0 % (95 % CI 15.0 to 55.0) is retained; about 1,700 would tell.",
        ),
        ("unclear", None, None, ", of calibration or of knowledge: these questions cannot tell."),
    ):
        steps[at] |= {"collapse": kind, "retained_debiased": left, "retained_debiased_ci": ci}
        one = result | {
            "collapse": kind,
            "retained_debiased": 0.9,
            "retained_debiased_ci": [0.8, 1.0],
        }
        line = collapse_line(one, steps)
        assert line.endswith(f"collapses at step {at}{told}"), line
        assert "; without the label prior 90.0 % (95 % CI 80.0 to 100.0)." in line
    gone = result | {
        "collapsed": True,
        "collapsed_how": "calibration",
        "retained_debiased": 0.9,
        "retained_debiased_ci": [0.8, 1.0],
    }
    assert collapse_line(gone, steps).endswith(
        "without the label prior 90.0 % (95 % CI 80.0 to 100.0). The pruned model has collapsed, a "
        f"collapse of calibration; the collapse comes at step {at}."
    )


def test_a_fall_is_told_by_its_kind():
    _, steps, result = four_options()

    def told(kind, at=8, last=None, **more):
        return fall_lines(result | {"cliff": fall(steps, kind, at, last) | more}, steps)

    (line,) = told("cliff")
    assert line.startswith("Retained falls off a cliff at step 8 (95 % CI 8 to 8), the removal of")
    (line,) = told("slope", 8, 11, span_ci=[[6, 8], [10, 12]])
    assert line.startswith(
        "Retained falls on a slope, not off a cliff, from step 7 (95 % CI 6 to 8) to step 11 (95 % "
        "CI 10 to 12): "
    )
    assert line.endswith("% from there on.") and "on average before step 8," in line
    (line,) = told("several cliffs", 8, span=[3, 8], span_ci=[[3, 3], [8, 8]])
    assert line.startswith("Retained falls off two cliffs, at step 3 (95 % CI 3 to 3) and at step")
    (line,) = told("unclear", 8, 10, span_ci=[[7, 7], [8, 10]])
    assert line.startswith("Retained falls between step 7 (95 % CI 7 to 7) and step 10")
    assert "these 4 questions cannot tell a cliff from a slope" in line
    assert fall_lines(result | {"cliff": fall(steps, "cliff", 8) | {"found": False}}, steps) == [
        "Retained has no significant fall (p = 0.0005)."
    ]
    assert fall_lines(result | {"cliff": None}, steps) == []
    debiased = fall(steps, "slope", 8, 11)
    both = told("cliff", debiased=debiased)
    assert len(both) == 2
    assert both[1].startswith("Without the label prior, retained falls on a slope, not off a cliff")
    assert len(told("slope", 8, 11, debiased=debiased)) == 1  # nothing else to say


@pytest.mark.parametrize(
    ("kind", "span", "mark", "steps_of", "dark"),
    [
        ("cliff", [7, 8], "cliff", [8], [(7, 8)]),
        ("slope", [6, 9], "slope", [7, 8, 9], [(6, 9)]),
        ("unclear", [7, 9], "fall", [8, 9], [(7, 9)]),
        ("several cliffs", [3, 8], "cliff", [3, 8], [(2, 3), (7, 8)]),
    ],
)
def test_the_fitted_fall_is_marked_in_table_and_figure(kind, span, mark, steps_of, dark):
    trace, steps, result = four_options()
    result["cliff"] |= {
        "kind": kind,
        "step": 8,
        "ci": [7, 8],
        "span": span,
        "span_ci": [[end - 1, end + 1] for end in span],
    }
    assert [step["step"] for step in steps if mark in step_marks(step, result)] == steps_of
    axes = figures.pruning_figure(steps, result, trace["chance"]).axes[0]
    drawn = [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if patch.get_label() == mark
    ]
    assert [pytest.approx(one) for one in dark] == drawn
    low, high = spans(axes)[f"{mark}, 95 % interval"]
    expected = {"cliff": (6, 8), "slope": (5, 10), "unclear": (6, 10), "several cliffs": (1, 9)}
    assert (low, high) == pytest.approx(expected[kind])


def test_figures_of_letters_show_both():
    trace, steps, result = four_options()
    trace, steps = lettered(trace), with_debiased(steps)
    axes = figures.decision_margin_figure(trace).axes[0]
    assert list(line(axes, "Decision Margin").get_ydata()) == trace["decision_margin"]["mean"]
    debiased = trace["debiased"]
    assert list(line(axes, "debiased").get_ydata()) == debiased["decision_margin"]["mean"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "as the model answers",
        "less the label prior",
    ]
    axes = figures.accuracy_by_readout_figure(trace).axes[0]
    assert list(line(axes, "debiased").get_ydata()) == debiased["accuracy"]["mean"]
    steps[3]["evaluation"]["debiased"] = steps[3]["evaluation"] | {"accuracy": 0.123}
    axes = figures.pruning_figure(steps, result, trace["chance"]).axes[0]
    drawn = line(axes, "less the label prior").get_ydata()
    assert list(drawn) == [step["evaluation"]["debiased"]["accuracy"] for step in steps]
    assert drawn[3] == 0.123


@pytest.mark.slow
def test_the_page_of_letters_shows_both(tmp_path):
    trace, steps, result = four_options()
    trace, steps = lettered(trace), with_debiased(steps)
    result |= {
        "retained_debiased": 0.77,
        "retained_debiased_ci": [0.7, 0.84],
        "collapse": "knowledge",
    }
    run = write_run(tmp_path, trace, steps, make_manifest(trace, result))
    page, text = page_of(write_report(run))
    assert_self_contained(page, text)
    assert "Retained, debiased 77.0 % 95 % CI 70.0 to 84.0" in page.text
    for step in steps:
        low, high = step["retained_debiased_ci"]
        value = step["retained_debiased"]
        assert f"{100 * value:.1f} {100 * low:.1f} to {100 * high:.1f}".replace("-0.0", "0.0") in (
            page.text.replace("-0.0", "0.0")
        )
    assert "a collapse of knowledge: without the label prior" in page.text
    assert "Label prior, debiased" in page.text and "knowledge lost" in page.text


@pytest.mark.slow
def test_runs_of_older_versions_are_told_with_less(tmp_path):
    """Their cliff was the largest loss, the fit stood in the dynamics, shapes were not known."""
    trace, steps, result = four_options()
    for key in ("shape", "rise", "rise_ci", "sharpness_ci"):
        del trace["transition"][key]
    loss, fit = result.pop("largest_loss"), result["cliff"]
    for step in steps:
        step["retained_ci"] = None if step["step"] == 3 else step["retained_ci"]
    result["cliff"] = loss | {"significant": True}
    result["dynamics"] = {
        "transitions": [
            {
                "step": step["step"],
                "found": step["step"] < 9,
                "readout": 7,
                "ci": [7, 8],
                "reason": None,
                "p_value": 0.001,
                "p_corrected": 0.001,
                "silent_blocks": [],
                "decisive_blocks": [],
            }
            for step in steps
        ],
        "vanishes_at_step": 9,
        "collapsed_frequency": None,
        "cliff_fit": {
            name: fit[name]
            for name in ("found", "step", "ci", "before", "after", "r2", "line_r2", "p_value")
        },
    }
    page, _ = page_of(write_report(write_run(tmp_path, trace, steps, make_manifest(trace, result))))
    assert "an older version did not look" in page.text
    assert "Whether that is a cliff or a slope an older version did not test." in page.text
    assert "none is found at steps 9 to 12." in page.text and "; it is gone" not in page.text
    marked = [step["step"] for step in steps if "fall" in step_marks(step, result)]
    assert marked == [fit["step"]]
    bare = {name: value for name, value in result.items() if name != "dynamics"}
    assert fall_lines(bare, steps) == []
    printed(steps_table(steps, bare), 80)
