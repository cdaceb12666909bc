"""Iterative Pruning among Decisive blocks: which may go at each step, when it ends, refusals."""

import json

import numpy as np
import pytest

from phaseprune.cli.main import main
from phaseprune.decision.dynamics import live_transition
from phaseprune.errors import UserError
from phaseprune.pruning import search as search_of_a_run
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import trace_scores
from test_prune import Stopped, findings

BLOCKS = 14
COUNTS = dict(calibration=48, evaluation=40)


@pytest.fixture(scope="module")
def demo_task():
    return load_task("demo", limit=120)


def slow_decisive(decoder, calibration, removed):
    """Decisive blocks of the model without some, by a trace of that model alone."""
    decisions = calibration.decide(
        trace_scores(decoder, calibration.rows, calibration.needs_vocabulary, removed=removed)
    )
    kept = [block for block in range(BLOCKS) if block not in removed]
    found = live_transition(decisions, kept, 0)
    return list(found.decisive_blocks)


def lines_of(pruning):
    return findings([step.to_dict() for step in pruning.steps])


@pytest.mark.slow
@pytest.mark.parametrize("protect", [(), (9, 13)])
def test_only_decisive_blocks_of_each_model_go_and_the_best_of_them(
    demo, demo_task, tmp_path, protect
):
    run = RunDirectory(tmp_path / "run")
    pruning = prune(
        demo, demo_task, remove=12, among="decisive", protect=protect, out=run.path, **COUNTS
    )
    calibration = prepare(demo, split(demo_task, 48, 40, 0)[0])
    lines, removed = run.candidates(), []
    for step in pruning.steps:
        assert step.decisive == slow_decisive(demo, calibration, removed)
        free = [block for block in step.decisive if block not in protect]
        tried = [line["block"] for line in lines if line["step"] == step.step + 1]
        if step is pruning.steps[-1]:
            assert free == [] == tried
            break
        assert tried == free
        scores = []
        for block in free:
            raw = trace_scores(
                demo,
                calibration.rows,
                calibration.needs_vocabulary,
                removed=[*removed, block],
                output_only=True,
            )
            scores.append(calibration.decide(raw).margins.mean())
        best = free[int(np.argmax(scores))]
        gone = pruning.steps[step.step + 1].removed
        assert gone == best or scores[free.index(gone)] == pytest.approx(max(scores), abs=1e-6)
        removed.append(gone)
    assert 0 < len(removed) < 12
    assert "no Decisive block is left" in pruning.result["stopped_by"]
    assert run.manifest["options"]["among"] == "decisive"
    assert "Only Decisive blocks could go" in pruning.chosen_by["in_words"]


@pytest.mark.slow
def test_an_interrupted_search_goes_on(demo, demo_task, tmp_path, monkeypatch):
    common = dict(remove=12, among="decisive", out=tmp_path / "run", **COUNTS)
    whole = prune(demo, demo_task, **common | {"out": None})
    go_on = search_of_a_run.take_step

    def stopping(search, *given):
        go_on(search, *given)
        if search.steps[-1].step == 2:
            raise Stopped

    monkeypatch.setattr(search_of_a_run, "take_step", stopping)
    with pytest.raises(Stopped):
        prune(demo, demo_task, **common)
    monkeypatch.setattr(search_of_a_run, "take_step", go_on)
    resumed = prune(demo, demo_task, **common)
    assert resumed.state == "resumed" and resumed.result == whole.result
    assert lines_of(resumed) == lines_of(whole)
    with pytest.raises(UserError, match="among"):
        prune(demo, demo_task, **common | {"among": "all"})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (dict(among="silent"), "among is 'silent' and must be one of all, decisive"),
        (dict(method="tail"), "method='tail' ranks all blocks at once"),
        (dict(search="racing"), "search='racing' does not"),
        (dict(granularity="mlp"), "granularity='mlp' does not"),
    ],
)
def test_what_does_not_go_with_it_is_refused(demo, demo_task, changed, says):
    with pytest.raises(UserError, match=says):
        prune(demo, demo_task, **{"remove": 2, "among": "decisive"} | COUNTS | changed)


def test_without_a_transition_it_is_refused(tiny, small_task, tmp_path):
    with pytest.raises(UserError, match="the full model has none on the 4 calibration questions"):
        prune(tiny["llama"], small_task, remove=1, among="decisive", calibration=4)


@pytest.mark.slow
def test_plan_offers_it(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["plan", "demo", "--limit", "100", "--out", str(tmp_path / "plan")])
    assert end.value.code == 0
    assert "--remove 9 --among decisive" in " ".join(capsys.readouterr().out.split())
    words = ["prune", "demo", "--limit", "100", "--remove", "2", "--among", "decisive"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--no-export", "--json", "--out", str(tmp_path / "run")])
    assert end.value.code == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert len(result["removed"]) == 2 and all(block >= 8 for block in result["removed"])
