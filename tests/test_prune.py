"""Pruning runs: what is written, resuming after kill -9, refusals, stopping, collapse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from phaseprune.errors import UserError
from phaseprune.pruning.export_run import export_run, run_to_export
from phaseprune.pruning.prune import prune
from phaseprune.pruning.stopping import stop_rule
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.runs.atomic import append_json_lines, read_json_lines, write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.scores import read_scores
from phaseprune.sweep.trace import trace

OPTIONS = dict(remove=3, calibration=4, seed=0)


def without_seconds(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def findings(lines):
    """Lines without what the work has cost: a run that goes on has no states of the step before."""
    cost = ("seconds", "block_passes")
    return [{k: v for k, v in line.items() if k not in cost} for line in lines]


def passes(lines):
    return [line["block_passes"] for line in lines]


def test_the_files_of_a_run(tiny, small_task, tmp_path):
    decoder = tiny["llama"]
    pruning = prune(decoder, small_task, out=tmp_path / "run", **OPTIONS)
    run = RunDirectory(tmp_path / "run")
    manifest, steps = run.manifest, run.steps()
    assert manifest["status"] == "finished" and manifest["command"] == "prune"
    assert manifest["calibration_questions"] == 4 and manifest["evaluation_questions"] == 4
    assert len(manifest["model"]["fingerprint"]) == len(manifest["task"]["fingerprint"]) == 64
    assert manifest["versions"]["torch"] and manifest["seed"] == 0
    assert [step["step"] for step in steps] == [0, 1, 2, 3]
    assert steps[0]["removed"] is None and steps[0]["kept"] == [0, 1, 2, 3, 4]
    assert [step["removed"] for step in steps[1:]] == pruning.removed
    assert manifest["result"]["removed"] == pruning.removed
    for before, after in zip(steps, steps[1:], strict=False):
        assert sorted([*after["kept"], after["removed"]]) == before["kept"]
        assert len(after["decision_margin_by_readout"]) == 6
        assert after["decision_margin_by_readout"][-1] == pytest.approx(
            after["evaluation"]["decision_margin"]
        )
    candidates = run.candidates()
    assert [c["block"] for c in candidates if c["step"] == 1] == [0, 1, 2, 3, 4]
    best = max((c for c in candidates if c["step"] == 2), key=lambda c: c["decision_margin"])
    assert best["block"] == steps[2]["removed"] and best["decision_margin"] == steps[2]["objective"]
    traced = json.loads(run.trace_path.read_text())
    assert traced["blocks"] == 5 and len(traced["readouts"]) == 6


def test_evaluation_figures_are_those_of_a_fresh_trace(tiny, small_task, tmp_path):
    decoder = tiny["qwen3"]
    pruning = prune(decoder, small_task, out=tmp_path / "run", **OPTIONS)
    _, evaluation = split(small_task, 4, None, 0)
    fresh = trace(decoder, evaluation)
    assert pruning.trace.to_dict() == fresh.to_dict()
    assert pruning.steps[0].evaluation["accuracy"] == fresh.accuracy.mean[-1]
    table = pq.read_table(tmp_path / "run/scores.parquet")
    columns = ["question_id", "readout", "option", "score", "probability", "gold"]
    if small_task.scoring == "letter":
        columns += ["debiased_score", "debiased_probability"]
    assert table.column_names == columns
    gold = (
        table.filter(table["gold"])
        .group_by(["question_id", "readout"])
        .aggregate([("option", "max"), ("option", "count")])
    )
    answers = {q.id: q.answer for q in evaluation.questions}
    for row in gold.to_pylist():
        assert row["option_count"] == 1 and row["option_max"] == answers[row["question_id"]]
    assert len(table) == 6 * evaluation.options.sum()
    np.testing.assert_array_equal(
        read_scores(tmp_path / "run/scores.parquet", evaluation.options, 6), fresh.raw_scores
    )
    total = table.group_by(["question_id", "readout"]).aggregate([("probability", "sum")])
    np.testing.assert_allclose(total["probability_sum"].to_numpy(), 1)
    if small_task.scoring == "letter":
        of = fresh.decisions
        taken = table["score"].to_numpy() - table["debiased_score"].to_numpy()
        np.testing.assert_allclose(taken, of.label_prior[np.isfinite(of.scores)], atol=1e-12)


def test_the_same_seed_gives_the_same_bytes(tiny, small_task, tmp_path):
    for name in ("a", "b"):
        prune(tiny["llama"], small_task, out=tmp_path / name, **OPTIONS)
    for file in ("trace.json", "scores.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    a, b = (RunDirectory(tmp_path / name) for name in ("a", "b"))
    assert without_seconds(a.steps()) == without_seconds(b.steps())
    assert without_seconds(a.candidates()) == without_seconds(b.candidates())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("when", ["full model", "calibration", "step 2: sweep", "step 2: eval"])
def test_an_interrupted_run_goes_on(tiny, small_task, tmp_path, when):
    decoder = tiny["llama"]
    undisturbed = prune(decoder, small_task, out=tmp_path / "whole", **OPTIONS)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(decoder, small_task, out=tmp_path / "run", progress=interrupt, **OPTIONS)
    run = RunDirectory(tmp_path / "run")
    kept, scored = run.steps(), run.candidates()
    assert len(kept) == (2 if "step 2" in when else 0)
    labels = []
    resumed = prune(
        decoder,
        small_task,
        out=tmp_path / "run",
        progress=lambda label, *_: labels.append(label),
        **OPTIONS,
    )
    assert resumed.state == "resumed"
    assert run.steps()[: len(kept)] == kept and run.candidates()[: len(scored)] == scored
    if "step 2" in when:
        assert not any(label.startswith(("full model", "step 1")) for label in labels)
    if when == "step 2: eval":  # its candidates were scored, so the sweep is not paid for again
        assert not any(label.startswith("step 2: sweep") for label in labels)
    whole = [step.to_dict() for step in undisturbed.steps]
    assert findings(run.steps()) == findings(whole)
    assert all(a >= b for a, b in zip(passes(run.steps()), passes(whole), strict=True))
    assert resumed.result == undisturbed.result
    again = prune(decoder, small_task, out=tmp_path / "run", **OPTIONS)
    assert again.state == "finished" and again.to_dict() == resumed.to_dict()


@pytest.mark.slow
def test_kill_minus_nine_and_the_same_command_again(tiny_dirs, question_file, tmp_path):
    command = [
        sys.executable,
        "-m",
        "phaseprune",
        "prune",
        str(tiny_dirs["llama"]),
        "--task",
        str(question_file),
        "--remove",
        "4",
        "--calibration",
        "4",
        "--no-export",
        "--quiet",
    ]
    slow = (
        "import time, phaseprune.cli.main as m\n"
        "from phaseprune.sweep.states import Walker\n"
        "plain = Walker.run\n"
        "def slowly(*a, **k): time.sleep(0.2); return plain(*a, **k)\n"
        "Walker.run = slowly\n"
        f"m.main({[*command[3:], '--out', str(tmp_path / 'run')]!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", slow])
    steps = tmp_path / "run" / "steps.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(read_lines(steps)) < 3:
        time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = read_lines(steps)
    assert 3 <= len(kept) < 5
    assert RunDirectory(tmp_path / "run").manifest["status"] == "running"
    for out in ("run", "undisturbed"):
        subprocess.run([*command, "--out", str(tmp_path / out)], check=True)
    again, undisturbed = (RunDirectory(tmp_path / out) for out in ("run", "undisturbed"))
    assert again.steps()[: len(kept)] == kept
    assert findings(again.steps()) == findings(undisturbed.steps())
    assert again.manifest["result"] == undisturbed.manifest["result"]


def read_lines(path: Path):
    raw = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in raw[: raw.rfind("\n") + 1].splitlines()]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "steps.jsonl"
    append_json_lines(path, [{"step": 0}, {"step": 1}])
    with open(path, "a") as handle:
        handle.write('{"step": 2, "remo')
    assert read_json_lines(path) == [{"step": 0}, {"step": 1}]
    append_json_lines(path, [{"step": 2}])
    assert read_json_lines(path) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(remove=2), "option remove was 3 and now is 2"),
        (dict(seed=1), "seed was 0 and now is 1"),
        (dict(calibration=3), "option calibration_questions was 4 and now is 3"),
        (dict(objective="loss"), "option objective was"),
    ],
)
def test_another_command_on_the_same_directory_is_refused(tiny, small_task, tmp_path, change, says):
    prune(tiny["llama"], small_task, out=tmp_path / "run", **OPTIONS)
    before = (tmp_path / "run/steps.jsonl").read_bytes()
    with pytest.raises(UserError, match=f"holds another run: its {says}"):
        prune(tiny["llama"], small_task, out=tmp_path / "run", **(OPTIONS | change))
    assert (tmp_path / "run/steps.jsonl").read_bytes() == before


def test_another_model_task_or_command_is_refused(tiny, small_task, tmp_path):
    prune(tiny["llama"], small_task, out=tmp_path / "run", **OPTIONS)
    with pytest.raises(UserError, match="its model (family|fingerprint) was"):
        prune(tiny["gpt2"], small_task, out=tmp_path / "run", **OPTIONS)
    fewer = small_task.head(7)
    with pytest.raises(UserError, match="its task questions was 8 and now is 7"):
        prune(tiny["llama"], fewer, out=tmp_path / "run", **OPTIONS)
    with pytest.raises(UserError, match='its command was "prune"'):
        trace(tiny["llama"], small_task, out=tmp_path / "run")


def test_a_directory_that_is_no_run_is_left_alone(tiny, small_task, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not a run directory"):
        prune(tiny["llama"], small_task, out=tmp_path / "thesis", **OPTIONS)
    assert os.listdir(tmp_path / "thesis") == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(remove=5), "remove=5: the model has 5 blocks.* 1 to 4"),
        (dict(remove=0), "remove=0"),
        (dict(ratio=1.0), "ratio must lie between 0 and 1"),
        (dict(ratio=0.05), "ratio=0.05 of 5 blocks is 0 blocks"),
        (dict(remove=1, ratio=0.5), "give one of them"),
        (dict(keep_accuracy=1.5), "keep_accuracy must lie"),
    ],
)
def test_stop_rules_out_of_range(options, says):
    with pytest.raises(UserError, match=says):
        stop_rule(5, **options)


def test_stop_rules():
    assert stop_rule(32, ratio=0.406).most == 13  # the paper's 40.6 %
    assert stop_rule(30).keep_accuracy == 0.9 and stop_rule(30).most == 29
    both = stop_rule(30, remove=4, keep_accuracy=0.8)
    assert both.reason(4, 0.9) and both.reason(2, 0.7) and not both.reason(2, 0.9)


@pytest.mark.slow
def test_keep_accuracy_chooses_the_last_step_that_keeps_it(demo):
    task = load_task("demo", limit=300)
    pruning = prune(demo, task, keep_accuracy=0.9, calibration=48, evaluation=120)
    retained = [step.retained for step in pruning.steps]
    assert retained[0] == 1 and all(share >= 0.9 for share in retained[:-1])
    assert retained[-1] < 0.9 or len(retained) == len(demo.blocks)
    chosen = pruning.result["chosen_step"]
    assert chosen == len(retained) - 2 if retained[-1] < 0.9 else len(retained) - 1
    assert pruning.result["retained"] == retained[chosen] >= 0.9
    assert len(pruning.removed) == chosen


def test_keep_accuracy_of_a_model_at_chance_is_refused(tiny, tmp_path):
    questions = load_task("demo", limit=40)
    balanced = questions.with_questions([q for q in questions.questions])
    decoder = tiny["llama"]
    accuracy = trace(decoder, split(balanced, 8, None, 0)[1]).accuracy.mean[-1]
    if accuracy > 0.25:  # luck of the random model; choose the other way round
        pytest.skip("the random model happens to be above chance")
    with pytest.raises(UserError, match="not above chance .* give remove"):
        prune(decoder, balanced, keep_accuracy=0.9, calibration=8, out=tmp_path / "run")


def test_export_of_a_run(tiny, small_task, tmp_path):
    decoder = tiny["llama"]
    pruning = prune(decoder, small_task, out=tmp_path / "run", **OPTIONS)
    run = run_to_export(tmp_path / "run")
    exported = export_run(decoder, run)
    assert exported.removed == pruning.removed and Path(exported.path) == tmp_path / "run/model"
    notes = json.loads((tmp_path / "run/model/phaseprune.json").read_text())
    assert notes["figures"]["pruned"]["accuracy"] == pruning.steps[-1].evaluation["accuracy"]
    assert run.manifest["result"]["export"]["max_abs_logit_difference"] <= 1e-4
    one = export_run(decoder, run, step=1, out=tmp_path / "one")
    assert one.removed == pruning.removed[:1]
    with pytest.raises(UserError, match="steps 0 to 3, and no step 9"):
        export_run(decoder, run, step=9, out=tmp_path / "nine")
    with pytest.raises(UserError, match="no block was removed at step 0"):
        export_run(decoder, run, step=0, out=tmp_path / "zero")
    with pytest.raises(UserError, match="is not the model of"):
        export_run(tiny["gpt2"], run, out=tmp_path / "other")


def test_only_pruning_runs_are_exported(tiny, small_task, tmp_path):
    trace(tiny["llama"], small_task, out=tmp_path / "run")
    with pytest.raises(UserError, match="run of trace, which removes no blocks"):
        run_to_export(tmp_path / "run")
    with pytest.raises(UserError, match="not a run directory"):
        run_to_export(tmp_path / "nowhere")


@pytest.mark.slow
def test_an_exported_model_measures_as_the_run_said(tiny, small_task, tmp_path):
    """The reloaded checkpoint gives every evaluation question the same decision."""
    from phaseprune.decoder.load import load_model

    decoder = tiny["gemma2"]
    pruning = prune(decoder, small_task, out=tmp_path / "run", **OPTIONS)
    exported = export_run(decoder, run_to_export(tmp_path / "run"))
    _, evaluation = split(small_task, 4, None, 0)
    again = trace(load_model(exported.path), evaluation)
    last = pruning.steps[-1]
    assert (
        "".join("01"[int(c)] for c in again.decisions.correct[:, -1])
        == (last.evaluation["correct"])
    )
    margin = again.decision_margin.mean[-1]
    assert margin == pytest.approx(last.evaluation["decision_margin"], abs=1e-5)
