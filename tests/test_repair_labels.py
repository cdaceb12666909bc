"""Choosing without the label prior, and taking it off an exported model, against the slow way."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from phaseprune import prune
from phaseprune.cli.main import main
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.pruning.export_run import export_run
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import trace_scores

COUNTS = dict(calibration=40, evaluation=60, seed=0)


@pytest.fixture(scope="module")
def demo():
    return load_model("demo")


@pytest.fixture(scope="module")
def task():
    return load_task("demo", limit=120)


@pytest.fixture(scope="module")
def exported(demo, task, tmp_path_factory):
    """A run that removed two blocks by the debiased margin, and its export with the correction."""
    run = RunDirectory(tmp_path_factory.mktemp("repair") / "run")
    pruning = prune(demo, task, remove=2, objective="debiased_margin", out=run.path, **COUNTS)
    return pruning, run, export_run(demo, run, repair_labels=True)


@pytest.mark.slow
def test_the_best_debiased_margin_is_chosen(demo, task, exported):
    pruning, run, _ = exported
    calibration = prepare(demo, split(task, 40, 60, 0)[0])
    removed = []
    for number in (1, 2):
        values = {}
        for block in (b for b in range(len(demo.blocks)) if b not in removed):
            raw = trace_scores(
                demo,
                calibration.rows,
                calibration.needs_vocabulary,
                removed=[*removed, block],
                output_only=True,
            )
            values[block] = calibration.decide(raw).debiased.margins.mean()
        lines = {c["block"]: c for c in run.candidates() if c["step"] == number}
        found = {block: line["debiased_margin"] for block, line in lines.items()}
        assert found == pytest.approx(values, abs=1e-5)
        removed.append(pruning.removed[number - 1])
        assert values[removed[-1]] == pytest.approx(max(values.values()), abs=1e-6)
        step = pruning.steps[number]
        assert (
            step.objective
            == step.calibration["debiased_margin"]
            == pytest.approx(max(values.values()), abs=1e-5)
        )


def test_the_correction_is_that_of_the_exported_model_by_itself(task, exported):
    """Plain transformers on the exported checkpoint, prompt by prompt, and the line of Python."""
    pruning, run, export = exported
    figures = json.loads((run.model_path / "phaseprune.json").read_text())["figures"]
    correction = figures["label_correction"]
    model = AutoModelForCausalLM.from_pretrained(export.path)
    tokenizer = AutoTokenizer.from_pretrained(export.path)
    evaluation = split(task, 40, 60, 0)[1]
    right, centred = [], []
    for question, encoded in zip(
        evaluation.questions, encode_task(evaluation, tokenizer), strict=True
    ):
        assert [tokens[-1] for tokens in encoded.continuations] == correction["token_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([encoded.context])).logits
        labels = logits[0, -1, correction["token_ids"]].double().numpy()
        centred.append(labels - labels.mean())
        found = {"torch": torch, "logits": logits}
        exec(correction["in_python"], found)
        right.append(int(found["answer"]) == question.answer)
    np.testing.assert_allclose(correction["subtract"]["4"], np.mean(centred, axis=0), atol=1e-4)
    debiased = pruning.steps[-1].evaluation["debiased"]["accuracy"]
    # The run's own figure is cross-fitted, so a few near ties may differ.
    assert np.mean(right) == pytest.approx(debiased, abs=0.06)
    assert correction["labels"] == ["A", "B", "C", "D"] and correction["questions"] == 60
    card = (run.model_path / "README.md").read_text()
    assert correction["in_python"] in card and "this model without the label prior" in card


def test_without_being_asked_for_it_is_not_there(demo, exported, tmp_path):
    _, run, _ = exported
    export_run(demo, run, out=tmp_path / "plain")
    figures = json.loads((tmp_path / "plain" / "phaseprune.json").read_text())["figures"]
    assert "label_correction" not in figures
    assert figures["debiased"]["retained_ci"][0] <= figures["debiased"]["retained"]


@pytest.mark.slow
def test_each_of_several_tasks_is_corrected_by_its_own_label_prior(demo, task, tmp_path):
    """As a run by that task alone corrects it, whose model is the same."""
    tasks = [
        replace(task.with_questions(part), name=name)
        for name, part in (("one", task.questions[:60]), ("two", task.questions[60:]))
    ]
    counts = dict(calibration=20, evaluation=30)
    run, alone = (RunDirectory(tmp_path / name) for name in ("run", "alone"))
    pruning = prune(demo, tasks, remove=1, out=run.path, **counts)
    export_run(demo, run, repair_labels=True)
    figures = json.loads((run.model_path / "phaseprune.json").read_text())["figures"]
    found = [one["label_correction"] for one in figures["tasks"]]
    assert found[0]["subtract"] != found[1]["subtract"] and found[0]["labels"] == list("ABCD")
    others = [block for block in range(len(demo.blocks)) if block not in pruning.removed]
    prune(demo, tasks[1], remove=1, protect=others, out=alone.path, **counts)
    export_run(demo, alone, repair_labels=True)
    figures = json.loads((alone.model_path / "phaseprune.json").read_text())["figures"]
    assert figures["label_correction"] == found[1]


def test_texts_have_nothing_to_take_off(demo, task, tmp_path):
    texts = load_task("demo", scoring="text", limit=30)
    with pytest.raises(UserError, match="texts have none"):
        prune(demo, texts, remove=1, objective="debiased_margin")
    with pytest.raises(UserError, match="give one task|texts have none"):
        prune(demo, [task, texts], remove=1, objective="debiased_margin")
    prune(demo, texts, remove=1, calibration=8, evaluation=10, out=tmp_path / "run")
    with pytest.raises(UserError, match="scored by texts"):
        export_run(demo, RunDirectory(tmp_path / "run"), repair_labels=True)


def test_a_race_has_no_label_prior_of_all(demo, task):
    with pytest.raises(UserError, match="all calibration questions at once"):
        prune(demo, task, remove=1, objective="debiased_margin", search="racing")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prune", "demo", "--remove", "1", "--no-export", "--repair-labels"), "--no-export"),
        (("prune", "demo", "--remove", "1", "--scoring", "text", "--repair-labels"), "texts"),
        (("export", "demo", "--remove", "1", "--out", "there", "--repair-labels"), "run of prune"),
        (
            (
                "prune",
                "demo",
                "--remove",
                "1",
                "--scoring",
                "text",
                "--objective",
                "debiased_margin",
            ),
            "texts have none",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_an_older_version_says_so(demo, exported, tmp_path):
    _, run, _ = exported
    lines = (run.path / "steps.jsonl").read_text().splitlines()
    old = RunDirectory(tmp_path / "old")
    old.path.mkdir()
    old.manifest_path.write_text(run.manifest_path.read_text())
    stripped = [{k: v for k, v in json.loads(line).items() if k != "label_prior"} for line in lines]
    (old.path / "steps.jsonl").write_text("".join(json.dumps(one) + "\n" for one in stripped))
    with pytest.raises(UserError, match="did not keep label priors"):
        export_run(demo, old, repair_labels=True)
    export_run(demo, old, out=tmp_path / "model")


@pytest.mark.slow
def test_a_model_that_was_exported_before_stays_and_this_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["prune", "demo", "--limit", "60", "--calibration", "20", "--out", "run"]

    def run(*more):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert not ended.value.code
        return capsys.readouterr()

    run("--remove", "1")
    before = (tmp_path / "run/model/phaseprune.json").read_bytes()
    told = " ".join(run("--remove", "1", "--repair-labels").err.split())
    assert "was exported before, without the label prior" in told and "--out DIRECTORY" in told
    assert (tmp_path / "run/model/phaseprune.json").read_bytes() == before
    words[-1] = "none"
    told = run(
        "--remove",
        "3",
        "--keep-accuracy",
        "1.0",
        "--protect",
        "3,4,5,6,7,8,9,10,11,12,13",
        "--repair-labels",
    )
    assert "nothing was exported" in " ".join(told.err.split())
