"""Several tasks at once: against deleting each block and scoring each task; runs, words, page."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from conftest import QUESTIONS, WORDS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.decision.collapse import retained
from phaseprune.decision.combined import (
    Answers,
    best_place,
    combine,
    combined_loss,
    combined_retained,
    make_scale,
)
from phaseprune.decision.intervals import resamples
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.healing.pruned import open_run
from phaseprune.probes.guards import Guard
from phaseprune.probes.ladder import read_ladder
from phaseprune.pruning.export_run import export_run, run_to_export
from phaseprune.pruning.prune import kept_shares, prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair
from phaseprune.questions.prompts import render
from phaseprune.questions.split import split
from phaseprune.report import prune as report
from phaseprune.report.figures import tasks_figure
from phaseprune.report.page import write_report
from phaseprune.report.prune import differing_line, steps_table
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import kept_budget
from phaseprune.sweep.walk import trace_scores
from test_prune import findings, without_seconds
from test_sweep import naive_scores, without

OPTIONS = dict(remove=3, calibration=6, seed=0)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two small tasks: letters of some questions, texts of others."""
    words, folder = WORDS.split(), tmp_path_factory.mktemp("tasks")
    tasks = []
    for name, scoring, numbers in (("first", "letter", (0, 1)), ("second", "text", (2, 3))):
        rows = [
            dict(row, question=f"{row['question']} {words[n]}")
            for n in numbers
            for row in QUESTIONS
        ]
        tasks.append(load_task(str(write_jsonl(folder / f"{name}.jsonl", rows)), scoring=scoring))
    return tasks


def of_kind(name, *kinds, limit=36):
    """Some kinds of the bundled questions as a task."""
    task = load_task("demo")
    chosen = [question for question in task.questions if question.group in kinds]
    return replace(task.with_questions(chosen[:limit]), name=name)


@pytest.fixture(scope="module")
def kinds():
    return [of_kind("facts", "fact"), of_kind("comparisons", "comparison", "negation")]


def slow_scores(decoder, model, task):
    """As ``naive_scores``; letters of one prompt are all read from one run of it."""
    if task.scoring == "text":
        return naive_scores(model, decoder.tokenizer, task)
    scores = np.full((len(task.questions), int(task.options.max())), -np.inf)
    for q, question in enumerate(task.questions):
        pairs = [
            encode_pair(decoder.tokenizer, render(question, "letter")[0], letter)
            for letter in render(question, "letter")[1]
        ]
        logits = model(torch.tensor([pairs[0][0]]), use_cache=False).logits[0, -1]
        for o, (before, after) in enumerate(pairs):
            assert before == pairs[0][0]
            scores[q, o] = float(logits[after[0]])
    return scores


def slow_objective(objective, scores, task):
    """One question after the other."""
    found = []
    for row, question in zip(scores, task.questions, strict=True):
        row = row[: len(question.choices)]
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        others = np.delete(p, question.answer).max()
        found.append(
            {
                "accuracy": float(np.argmax(p) == question.answer),
                "decision_margin": p[question.answer] - others,
                "loss": -np.log(p[question.answer]),
            }[objective]
        )
    return float(np.mean(found))


def slow_left(objective, value, full, task):
    """As docs/several-tasks.md says, in its words."""
    sizes = [len(question.choices) for question in task.questions]
    if objective == "loss":
        guessing = np.mean([np.log(k) for k in sizes])
        lost = max(guessing - full, guessing / 5)
        return 1 - (value - full) / lost
    guessing = np.mean([1 / k for k in sizes]) if objective == "accuracy" else 0.0
    lost = max(full - guessing, (1 - guessing) / 5)
    return 1 - (full - value) / lost


def slow_combined(left, weights, how):
    if how == "mean":
        return sum(w * one for w, one in zip(weights, left, strict=True)) / sum(weights)
    return min(1 - w / max(weights) * (1 - one) for w, one in zip(weights, left, strict=True))


def slow_steps(decoder, tasks, objective, weights, how, steps, calibration):
    """(block, what is left of all) of each step, by deleting blocks and running the whole model."""
    sides = [split(task, calibration, None, 0)[0] for task in tasks]

    def values(model):
        return [
            slow_objective(objective, slow_scores(decoder, model, task), task) for task in sides
        ]

    full, removed, found = values(decoder.model), [], []
    for _ in range(steps):
        best, block = -np.inf, None
        for candidate in range(len(decoder.blocks)):
            if candidate in removed:
                continue
            model = without(decoder.model, decoder.blocks_path, [*removed, candidate])
            left = [
                slow_left(objective, value, own, task)
                for value, own, task in zip(values(model), full, sides, strict=True)
            ]
            together = slow_combined(left, weights, how)
            if together > best + 1e-6:
                best, block = together, candidate
        removed.append(block)
        found.append((block, best))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "objective", "how", "weights"),
    [
        ("llama", "decision_margin", "mean", [2, 1]),
        ("llama", "accuracy", "worst", [1, 1]),
        ("gemma2", "loss", "worst", [1, 3]),
        ("gpt2", "accuracy", "mean", [1, 1]),
        ("qwen3", "decision_margin", "worst", [1, 1]),
    ],
)
def test_each_step_is_the_slow_obvious_one(tiny, two, family, objective, how, weights):
    decoder = tiny[family]
    got = prune(
        decoder, two, objective=objective, combine=how, weights=weights, remove=2, calibration=6
    )
    wanted = slow_steps(decoder, two, objective, weights, how, 2, 6)
    assert got.removed == [block for block, _ in wanted]
    np.testing.assert_allclose(
        [step.objective for step in got.steps], [1, *(left for _, left in wanted)], atol=2e-4
    )


@pytest.mark.slow
def test_each_step_of_the_bundled_model(demo, kinds):
    got = prune(demo, kinds, combine="worst", weights=[1, 2], remove=2, calibration=6)
    wanted = slow_steps(demo, kinds, "decision_margin", [1, 2], "worst", 2, 6)
    assert got.removed == [block for block, _ in wanted]
    assert [step.objective for step in got.steps[1:]] == pytest.approx(
        [left for _, left in wanted], abs=2e-4
    )


@pytest.mark.slow
def test_tasks_can_want_other_blocks(demo, kinds):
    """Else the tests above could not tell a search by both from a search by one."""
    each = [tuple(prune(demo, task, remove=4, calibration=9).removed) for task in kinds]
    both = prune(demo, kinds, remove=4, calibration=9, combine="worst")
    assert each[0] != each[1]
    last = both.steps[-1].tasks
    assert both.steps[-1].objective == pytest.approx(min(one["left"] for one in last.values()))


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_one_weight_above_all_is_the_search_by_that_task(tiny, two, tmp_path, place):
    weights = [1e9 if at == place else 1 for at in range(2)]
    prune(tiny["llama"], two, weights=weights, out=tmp_path / "both", **OPTIONS)
    alone = prune(tiny["llama"], two[place], out=tmp_path / "one", **OPTIONS)
    one, both = tmp_path / "one", tmp_path / "both" / ("first", "second")[place]
    assert findings(RunDirectory(both).steps()) == findings(RunDirectory(one).steps())
    assert RunDirectory(both).candidates() and without_seconds(
        RunDirectory(both).candidates()
    ) == without_seconds(RunDirectory(one).candidates())
    result = RunDirectory(both).manifest["result"]
    assert {**result, "export": None} == {**alone.result, "export": None}
    for file in ("trace.json", "scores.parquet"):
        assert (both / file).read_bytes() == (one / file).read_bytes()


def test_the_files_of_a_run(tiny, two, tmp_path):
    run = RunDirectory(tmp_path / "run")
    got = prune(tiny["llama"], two, combine="worst", out=run.path, **OPTIONS)
    manifest, steps = run.manifest, run.steps()
    assert manifest["status"] == "finished" and manifest["tasks"] == ["first", "second"]
    assert manifest["options"]["combine"] == "worst"
    assert manifest["options"]["weights"] == {"first": 1, "second": 1}
    assert manifest["result"]["removed"] == got.removed == [s["removed"] for s in steps[1:]]
    assert {path.name for path in run.path.iterdir()} == {
        "manifest.json",
        "steps.jsonl",
        "first",
        "second",
    }
    for task in two:
        folder = task.name.rpartition("/")[2].removesuffix(".jsonl")
        own = RunDirectory(run.path / folder)
        assert own.manifest["status"] == "finished" and own.manifest["command"] == "prune"
        assert [line["removed"] for line in own.steps()[1:]] == got.removed
        assert own.manifest["result"]["removed"] == got.removed
        for step, line in zip(steps, own.steps(), strict=True):
            told = step["tasks"][folder]
            assert told["objective"] == line["objective"]
            assert told["accuracy"] == line["evaluation"]["accuracy"]
            assert told["phase"] == line["phase"] and told["retained"] == line["retained"]
        assert {line["step"] for line in own.candidates()} == {1, 2, 3}
    again = prune(tiny["llama"], two, combine="worst", out=run.path, **OPTIONS)
    assert again.state == "finished"
    assert json.dumps(again.to_dict()) == json.dumps(got.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    "when",
    [
        "first: full",
        "second: full",
        "second: calib",
        "second: step 1: sweep",
        "first: step 2: eval",
        "second: step 2: eval",
        "second: step 3: eval",
    ],
)
def test_an_interrupted_run_goes_on(tiny, two, tmp_path, when):
    whole, run = tmp_path / "whole", tmp_path / "run"
    prune(tiny["llama"], two, out=whole, **OPTIONS)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(tiny["llama"], two, out=run, progress=interrupt, **OPTIONS)
    scored = {name: RunDirectory(run / name).candidates() for name in ("first", "second")}
    labels = []
    resumed = prune(
        tiny["llama"], two, out=run, progress=lambda label, *_: labels.append(label), **OPTIONS
    )
    assert resumed.state == "resumed"
    assert findings(RunDirectory(run).steps()) == findings(RunDirectory(whole).steps())
    for name in ("first", "second"):
        mine, theirs = (RunDirectory(path / name) for path in (run, whole))
        assert findings(mine.steps()) == findings(theirs.steps())
        assert findings(mine.candidates()) == findings(theirs.candidates())
        assert mine.candidates()[: len(scored[name])] == scored[name]
        done = {line["step"] for line in scored[name]}
        again = {label for label in labels if label.startswith(f"{name}: ") and "sweep" in label}
        assert not [label for label in again if int(label.split("step ")[1].split(":")[0]) in done]
    results = [RunDirectory(path).manifest["result"] for path in (run, whole)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_another_run_is_refused(tiny, two, tmp_path):
    prune(tiny["llama"], two, out=tmp_path / "run", **OPTIONS)
    for changed, part in (
        (dict(combine="worst"), "option combine"),
        (dict(weights=[1, 2]), "option weights"),
        (dict(objective="loss"), "option objective"),
        (dict(calibration=5), "option calibration questions of first"),
    ):
        with pytest.raises(UserError, match=part):
            prune(tiny["llama"], two, out=tmp_path / "run", **OPTIONS | changed)
    with pytest.raises(UserError, match="holds another run: its command"):
        prune(tiny["llama"], two[0], out=tmp_path / "run", **OPTIONS)
    with pytest.raises(UserError, match="its prompt_format was .letter/mmlu; text/arc"):
        prune(tiny["llama"], [two[1], two[0]], out=tmp_path / "run", **OPTIONS)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (dict(combine="most"), "combine is 'most' and must be one of mean, worst"),
        (dict(weights=[1]), "weights gives 1 for 2 tasks"),
        (dict(weights=[1, 0]), "above 0"),
        (dict(weights=[1, float("nan")]), "above 0"),
        (dict(search="racing"), "search='racing' takes one task"),
        (dict(granularity="mlp"), "granularity='mlp' takes one task"),
        (dict(method="tail"), "method='tail' does not choose by several tasks"),
        (dict(objective="text_loss", text="text.txt"), "objective='text_loss' does not choose by"),
        (dict(text="text.txt"), "text text.txt goes with"),
        (dict(remove=5), "5"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny, two, changed, told):
    with pytest.raises(UserError) as refused:
        prune(
            tiny["llama"],
            two,
            progress=lambda *_: pytest.fail("work has begun"),
            **OPTIONS | changed,
        )
    assert told in str(refused.value)


@pytest.mark.slow
def test_tasks_that_do_not_go_together_are_refused(tiny, two):
    first, second = two
    decoder = tiny["llama"]
    for tasks, told in (
        ([first, first], "twice"),
        ([first, replace(first, name="again")], "the same questions"),
        (
            [first, replace(first.with_questions(first.questions[::-1]), name="turned")],
            "would be reported on in turned",
        ),
        ([], "no task"),
    ):
        with pytest.raises(UserError, match=told):
            prune(decoder, tasks, **OPTIONS)
    # The same questions, split alike, are never chosen on in one and reported on in the other.
    prune(decoder, [first, replace(first, name="texts", scoring="text")], **OPTIONS | {"remove": 1})
    for options in (dict(combine="worst"), dict(weights=[1])):
        with pytest.raises(UserError, match="several tasks"):
            prune(decoder, first, **OPTIONS | options)
    assert prune(decoder, [first], **OPTIONS).removed == prune(decoder, first, **OPTIONS).removed


def test_a_folder_has_a_name_of_its_own(tiny, two, tmp_path):
    tasks = [replace(two[0], name="here/model.jsonl"), replace(two[1], name="there/model.csv")]
    prune(tiny["llama"], tasks, out=tmp_path / "run", **OPTIONS | {"remove": 1})
    assert RunDirectory(tmp_path / "run").manifest["tasks"] == ["model-2", "model-3"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mean", "worst"])
def test_the_search_stops_by_what_is_retained_of_all(demo, kinds, how):
    got = prune(demo, kinds, combine=how, weights=[1, 3], keep_accuracy=0.9, calibration=12)
    chosen, last = got.steps[-2:]
    assert got.result["chosen_step"] == chosen.step and last.retained < 0.9 <= chosen.retained
    assert got.removed == [step.removed for step in got.steps[1:-1]]
    for step in got.steps:
        left = [one["retained"] for one in step.tasks.values()]
        assert step.retained == pytest.approx(slow_combined(left, [1, 3], how))
    for folder, one in got.tasks.items():
        assert one.result["chosen_step"] == chosen.step
        assert one.result["retained"] == chosen.tasks[folder]["retained"]
        assert one.result["stopped_by"] == got.result["stopped_by"]


@pytest.mark.slow
def test_a_share_of_what_is_not_above_chance_cannot_be_kept(tiny, two):
    decoder, wrong = tiny["llama"], two[0]
    raw = naive_scores(decoder.model, decoder.tokenizer, wrong)
    worst = [
        int(np.argmin(row[: len(q.choices)])) for row, q in zip(raw, wrong.questions, strict=True)
    ]
    questions = [replace(q, answer=at) for q, at in zip(wrong.questions, worst, strict=True)]
    tasks = [replace(wrong.with_questions(questions), name="wrong"), two[1]]
    with pytest.raises(UserError, match="wrong: the full model's accuracy .* not above chance"):
        prune(decoder, tasks, keep_accuracy=0.9, calibration=6)
    got = prune(decoder, tasks, objective="accuracy", remove=1, calibration=6)
    assert got.result["retained"] is None and np.isfinite(got.steps[1].objective)
    traces = {folder: one.trace.to_dict() for folder, one in got.tasks.items()}
    lines = tasks_lines([s.to_dict() for s in got.steps], traces, got.result, got.chosen_by)
    assert any("is not defined: on one task" in line for line in lines)
    assert "acc." in printed(steps_table([s.to_dict() for s in got.steps], got.result))


@pytest.mark.slow
def test_guards_look_once_a_step(tiny, two, tmp_path):
    words = WORDS.split()
    text = tmp_path / "text.txt"
    text.write_text(" ".join(words[(7 * i + i // 5) % len(words)] for i in range(500)))
    labels = []
    got = prune(
        tiny["llama"],
        two,
        remove=3,
        calibration=6,
        text=text,
        out=tmp_path / "run",
        guard=Guard(windows=4, window_tokens=16, prompts=2, prompt_tokens=8, tokens=8),
        keep_text_loss=1e6,
        progress=lambda label, *_: labels.append(label),
    )
    looks = list(dict.fromkeys(label for label in labels if label.endswith(": text")))
    assert len(looks) == 4 and got.result["guard"]["pruned"]
    one = prune(
        tiny["llama"],
        two[0],
        protect=got.steps[-1].kept,
        method="tail_all",
        remove=3,
        calibration=6,
        text=text,
        guard=Guard(windows=4, window_tokens=16, prompts=2, prompt_tokens=8, tokens=8),
    )
    assert sorted(one.removed) == sorted(got.removed)
    assert one.steps[-1].guard["text_loss"] == pytest.approx(got.steps[-1].guard["text_loss"])
    page = write_report(tmp_path / "run").read_text()
    assert 'id="guards"' in page and "Text loss, rise %" in page
    tight = prune(
        tiny["llama"],
        two,
        calibration=6,
        text=text,
        keep_text_loss=0.0,
        guard=Guard(windows=4, window_tokens=16, prompts=2, prompt_tokens=8, tokens=8),
    )
    rises = [step.text_loss_rise for step in tight.steps]
    assert all(rise <= 0 for rise in rises[:-1])
    assert "text loss" in tight.result["stopped_by"] or len(rises) == 5


def test_memory_for_kept_states_is_shared(tiny_dirs, two):
    decoder = load_model(str(tiny_dirs["llama"]), max_memory=200_000_000)
    rows = [prepare(decoder, split(task, 6, None, 0)[0]) for task in two]
    shares = kept_shares(decoder, [each.rows for each in rows])
    assert min(shares) > 0 and sum(shares) <= min(kept_budget(decoder, r.rows) for r in rows)
    tokens = [r.rows.padded_tokens for r in rows]
    assert shares[0] / tokens[0] == pytest.approx(shares[1] / tokens[1], rel=0.01)


@pytest.mark.slow
def test_states_are_kept_for_each_task(tiny, two):
    got = prune(tiny["llama"], two, **OPTIONS)
    assert got.steps[1].block_passes == 2 * 15  # n (n + 1) / 2 for either
    cold = [n * (n + 1) // 2 for n in (4, 3)]
    assert any(step.block_passes < 2 * full for step, full in zip(got.steps[2:], cold, strict=True))
    alone = {
        name: prune(tiny["llama"], task, weights=None, **OPTIONS)
        for name, task in zip(("first", "second"), two, strict=True)
    }
    assert all(one.steps[1].block_passes == 15 for one in alone.values())


@pytest.mark.slow
def test_the_chosen_model_is_exported(tiny, tiny_dirs, two, tmp_path):
    got = prune(tiny["llama"], two, combine="worst", out=tmp_path / "run", **OPTIONS)
    exported = export_run(tiny["llama"], run_to_export(tmp_path / "run"))
    assert exported.removed == got.removed and exported.max_abs_logit_difference < 1e-4
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["result"]["export"]["path"] == str(run.model_path)
    notes = json.loads((run.model_path / "phaseprune.json").read_text())["figures"]
    assert [one["task"] for one in notes["tasks"]] == [task.name for task in two]
    card = (run.model_path / "README.md").read_text()
    pruned = load_model(str(run.model_path))
    for task, told in zip(two, notes["tasks"], strict=True):
        evaluation = split(task, 6, None, 0)[1]
        prepared = prepare(pruned, evaluation)
        scores = trace_scores(pruned, prepared.rows, prepared.needs_vocabulary, output_only=True)
        assert told["pruned"]["accuracy"] == prepared.decide(scores).correct.mean()
        assert f"## Measured on {task.name} (10 evaluation questions" in card
    step = export_run(tiny["llama"], run, step=1, out=tmp_path / "one")
    assert step.removed == got.removed[:1]
    part = export_run(tiny["llama"], run_to_export(run.path / "first"), out=tmp_path / "part")
    assert part.removed == got.removed


def test_what_takes_one_task_names_the_folders(tiny, two, tmp_path):
    prune(tiny["llama"], two, out=tmp_path / "run", **OPTIONS)
    for refused in (
        lambda: open_run(tmp_path / "run"),
        lambda: read_ladder(tmp_path / "run", tiny["llama"], two[0]),
    ):
        with pytest.raises(UserError, match="holds several tasks .* give one of .*run/first, "):
            refused()
    assert open_run(tmp_path / "run" / "first").removed(3)
    ladder = read_ladder(tmp_path / "run" / "second", tiny["llama"], two[1])
    assert len(ladder.removed) == 3


def printed(table):
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue()


def tasks_lines(steps, traces, result, chosen_by):
    tasks = {folder: {"trace": trace} for folder, trace in traces.items()}
    told = {"steps": steps, "result": result, "tasks": tasks, "chosen_by": chosen_by}
    return [line for line in report.tasks_lines(told) if line]


@pytest.mark.slow
def test_the_command_line(two, tiny_dirs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ",".join(task.name for task in two)
    words = [
        "prune",
        str(tiny_dirs["llama"]),
        "--task",
        names,
        "--weights",
        "2,1",
        "--combine",
        "worst",
        "--remove",
        "2",
        "--calibration",
        "6",
        "--out",
        "run",
    ]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert not ended.value.code
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert list(found["tasks"]) == ["first", "second"] and len(found["steps"]) == 3
    assert found["result"]["export"]["path"] == "run/model" and (tmp_path / "run/model").is_dir()
    assert "worst [CI]" in captured.out and "first: " in captured.out
    assert "phaseprune export run" in captured.out
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="tasks"' in page and "Phases by task" in page and "<h2>Steps</h2>" in page
    assert "6 of first, 6 of second, by the worst of what is left of each, weights 2, 1" in page
    with pytest.raises(SystemExit) as ended:
        main(["report", "run/first"])
    assert not ended.value.code
    own = (tmp_path / "run" / "first" / "report.html").read_text()
    assert "Accuracy by number of removed blocks" in own
    for text, told in (
        (["--weights", "2"], "weights gives 1 for 2 tasks"),
        (["--weights", "2,x"], "must be numbers, one a task"),
        (["--combine", "wurst"], "Did you mean"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["prune", "no-such-model", "--task", names, *text])
        assert ended.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_with_a_comma_is_one_task(tiny_dirs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a,b.jsonl", QUESTIONS)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "prune",
                str(tiny_dirs["llama"]),
                "--task",
                "a,b.jsonl",
                "--remove",
                "1",
                "--out",
                "run",
                "--calibration",
                "4",
                "--no-export",
                "--json",
            ]
        )
    assert not ended.value.code
    assert "trace" in json.loads(capsys.readouterr().out)


def test_the_page_of_an_unfinished_run(tiny, two, tmp_path):
    def interrupt(label, done, total):
        if label.startswith("second: step 2: sweep"):
            raise Stopped

    with pytest.raises(Stopped):
        prune(tiny["llama"], two, out=tmp_path / "run", progress=interrupt, **OPTIONS)
    page = write_report(tmp_path / "run").read_text()
    assert "1 block removed so far" in page and "This run failed" in page


def made_run(names, found=True):
    """Steps, traces and a result of so many tasks, with phases that differ."""
    own = {
        "objective": 0.5,
        "left": 1.0,
        "accuracy": 0.9,
        "ci": [0.8, 1.0],
        "decision_margin": 0.5,
        "retained": 0.96,
        "retained_ci": [0.9, 1.0],
        "collapsed": False,
    }
    steps = [
        {
            "step": step,
            "removed": removed,
            "kept": [],
            "objective": 1.0,
            "retained": 0.96,
            "retained_ci": [0.9, 1.0],
            "collapsed": False,
            "block_passes": 1,
            "seconds": 1.0,
            "guard": None,
            "tasks": {name: own | {"phase": phase} for name in names},
        }
        for step, removed, phase in ((0, None, None), (1, 3, "silent"), (2, 0, "decisive"))
    ]
    traces = {
        name: {
            "blocks": 4,
            "transition": {
                "found": found,
                "silent_blocks": list(range(place % 3)),
                "decisive_blocks": list(range(place % 3, 4)),
            },
        }
        for place, name in enumerate(names)
    }
    result = {
        "combine": "mean",
        "weights": dict.fromkeys(names, 1.0),
        "chosen_step": 2,
        "largest_loss": None,
        "retained": 0.96,
    }
    return steps, traces, result


def test_the_largest_loss_is_called_no_cliff():
    steps, traces, result = made_run(["a", "b"])
    own = {
        "chance": 0.25,
        "evaluation_questions": 100,
        "collapsed": False,
        "full": {"accuracy": 0.9, "ci": [0.8, 1.0]},
        "pruned": {"accuracy": 0.8, "ci": [0.7, 1]},
        "retained": 0.8,
        "retained_ci": [0.7, 0.9],
        "removed_of_phase": {"silent": 1, "decisive": 1},
    }
    loss = {"step": 2, "removed": 0, "phase": None, "loss": 0.3, "loss_ci": [0.2, 0.4]}
    result |= {
        "removed": [3, 0],
        "kept": [1, 2],
        "retained_ci": [0.9, 1.0],
        "tasks": {"a": own, "b": own},
        "largest_loss": loss,
    }
    told = (
        "Of all steps, step 2, the removal of block 0 (Decisive for a and b), loses most of the "
        "mean: 30.0 points (95 % CI 20.0 to 40.0, not corrected for the choice)."
    )
    lines = tasks_lines(steps, traces, result, None)
    assert told in lines and "cliff" not in " ".join(lines)
    older = result | {"cliff": loss | {"significant": True}, "largest_loss": None}
    assert told in tasks_lines(steps, traces, older, None)  # where older versions kept it
    assert "No step loses any" in " ".join(
        tasks_lines(steps, traces, result | {"largest_loss": None}, None)
    )
    assert "cliff" not in printed(steps_table(steps, older))
    letters = own | {
        "retained_debiased": 0.9,
        "retained_debiased_ci": [0.85, 0.95],
        "collapsed": True,
        "collapsed_how": "calibration",
    }
    lines = tasks_lines(steps, traces, result | {"tasks": {"a": letters, "b": own}}, None)
    assert any(
        "Retained 80.0 % (95 % CI 70.0 to 90.0), without the label prior 90.0 % (95 % CI 85.0 to "
        "95.0), collapsed, a collapse of calibration." in line
        for line in lines
    )


@pytest.mark.parametrize("count", [2, 3, 11])
def test_tables_are_narrow_and_have_every_task(count):
    names = [f"a-task-with-a-long-name-{number}" for number in range(count)]
    steps, _, result = made_run(names)
    text = printed(steps_table(steps, result))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    folded = text.replace("\n", " ")
    assert folded.count("96 S") == folded.count("96 D") == count


def test_the_words_name_blocks_of_two_phases():
    _, traces, _ = made_run(["a", "b", "c"])
    assert differing_line(traces) == "Blocks 0, 1 are Decisive for one task and Silent for another."
    assert "No block is" in differing_line({"a": traces["a"], "d": traces["a"]})
    _, without_phases, _ = made_run(["a", "b"], found=False)
    assert differing_line(without_phases) is None
    assert differing_line({"a": traces["a"]} | {"b": without_phases["b"]}) is None


@pytest.mark.parametrize("found", [True, False])
def test_the_figure_shows_every_task(found):
    steps, traces, result = made_run(["a", "b", "c"], found)
    figure = tasks_figure(steps, traces, result)
    top, below = figure.axes
    labels = [line.get_label() for line in top.lines]
    assert [name for name in ("a", "b", "c", "all tasks, mean") if name in labels] == [
        "a",
        "b",
        "c",
        "all tasks, mean",
    ]
    assert [tick.get_text() for tick in below.get_yticklabels()] == ["a", "b", "c"]
    assert sorted(text.get_text() for text in below.texts) == ["1"] * 3 + ["2"] * 3
    colours = {patch.get_facecolor()[:3] for patch in below.patches}
    assert len(colours) == (2 if found else 1)
    figure.savefig(io.BytesIO())


def test_what_is_left_of_an_objective():
    options = np.array([4, 4, 2])
    chance = (1 / options).mean()
    scale = make_scale("accuracy", 0.9, options)
    assert scale.left(0.9) == 1 and scale.left(chance) == pytest.approx(0)
    assert scale.left(0.6) == pytest.approx((0.6 - chance) / (0.9 - chance))
    margin = make_scale("decision_margin", 0.8, options)
    assert margin.left(0.8) == 1 and margin.left(0) == pytest.approx(0)
    assert margin.left(-0.4) == pytest.approx(-0.5)
    loss = make_scale("loss", 0.3, options)
    assert loss.left(0.3) == 1 and loss.left(np.log(options).mean()) == pytest.approx(0)
    # A model that is no better than guessing: a fifth of the way to being sure counts as all.
    for full in (-0.3, 0.0, 0.1):
        weak = make_scale("decision_margin", full, options)
        assert weak.lost == 0.2 and weak.left(full - 0.1) == pytest.approx(0.5)
    assert make_scale("loss", 5.0, options).lost == pytest.approx(np.log(options).mean() / 5)
    assert make_scale("accuracy", chance, options).lost == pytest.approx((1 - chance) / 5)


LEFT = st.lists(st.floats(-2, 2), min_size=2, max_size=5)


@given(LEFT, st.data())
def test_combining_is_the_obvious_sum_or_least(left, data):
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(left), max_size=len(left)))
    for how in ("mean", "worst"):
        found = float(combine(np.array(left), weights, how))
        assert found == pytest.approx(slow_combined(left, weights, how), abs=1e-9)
        scaled = combine(np.array(left), [7 * weight for weight in weights], how)
        assert found == pytest.approx(float(scaled), abs=1e-9)
    assert combine(np.ones(len(left)), weights, "mean") == pytest.approx(1)
    assert combine(np.array(left), [1] * len(left), "worst") == pytest.approx(min(left))


def test_equal_figures_go_to_the_first():
    assert best_place(np.array([0.1, 0.3 + 0.3, 0.1 + 0.5, 0.6])) == 1
    left = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.1], [0.3, 0.1, 0.2]])  # sums differ in a bit
    assert best_place(combine(left, [1, 1, 1], "mean")) == 0


def answers(rng, right, full=0.9, questions=60):
    whole = rng.random(questions) < full
    return Answers(whole & (rng.random(questions) < right), whole, np.full(questions, 0.25))


def test_one_task_retains_what_it_retains_alone():
    one = answers(np.random.default_rng(3), 0.7)
    found = combined_retained([one], [2.0], "worst", 5)
    alone = retained(one.correct, one.full, one.chances)
    assert found.value == pytest.approx(alone.value)
    weights = np.concatenate(list(resamples(len(one.full), [5, 0])))
    drawn = weights @ (one.correct - one.chances) / (weights @ (one.full - one.chances))
    assert found.ci == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    assert found.ci == pytest.approx(alone.ci, abs=0.05)  # Fieller's


def test_the_interval_of_several_tasks():
    rng = np.random.default_rng(1)
    tasks, weights = [answers(rng, 0.9), answers(rng, 0.5, questions=30)], [1.0, 2.0]
    for how in ("mean", "worst"):
        found = combined_retained(tasks, weights, how, 0)
        slow = []
        for _ in range(4000):  # draws of its own, so equal up to chance
            left = []
            for task in tasks:
                at = rng.integers(len(task.full), size=len(task.full))
                lead = (task.correct - task.chances)[at].mean()
                left.append(lead / (task.full - task.chances)[at].mean())
            slow.append(slow_combined(left, weights, how))
        assert found.ci == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.03)
        assert found.ci[0] < found.value < found.ci[1]
    nothing = Answers(np.zeros(8, bool), np.zeros(8, bool), np.full(8, 0.25))
    assert combined_retained([*tasks, nothing], [1, 1, 1], "mean", 0).value is None


def test_the_largest_loss_is_that_of_all_together():
    rng = np.random.default_rng(2)
    full = [Answers(one.full, one.full, one.chances) for one in (answers(rng, 1), answers(rng, 1))]

    def fallen(shares):
        return [
            Answers(one.full & (np.arange(60) < 60 * share), one.full, one.chances)
            for one, share in zip(full, shares, strict=True)
        ]

    steps = [full, fallen([0.9, 1.0]), fallen([0.9, 0.3]), fallen([0.2, 0.3])]
    removed = [None, 7, 5, 3]
    worst = combined_loss(steps, removed, [1, 1], "worst", 0)
    assert worst.step == 2 and worst.removed == 5 and 0 < worst.loss_ci[0] < worst.loss
    mean = combined_loss(steps, removed, [9, 1], "mean", 0)
    assert mean.step == 3 and mean.removed == 3
    losses = [combined_retained(step, [9, 1], "mean", 0).value for step in steps]
    assert mean.loss == pytest.approx(losses[2] - losses[3])
    assert combined_loss(steps[:1], [None], [1, 1], "mean", 0) is None
    assert combined_loss([full, full], [None, 2], [1, 1], "mean", 0) is None


def test_a_run_killed_before_its_own_line_is_written_goes_on(tiny, two, tmp_path):
    """All tasks have their step 3, the whole run has not; nothing is run again."""
    run = RunDirectory(tmp_path / "run")
    prune(tiny["llama"], two, out=run.path, **OPTIONS)
    steps, result = run.steps(), run.manifest["result"]
    lines = (run.path / "steps.jsonl").read_text().splitlines(keepends=True)
    (run.path / "steps.jsonl").write_text("".join(lines[:-1]))
    run.update(status="running", result=None)
    again = prune(
        tiny["llama"], two, out=run.path, progress=lambda label, *_: pytest.fail(label), **OPTIONS
    )
    assert again.state == "resumed" and run.steps() == steps and run.manifest["result"] == result
