"""``prune`` by any method of the registry, and blocks that are never removed."""

import html
import json
import re

import numpy as np
import pytest

from phaseprune.cli.main import main
from phaseprune.errors import UserError
from phaseprune.methods.judge import question_judge
from phaseprune.methods.objectives import SIGNS
from phaseprune.methods.rank import rank_blocks
from phaseprune.methods.registry import METHODS, TEXT
from phaseprune.probes.guards import Guard
from phaseprune.pruning.export_run import export_run
from phaseprune.pruning.prune import prune
from phaseprune.pruning.stopping import stop_rule
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.page import write_report
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.text import text_windows
from phaseprune.sweep.walk import sweep_scores, trace_scores
from test_methods import TEXT as TEXT_OF_FILE
from test_methods import eight, eight_dir, text_file  # noqa: F401
from test_prune import Stopped, findings

RANKED = [name for name, method in METHODS.items() if method.objective is None]
#: The models of one that merges are others than those without blocks: tests/test_laco.py.
SKIPPING = [name for name in RANKED if not METHODS[name].merges]
SEARCHES = [name for name, method in METHODS.items() if method.objective]


@pytest.fixture(scope="module")
def task(eight_dir, tmp_path_factory):  # noqa: F811
    """Twenty questions of two to four options."""
    path = tmp_path_factory.mktemp("task") / "questions.jsonl"
    words = ["blue", "green", "white", "black", "red"]
    path.write_text(
        "".join(
            json.dumps(
                {
                    "question": f"What is the colour of the sky {i}",
                    "choices": words[i % 2 : i % 2 + 2 + i % 3],
                    "answer": i % 2,
                }
            )
            + "\n"
            for i in range(20)
        )
    )
    return load_task(str(path))


def figures_without(decoder, task, removed):
    """Mean figures of the model without some blocks, by a walk of its own."""
    prepared = prepare(decoder, task)
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, removed=removed)
    decisions = prepared.decide(raw)
    return {
        "accuracy": decisions.correct[:, -1].mean(),
        "decision_margin": decisions.margins[:, -1].mean(),
        "loss": decisions.losses[:, -1].mean(),
        "debiased_margin": decisions.debiased.margins[:, -1].mean(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", SKIPPING)
def test_a_ranking_gives_the_order(eight, task, text_file, tmp_path, method):  # noqa: F811
    text = text_file if TEXT in METHODS[method].needs else None
    pruning = prune(
        eight, task, method=method, remove=2, calibration=8, text=text, seed=3, out=tmp_path / "r"
    )
    calibration, evaluation = split(task, 8, None, 3)
    found = rank_blocks(eight, text or calibration, method=method, remove=2, seed=3)
    assert tuple(pruning.removed) == found.order
    steps = pruning.steps
    assert [step.block_passes for step in steps] == [0, found.block_passes, 0, 0][: len(steps)]
    assert steps[0].seconds == steps[2].seconds == 0
    assert (steps[1].seconds > 0) or not found.block_passes
    assert {step.objective for step in steps} == {None}
    for step in steps:
        removed = [block for block in range(8) if block not in step.kept]
        expected = figures_without(eight, calibration, removed)
        assert step.calibration == pytest.approx(expected, abs=1e-5)
        expected = figures_without(eight, evaluation, removed)
        assert step.evaluation["decision_margin"] == pytest.approx(
            expected["decision_margin"], abs=1e-5
        )
        assert step.evaluation["accuracy"] == expected["accuracy"]
    run = RunDirectory(tmp_path / "r")
    assert run.candidates() == []
    assert run.manifest["ranking"]["order"] == list(found.order)
    scores = [np.nan if s is None else s for s in run.manifest["ranking"]["scores"]]
    np.testing.assert_allclose(scores, found.scores, rtol=1e-5)
    options = run.manifest["options"]
    assert options["method"] == method
    assert not {"objective", "search", "protect"} & set(options)
    looked = run.manifest["chosen_by"]["looked_at"]
    assert (looked is None) == (METHODS[method].needs == ())
    windows = len(text_windows(eight, TEXT_OF_FILE, 256))
    assert looked in (
        None,
        f"{windows} windows of plain text" if text else "8 calibration questions",
    )


@pytest.mark.slow
def test_hidden_states_may_be_of_text(eight, task, text_file):  # noqa: F811
    common = dict(method="block_influence", remove=3, calibration=8)
    by_text = prune(eight, task, text=text_file, **common)
    assert (
        tuple(by_text.removed) == rank_blocks(eight, text_file, method="block_influence").order[:3]
    )
    assert "windows of plain text" in by_text.chosen_by["looked_at"]
    small = Guard(windows=2, window_tokens=32, prompts=2, prompt_tokens=8, tokens=8)
    guarded = prune(eight, task, guard=small, **common)
    assert guarded.steps[1].guard and "calibration" in guarded.chosen_by["looked_at"]
    with pytest.raises(UserError, match="48 tokens behind the first 768"):
        prune(eight, task, text=text_file, guard=Guard(windows=99), **common)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_by_its_method_is_the_same_run(tiny, small_task, text_file, tmp_path, method):  # noqa: F811
    text = text_file if method == "sleb" else None
    common = dict(remove=2, calibration=4, text=text, out=tmp_path / "run")
    if method == "debiased_margin" and small_task.scoring == "text":
        with pytest.raises(UserError, match="texts have none"):
            prune(tiny["llama"], small_task, method=method, **common)
        return
    one = prune(tiny["llama"], small_task, method=method, **common)
    objective = METHODS[method].objective
    two = prune(tiny["llama"], small_task, objective=objective, **common)
    assert two.state == "finished" and two.to_dict() == one.to_dict()
    three = prune(tiny["llama"], small_task, method=method, objective=objective, **common)
    assert three.state == "finished"
    assert one.chosen_by["method"] == method
    options = RunDirectory(tmp_path / "run").manifest["options"]
    assert options["objective"] == objective and "method" not in options


@pytest.mark.slow
@pytest.mark.parametrize("when", ["hidden states", "step 1: calib", "step 1: eval", "step 2: eval"])
def test_an_interrupted_run_ranks_once(eight, task, tmp_path, when):  # noqa: F811
    options = dict(method="block_influence", remove=3, calibration=8)
    whole = prune(eight, task, out=tmp_path / "whole", **options)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(eight, task, out=tmp_path / "run", progress=interrupt, **options)
    run, labels = RunDirectory(tmp_path / "run"), []
    paid = run.manifest.get("ranking")
    assert (paid is None) == (when == "hidden states")
    again = prune(
        eight,
        task,
        out=tmp_path / "run",
        progress=lambda label, *_: labels.append(label),
        **options,
    )
    assert again.state == "resumed"
    assert ("hidden states" in labels) == (when == "hidden states")
    assert findings(run.steps()) == findings([step.to_dict() for step in whole.steps])
    assert [step.block_passes for step in again.steps] == [0, 8, 0, 0]
    assert paid is None or again.steps[1].seconds == paid["seconds"]
    assert again.result == whole.result


@pytest.mark.slow
def test_stop_rules_end_a_ranking(demo):
    task = load_task("demo", limit=300)
    pruning = prune(
        demo, task, method="tail", keep_accuracy=0.9, calibration=48, evaluation=120, protect=[11]
    )
    retained = [step.retained for step in pruning.steps]
    order = [step.removed for step in pruning.steps[1:]]
    assert order == [12, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0][: len(order)]
    assert all(share >= 0.9 for share in retained[:-1])
    assert retained[-1] < 0.9 and len(order) < 12
    assert pruning.result["chosen_step"] == len(retained) - 2


def slow_order(decoder, judge, objective, protect, number):
    """Every live block scored at every step, the protected ones then left out."""
    removed = []
    for _ in range(number):
        live = [b for b in range(len(decoder.blocks)) if b not in removed]
        sweep = sweep_scores(decoder, judge.rows, judge.needs_vocabulary, live)
        values = {
            block: SIGNS[objective] * judge.figures(scores)[objective]
            for block, scores in zip(live, sweep.scores, strict=True)
            if block not in protect
        }
        removed.append(max(values, key=values.get))
    return removed


@pytest.mark.slow
@pytest.mark.parametrize("search", ["exact", "racing"])
def test_what_is_protected_stays_in_a_search(demo, tmp_path, search):
    task = load_task("demo", limit=150)
    calibration = split(task, 48, 40, 0)[0]
    judge = question_judge(demo, prepare(demo, calibration))
    free = slow_order(demo, judge, "decision_margin", (), 2)
    protect = {0, free[0], free[1], 13}
    how = dict(search=search)
    if search == "racing":
        how |= dict(race_alpha=1e-9, race_tolerance=0)
    common = dict(remove=4, calibration=48, evaluation=40, protect=[*protect, 0], **how)
    pruning = prune(demo, task, out=tmp_path / "run", **common)
    assert pruning.removed == slow_order(demo, judge, "decision_margin", protect, 4)
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["options"]["protect"] == sorted(protect)
    for step in (1, 2, 3, 4):
        scored = {line["block"] for line in run.candidates() if line["step"] == step}
        assert scored == set(range(14)) - protect - set(pruning.removed[: step - 1])
    candidates = sorted(set(range(14)) - protect)
    every_one = candidates[-1] + 1 + sum(13 - block for block in candidates)
    if search == "exact":
        assert pruning.steps[1].block_passes == every_one
        return
    exact = prune(
        demo, task, **(common | {"search": "exact", "race_alpha": None, "race_tolerance": None})
    )
    for one, two in zip(exact.steps[1:], pruning.steps[1:], strict=True):
        assert two.block_passes + two.race["block_passes_saved"] == one.block_passes


@pytest.mark.slow
def test_a_race_in_reduced_precision_looks_again_at_its_best_two(demo):
    seen = set()

    def listen(label, done, total):
        if "in full precision" in label:
            seen.update(re.search(r"blocks ([\d, ]+) in", label)[1].split(", "))

    pruning = prune(
        demo,
        load_task("demo", limit=150),
        remove=2,
        calibration=48,
        evaluation=40,
        protect=[0, 1, 2, 3, 4, 8],
        search="racing",
        race_dtype="bfloat16",
        progress=listen,
    )
    assert {str(block) for block in pruning.removed} <= seen
    assert not seen & set("012348")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["step 3: race", "step 3: eval"])
def test_an_interrupted_race_with_protected_blocks_goes_on(demo, tmp_path, when):
    task = load_task("demo", limit=150)
    common = dict(
        remove=4,
        calibration=48,
        evaluation=40,
        protect=[2, 12],
        search="racing",
        race_dtype="own",
        race_tolerance=0.05,
    )
    whole = prune(demo, task, out=tmp_path / "whole", **common)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(demo, task, out=tmp_path / "run", progress=interrupt, **common)
    again = prune(demo, task, out=tmp_path / "run", **common)
    assert again.state == "resumed" and again.removed == whole.removed
    left = [[step.race["left"] for step in run.steps[1:]] for run in (again, whole)]
    assert left[0] == left[1]

    def exact(run):
        return [step.block_passes + step.race["block_passes_saved"] for step in run.steps[1:]]

    assert exact(again) == exact(whole)


@pytest.mark.parametrize("search", ["exact", "racing"])
def test_every_free_block_may_go(tiny, small_task, search):
    """The last step has one candidate."""
    pruning = prune(
        tiny["llama"], small_task, calibration=4, protect=[0, 3], remove=3, search=search
    )
    assert sorted(pruning.removed) == [1, 2, 4] and pruning.steps[-1].kept == [0, 3]
    assert stop_rule(5, free=[1, 2, 4]).most == 3 and stop_rule(5, free=range(5)).most == 4


@pytest.mark.slow
@pytest.mark.parametrize("search", ["exact", "racing"])
def test_what_is_protected_stays_in_a_search_by_text(tiny, small_task, text_file, search):  # noqa: F811
    common = dict(calibration=4, text=text_file, objective="text_loss", search=search)
    if search == "racing":
        common |= dict(race_alpha=1e-9, race_tolerance=0)
    free = prune(tiny["llama"], small_task, remove=1, **common).removed
    pruning = prune(tiny["llama"], small_task, remove=3, protect=free, **common)
    found = rank_blocks(tiny["llama"], text_file, method="sleb", remove=3, protect=free)
    assert tuple(pruning.removed) == found.order and free[0] not in found.order


@pytest.mark.parametrize("method", RANKED)
def test_what_is_protected_stays_with_a_method(eight, task, text_file, method):  # noqa: F811
    text = text_file if TEXT in METHODS[method].needs else None
    protect = [4] if METHODS[method].ends == (4, 2) else [1, 6]
    pruning = prune(eight, task, method=method, remove=1, calibration=8, text=text, protect=protect)
    assert not set(protect) & set(pruning.removed) and len(pruning.removed) == 1
    assert pruning.chosen_by["protect"] == protect


@pytest.mark.slow
def test_protections_and_method_are_part_of_a_run_only_if_given(tiny, small_task, tmp_path):
    common = dict(remove=2, calibration=4, out=tmp_path / "run")
    prune(tiny["llama"], small_task, **common)
    run = RunDirectory(tmp_path / "run")
    assert not {"protect", "method"} & set(run.manifest["options"])
    old = {key: value for key, value in run.manifest.items() if key != "chosen_by"}
    run.manifest_path.write_text(json.dumps(old | {"status": "running"}))
    again = prune(tiny["llama"], small_task, protect=(), **common)
    assert again.state == "resumed" and again.chosen_by is None
    assert write_report(run.path).exists()
    with pytest.raises(UserError, match="its option protect was null and now is"):
        prune(tiny["llama"], small_task, protect=[1], **common)
    with pytest.raises(UserError, match="its option method was null and now is"):
        prune(tiny["llama"], small_task, method="tail", **common)


@pytest.mark.slow
def test_the_model_card_says_what_chose(eight, task, tmp_path):  # noqa: F811
    common = dict(remove=2, calibration=8, out=tmp_path / "run", protect=[7])
    pruning = prune(eight, task, method="cka", **common)
    said = pruning.chosen_by["in_words"]
    assert "cka" in said and "arXiv 1905.00414" in said and "on 8 calibration questions" in said
    assert "Protected: 7." in said
    export_run(eight, RunDirectory(tmp_path / "run"))
    assert said in (tmp_path / "run/model/README.md").read_text()
    assert said in html.unescape(write_report(tmp_path / "run").read_text())


def run_command(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code, capsys.readouterr()


@pytest.mark.slow
def test_the_command_says_what_chose(tiny_dirs, question_file, tmp_path, capsys):
    words = [
        "prune",
        tiny_dirs["llama"],
        "--task",
        question_file,
        "--calibration",
        4,
        "--method",
        "reverse",
        "--protect",
        "0,2",
        "--ratio",
        0.4,
        "--no-export",
        "--out",
        tmp_path / "run",
    ]
    code, shown = run_command(words, capsys)
    out = " ".join(shown.out.split())
    assert code == 0 and "chosen by reverse (First blocks first; a control)" in out
    assert "Protected: 0, 2." in out and "blocks 1, 3." in out
    code, shown = run_command([*words, "--json"], capsys)
    found = json.loads(shown.out)
    assert code == 0 and found["result"]["removed"] == [1, 3]
    assert found["chosen_by"]["method"] == "reverse"


BAD = {
    "unknown": ("--method block_influense", "Did you mean 'block_influence'"),
    "another": ("--method sleb --objective loss", "sleb chooses by text_loss and --objective says"),
    "ranked": ("--method cka --objective loss", "figure of its own and --objective says loss"),
    "racing": ("--method cka --search racing", "--method cka ranks all blocks at once"),
    "race": ("--method tail --race-alpha 0.1", "--method tail ranks all blocks at once"),
    "window": ("--method angular", "say with --remove how many"),
    "no window": ("--method angular --remove 5 --protect 4,9", "no 5 neighbouring blocks are free"),
    "no text": ("--method taylor --remove 2", "--method taylor needs a text"),
    "text": ("--method tail --text x.txt", "--text x.txt goes with"),
    "words": ("--protect first", "--protect 'first' must be block indices"),
    "index": ("--protect 0,14", "--protect 14: the model has blocks 0 to 13"),
    "all": ("--protect 0,1,2,3,4,5,6,7,8,9,10,11,12,13", "nothing is left to remove"),
    "too many": ("--protect 0,1 --remove 13", "2 of them protected.*give 1 to 12"),
    "ratio": ("--protect 0,1,2 --ratio 0.9", "is 13 blocks and only 11 are free"),
    "own": (
        "--method taylor_plus --protect 4,5,6,7,8,9,10,11 --text x.txt",
        "keeps the first 4 and the last 2 blocks",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, says = BAD[name]
    code, shown = run_command(["prune", "demo", "--limit", 20, *words.split()], capsys)
    said = " ".join(shown.err.split())
    assert code == 2 and shown.out == ""
    assert re.search(says, said), said
    assert "Traceback" not in said and not (tmp_path / "runs").exists()
