"""All experiments of the paper in one run: settings, verdicts, resume, what is left out, report."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import QUESTIONS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.replication import experiments, judges
from phaseprune.replication.claims import CLAIMS
from phaseprune.replication.page import claims_markdown, write_paper_report
from phaseprune.replication.paper import open_paper, paper, task_folders
from phaseprune.replication.results import read_results
from phaseprune.replication.sections import SECTIONS
from phaseprune.replication.settings import (
    EXPERIMENTS,
    Settings,
    read_configuration,
    resolve,
    settings_of,
)
from phaseprune.replication.words import shown_name
from phaseprune.results import open_run

#: As small as every experiment still says something on the bundled model.
SMALL = Settings(
    calibration=32,
    evaluation=96,
    probe=40,
    noise=(0.1, 1.0),
    noise_seeds=1,
    draws=2,
    most=2,
    ladder=(3, 10),
    heal_steps=2,
    heal_batch=4,
)


@pytest.fixture(scope="module")
def run(demo, tmp_path_factory):
    """A finished run of all experiments; not to be changed."""
    out = tmp_path_factory.mktemp("paper") / "run"
    found = paper(demo, [load_task("demo", limit=200)], out=out, settings=SMALL, arguments="demo")
    write_paper_report(out)
    return found


@pytest.fixture
def results(run):
    """What its task came to, to be changed at will."""
    return copy.deepcopy(run.tasks[0].results)


# Settings and configurations


@given(st.integers(2, 80))
def test_defaults_do_for_any_number_of_blocks(blocks):
    settings = resolve(Settings(skip=("heal",) if blocks < 4 else ()), blocks)
    assert 1 <= settings.remove <= blocks - 1
    assert len(settings.ladder) == min(6, settings.remove)
    assert settings.ladder[-1] == settings.remove and min(settings.ladder) >= 1


@pytest.mark.parametrize(
    "given, told",
    [
        ({"skip": ("prun",)}, "Did you mean 'prune'"),
        ({"skip": ("prune",)}, "similarity needs its run"),
        ({"skip": ("trace",)}, "needs its run"),
        ({"skip": EXPERIMENTS}, "none is left"),
        ({"probe": 1}, "probe=1"),
        ({"objective": "text_loss"}, "text_loss"),
        ({"objective": "margin"}, "margin"),
        ({"search": "quick"}, "quick"),
        ({"noise": (-1.0,)}, "noise"),
        ({"noise_seeds": 0}, "noise_seeds"),
        ({"ablation": "zero"}, "zero"),
        ({"draws": 1}, "draws=1"),
        ({"heal_steps": 0}, "steps"),
        ({"heal_seeds": 0}, "heal_seeds"),
        ({"remove": 14}, "14"),
        ({"ladder": (3,)}, "ladder"),
        ({"ladder": (3, 3)}, "ladder"),
        ({"ladder": (3, 12)}, "step 12"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(given, told):
    with pytest.raises(UserError, match=re.escape(told)):
        resolve(Settings(**given), 14)


def test_a_ladder_may_not_do_where_nothing_is_healed():
    assert resolve(Settings(ladder=(99,), skip=("heal",)), 14).ladder == (99,)


def test_settings_of_options():
    found = settings_of(
        {
            "noise": "0.1, 0.2",
            "ladder": [1, 2],
            "draws": 3,
            "skip": "heal,lens",
            "scoring": "text",
            "probe": None,
        }
    )
    assert found == Settings(noise=(0.1, 0.2), ladder=(1, 2), draws=3, skip=("heal", "lens"))


@pytest.mark.parametrize(
    "given",
    [
        {"noise": "a,b"},
        {"ladder": [1, "x"]},
        {"draws": "three"},
        {"draws": True},
        {"probe": 2.5},
    ],
)
def test_values_of_another_kind_are_named(given):
    with pytest.raises(UserError, match=next(iter(given))):
        settings_of(given)


def test_a_configuration(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: demo\nheal-steps: 3\ntasks:\n  a: {noise-seeds: 2}\n  b:\n")
    found = read_configuration(path, ["heal_steps"], ["noise_seeds"])
    assert (found.model, found.options) == ("demo", {"heal_steps": 3})
    assert found.tasks == {"a": {"noise_seeds": 2}, "b": {}}
    path.write_text("tasks: [a, b]\n")
    assert read_configuration(path, [], []).tasks == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    "text, told",
    [
        ("- a\n", "must hold"),
        ("a: [", "cannot be read"),
        ("tasks: a\n", "`tasks:`"),
        ("tasks: [a]\nprobes: 3\n", "'probes'. Did you mean"),
        ("tasks: {a: {heal_step: 1}}\n", "'heal_step' of a"),
        (None, "no such file"),
    ],
)
def test_bad_configurations_are_named(tmp_path, text, told):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match="(?i)" + re.escape(told)):
        read_configuration(path, ["probe"], ["heal_steps"])


@given(st.lists(st.sampled_from(["a", "b/a", "a.jsonl", "c d", "..", "lm_eval:x"]), unique=True))
def test_every_task_has_a_folder_of_its_own(names):
    if not names:
        with pytest.raises(UserError, match="at least one task"):
            task_folders(names)
        return
    folders = task_folders(names)
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"\w[\w.-]*", folder) for folder in folders)


def test_a_task_twice_is_refused():
    with pytest.raises(UserError, match="names a twice"):
        task_folders(["a", "b", "a"])


# Verdicts


def test_every_claim_is_judged_once_and_shown_once():
    shown = [name for section in SECTIONS for name in section.claims]
    assert sorted(shown) == sorted(claim.name for claim in CLAIMS)
    assert {claim.experiment for claim in CLAIMS} <= set(EXPERIMENTS)
    for claim in CLAIMS:
        assert claim.find({}).verdict == "undecided"


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, sharpness, bounds, verdict",
    [
        ("step", 0.7, [0.5, 0.9], "agrees"),
        ("step", 0.4, [0.3, 0.49], "partly"),
        ("step", 0.6, [0.49, 0.7], "undecided"),
        ("step", 0.49, [0.4, 0.5], "undecided"),
        ("gradual", 0.9, [0.8, 1.0], "disagrees"),
        ("several", 0.9, [0.8, 1.0], "partly"),
        ("unclear", 0.9, [0.8, 1.0], "undecided"),
        (None, 0.9, [0.8, 1.0], "undecided"),
    ],
)
def test_a_transition_is_sharp_or_gradual(results, shape, sharpness, bounds, verdict):
    transition = results["trace"]["transition"]
    assert transition["found"]
    transition |= {
        "shape": shape,
        "sharpness": sharpness,
        "sharpness_ci": bounds,
        "rise": [6, 9],
        "rise_ci": [[5, 6], [8, 10]],
    }
    found = judges.sharp(results)
    assert found.verdict == verdict
    if shape == "step":
        enough = "would tell" in found.text
        assert enough == (verdict == "undecided")
        told = f"{100 * sharpness:.0f} % of the rise (95 % CI {100 * bounds[0]:.0f} to"
        assert told in found.text


@pytest.mark.parametrize(
    "accuracy, informed, questions, verdict",
    [
        (0.9, True, 200, "disagrees"),
        (0.9, False, 200, "undecided"),
        (0.9, None, 200, "undecided"),
        (0.35, True, 200, "undecided"),
        (0.35, True, 2000, "disagrees"),
    ],
)
def test_no_transition_speaks_against_a_sharp_one_where_it_would_be_found(
    results, accuracy, informed, questions, verdict
):
    trace = results["trace"]
    trace |= {"questions": questions, "chance": 0.25, "raw_transition": None}
    trace["accuracy"]["mean"][-1] = accuracy
    trace["transition"] |= {"found": False, "reason": "flat", "informed": informed}
    found = judges.sharp(results)
    assert found.verdict == verdict and "No transition was found: flat." in found.text


def phased(low, high):
    ends = {"mean": (low + high) / 2, "ci_low": low, "ci_high": high}
    return ends | {"significant": low > 0 or high < 0}


@pytest.mark.parametrize(
    "difference, verdict",
    [
        (phased(0.1, 0.3), "agrees"),
        (phased(-0.3, -0.1), "disagrees"),
        (phased(-0.1, 0.1), "undecided"),
    ],
)
def test_one_sided_options(results, difference, verdict):
    level = {"mean": 0.2, "ci_low": 0.1, "ci_high": 0.3}
    results["trace"]["option_frequency_distance"] = {
        "phases": {"silent": level, "decisive": level, "difference": difference}
    }
    assert judges.one_sided(results).verdict == verdict


def fell(kind, step=5, ci=(5, 5), span=(4, 5), span_ci=((4, 4), (5, 5)), **more):
    """A fitted fall of a pruning run."""
    return {
        "found": True,
        "kind": kind,
        "step": step,
        "ci": list(ci),
        "before": 0.9,
        "after": 0.1,
        "r2": 0.9,
        "line_r2": 0.5,
        "span": list(span),
        "span_ci": [list(one) for one in span_ci],
        "p_value": 0.001,
        "removed": 3,
        "phase": "silent",
    } | more


@pytest.mark.parametrize(
    "fall, verdict",
    [
        (fell("cliff", ci=(4, 6)), "agrees"),
        (fell("cliff", before=0.6), "partly"),
        (fell("cliff", after=0.6), "partly"),
        (fell("cliff", ci=(4, 7)), "partly"),
        (fell("slope", span=(4, 9), span_ci=((2, 5), (8, 9))), "partly"),
        (fell("slope", span=(3, 9), span_ci=((1, 5), (8, 9))), "disagrees"),
        (fell("slope", span=(0, 9), span_ci=((0, 1), (8, 9))), "disagrees"),
        (fell("several cliffs", span=(3, 7), span_ci=((3, 3), (7, 7))), "partly"),
        (fell("unclear", span=(4, 7), span_ci=((4, 4), (5, 7))), "undecided"),
        (fell(None), "undecided"),
        (fell("cliff", found=False), "undecided"),
        (None, "undecided"),
    ],
)
def test_a_cliff_after_a_plateau(results, fall, verdict):
    result = results["prune"]["result"]
    result["cliff"] = fall
    assert judges.plateau(results).verdict == verdict
    if not fall or not fall["found"]:
        assert judges.silent_hit(results).verdict == "undecided"


def test_the_fit_of_an_older_run_is_read(results):
    """It knew no kinds, so it can neither speak for a cliff nor against one."""
    result = results["prune"]["result"]
    result["cliff"] = {"step": 5, "removed": 3, "phase": "silent", "loss": 0.5, "loss_ci": None}
    names = ("found", "step", "ci", "before", "after", "r2", "line_r2", "p_value")
    result["dynamics"]["cliff_fit"] = {name: fell("cliff")[name] for name in names}
    found = judges.plateau(results)
    assert found.verdict == "undecided" and "an older version did not test" in found.text
    for one in result["dynamics"]["transitions"]:
        one.pop("state")
    result["collapsed_at_step"] = 3
    assert judges.vanishes(results).verdict == "undecided"


@pytest.mark.parametrize(
    "phases, interval, verdict",
    [
        (["decisive", "decisive", "silent"], [3, 3], "agrees"),
        (["silent", "decisive", "silent"], [3, 3], "partly"),
        (["silent", "silent", "decisive"], [3, 3], "disagrees"),
        (["decisive", "decisive", "silent"], [2, 3], "undecided"),
        (["decisive", None, None], [3, 3], "undecided"),
    ],
)
def test_what_is_removed_at_the_cliff(results, phases, interval, verdict):
    steps = [{"removed": None, "phase": None}]
    steps += [{"removed": block, "phase": phase} for block, phase in enumerate(phases)]
    results["prune"]["steps"] = steps
    result = results["prune"]["result"]
    result["cliff"] = fell("cliff", 3, interval)
    assert judges.silent_hit(results).verdict == verdict
    low, high = interval
    for kind in ("slope", "unclear"):  # from behind the last model before the fall on
        result["cliff"] = fell(kind, 3, (3, 3), (low, high), ((low - 1, low), (high, high)))
        assert judges.silent_hit(results).verdict == verdict
    result["cliff"] = fell("several cliffs", 3, (3, 3), (low, 3), ((low, low), (3, high)))
    assert judges.silent_hit(results).verdict == verdict


FOUND, GONE, UNCLEAR = "found", "gone", "unclear"


@pytest.mark.parametrize(
    "states, collapsed, verdict",
    [
        ([FOUND, FOUND, FOUND, GONE], 3, "agrees"),
        ([FOUND, FOUND, GONE, GONE], 3, "agrees"),
        ([FOUND, UNCLEAR, UNCLEAR, GONE], 3, "agrees"),
        ([FOUND, GONE, GONE, GONE], 3, "partly"),
        ([FOUND, GONE, FOUND, GONE], 3, "partly"),
        ([FOUND, FOUND, FOUND, FOUND], 3, "disagrees"),
        ([FOUND, FOUND, FOUND, UNCLEAR], 3, "undecided"),
        ([FOUND, FOUND, UNCLEAR, FOUND], 3, "disagrees"),
        ([UNCLEAR, GONE, GONE, GONE], 3, "undecided"),
        ([FOUND, FOUND, FOUND, GONE], None, "undecided"),
    ],
)
def test_the_transition_of_a_collapsed_model(results, states, collapsed, verdict):
    result = results["prune"]["result"]
    one = result["dynamics"]["transitions"][0]
    result["dynamics"]["transitions"] = [
        one | {"step": step, "found": state == FOUND, "state": state, "readout": 4, "ci": [4, 4]}
        for step, state in enumerate(states)
    ]
    result["collapsed_at_step"] = collapsed
    assert judges.vanishes(results).verdict == verdict


def test_phases_compared(results):
    result = results["phasewise"]["result"]
    for raw, debiased, verdict in (
        ("agrees", "agrees", "agrees"),
        ("agrees", "partly", "partly"),
        ("partly", "agrees", "partly"),
        ("disagrees", "agrees", "disagrees"),
        ("undecided", "undecided", "undecided"),
    ):
        result["verdict"], result["debiased"]["verdict"] = raw, debiased
        found = judges.phases(results)
        assert found.verdict == verdict
        assert ("label prior taken off" in found.text) and "Decisive - Silent is" in found.text
    result["verdict"], result["debiased"] = "agrees", None  # texts
    assert judges.phases(results).verdict == "agrees"


def test_features_and_decisions(results):
    models = results["similarity"]["models"]
    for collapsed, alike, cka, verdict in (
        (True, "states", 0.9, "agrees"),
        (True, "states", 0.2, "partly"),
        (True, "decisions", 0.9, "disagrees"),
        (True, None, 0.9, "undecided"),
        (False, "states", 0.9, "undecided"),
    ):
        for model in models:
            model |= {"collapsed": collapsed, "more_alike": alike}
            model["cka_output"] |= {"mean": cka}
        assert judges.features(results).verdict == verdict


@pytest.mark.parametrize(
    "value, low, high, verdict",
    [
        (0.02, 0.015, 0.03, "agrees"),
        (0.2, 0.1, 0.3, "disagrees"),
        (0.05, 0.03, 0.1, "undecided"),
        (0.05, None, None, "disagrees"),
        (None, None, None, "disagrees"),
        (0.2, 0.03, None, "undecided"),
    ],
)
def test_noise_that_halves_the_margin(results, value, low, high, verdict):
    halving = {"value": value, "ci_low": low, "ci_high": high, "reason": "no level halves it"}
    results["perturb"]["phases"]["silent"]["halving"] = halving
    assert judges.silent_breaks(results).verdict == verdict


@pytest.mark.parametrize(
    "share, verdict",
    [
        ([0.8, 0.6, 0.9], "agrees"),
        ([0.3, 0.2, 0.4], "disagrees"),
        ([0.5, 0.4, 0.6], "undecided"),
        ([0.5, None, None], "undecided"),
        (None, "undecided"),
    ],
)
def test_what_the_decisive_phase_withstands(results, share, verdict):
    results["perturb"]["phases"]["decisive"]["paper_share"] = share
    assert judges.decisive_holds(results).verdict == verdict
    results["perturb"]["phases"] = {}
    assert judges.decisive_holds(results).verdict == "undecided"
    assert judges.silent_breaks(results).verdict == "undecided"


def test_recovery(results):
    ladder = results["heal"]
    for bounds, verdict in (
        ([0.01, 0.02], "agrees"),
        ([-0.02, -0.01], "disagrees"),
        ([-0.01, 0.01], "undecided"),
        (None, "undecided"),
    ):
        ladder["trend"] = {"slope": 0.0 if bounds is None else sum(bounds) / 2, "ci": bounds}
        assert judges.bounded(results).verdict == verdict
    slopes = {
        "slope_below": 0.1,
        "slope_above": 0.0,
        "slope_below_ci": [0, 0.2],
        "slope_above_ci": [0, 0.1],
        "p_value": 0.001,
        "found": True,
    }
    for depths, flat, verdict in (
        ([8, 9], "below", "agrees"),
        ([8, 9], "above", "partly"),
        ([3, 4], "below", "disagrees"),
    ):
        ladder["levelling"] = slopes | {"depth": sum(depths) / 2, "ci": depths, "flat": flat}
        assert judges.levels_off(results).verdict == verdict
    ladder["levelling"] = {"found": False, "reason": "too few depths"}
    assert judges.levels_off(results).verdict == "undecided"
    for higher, lower, verdict in (
        (10, 0, "agrees"),
        (5, 1, "partly"),
        (1, 5, "disagrees"),
        (0, 0, "undecided"),
    ):
        ladder["depths"] = [{"readouts": 10, "readouts_higher": higher, "readouts_lower": lower}]
        assert judges.lifts(results).verdict == verdict


# The run


def test_all_experiments_are_done_and_every_claim_is_judged(run):
    (task,) = run.tasks
    assert {name: told["state"] for name, told in task.experiments.items()} == dict.fromkeys(
        EXPERIMENTS, "done"
    )
    assert set(task.results) == set(EXPERIMENTS)
    assert list(task.findings) == [claim.name for claim in CLAIMS]
    for finding in task.findings.values():
        assert finding.verdict in judges.VERDICTS and finding.text.endswith(".")
    saved = json.loads((run.path / "paper.json").read_text())
    assert saved == run.to_dict() == open_paper(run.path).to_dict()
    opened = open_run(run.path)
    assert opened == run and opened.state == "finished" and len(repr(run)) < 300
    assert run.to_frame()["verdict"].tolist() == [f.verdict for f in task.findings.values()]
    # Silent blocks are dearer on the bundled model, but next to the transition they are not: its
    # first blocks are what is dear.
    assert task.findings["phases_differ"].verdict == "partly"


def test_all_experiments_have_the_phases_of_the_trace(run):
    results = run.tasks[0].results
    phases = results["trace"]["transition"] | {"questions": 200}
    assert results["trace"]["questions"] == 200
    for name in ("perturb", "ablate"):
        assert results[name]["transition"] == phases
    for name in ("prune", "phasewise"):
        assert results[name]["trace"]["transition"] == phases
        assert results[name]["trace"]["questions"] < 200
    for step in results["prune"]["steps"][1:]:
        silent = step["removed"] in phases["silent_blocks"]
        assert step["phase"] == ("silent" if silent else "decisive")


@pytest.mark.slow
def test_each_experiment_is_what_its_own_command_gives(run, demo, tmp_path):
    """But for the phases, the run of a single experiment has the same figures."""
    from phaseprune.pruning.prune import prune

    alone = prune(demo, load_task("demo", limit=200), remove=11, calibration=32, evaluation=96)
    steps = run.tasks[0].results["prune"]["steps"]
    assert [s["removed"] for s in steps] == [s.removed for s in alone.steps]
    assert [s["evaluation"] for s in steps] == [s.evaluation for s in alone.steps]


def test_a_finished_run_is_read_and_nothing_is_done_again(run, demo, monkeypatch):
    ran = "phaseprune.replication.paper.run_experiment"
    monkeypatch.setattr(ran, lambda *a: pytest.fail("ran"))
    again = paper(
        demo, [load_task("demo", limit=200)], out=run.path, settings=SMALL, arguments="demo"
    )
    assert again.state == "finished" and again == run


def test_other_settings_are_refused(run, demo):
    with pytest.raises(UserError, match="draws of demo was 2 and now is 3"):
        paper(
            demo,
            [load_task("demo", limit=200)],
            out=run.path,
            settings=Settings(**{**SMALL.__dict__, "draws": 3}),
        )


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_experiments_can_be_added(demo, tmp_path, monkeypatch):
    """Stopped in pruning; then without some; then with one of these more."""
    task, out = load_task("demo", limit=150), tmp_path / "run"
    small = {**SMALL.__dict__, "skip": ("lens", "heal", "phasewise", "perturb", "similarity")}
    real, ran = experiments.run_experiment, []

    def stopped(name, job):
        ran.append(name)
        if name == "prune":
            raise KeyboardInterrupt
        real(name, job)

    monkeypatch.setattr("phaseprune.replication.paper.run_experiment", stopped)
    with pytest.raises(KeyboardInterrupt):
        paper(demo, [task], out=out, settings=Settings(**small))
    assert ran == ["trace", "prune"]
    assert "not finished" in write_paper_report(out).read_text()

    def told(name, job):
        ran.append(name)
        real(name, job)

    monkeypatch.setattr("phaseprune.replication.paper.run_experiment", told)
    ran.clear()
    found = paper(demo, [task], out=out, settings=Settings(**small))
    assert ran == ["prune", "ablate"] and found.state == "resumed"
    ran.clear()
    small["skip"] = ("lens", "heal", "phasewise", "similarity")
    found = paper(demo, [task], out=out, settings=Settings(**small))
    assert ran == ["perturb"]
    assert set(found.tasks[0].results) == {"trace", "prune", "ablate", "perturb"}
    assert found.tasks[0].findings["phases_differ"].verdict == "undecided"


@pytest.mark.slow
def test_what_cannot_be_done_is_left_out_with_the_reason(demo, tmp_path):
    """A file has no training questions, and too few of these are right for a transition."""
    file = write_jsonl(tmp_path / "other.jsonl", QUESTIONS * 5)
    told = []
    found = paper(
        demo,
        [load_task(str(file))],
        out=tmp_path / "run",
        note=told.append,
        settings=Settings(
            **{
                **SMALL.__dict__,
                "calibration": 8,
                "evaluation": 10,
                "probe": 8,
                "remove": 2,
                "ladder": (1, 2),
                "skip": ("lens", "perturb", "ablate"),
            }
        ),
    )
    told_of = found.tasks[0].experiments
    assert told_of["heal"]["state"] == "not done" and "--train" in told_of["heal"]["reason"]
    assert told_of["phasewise"]["state"] == "not done"
    assert "no transition" in told_of["phasewise"]["reason"]
    # Said before anything is run, not after hours.
    assert "nothing will be healed" in told[0]
    page = write_paper_report(tmp_path / "run").read_text()
    assert "heal was left out" in page and "phasewise was left out" in page


def test_errors_of_the_trace_end_the_run(demo, tmp_path, monkeypatch):
    def broken(name, job):
        raise UserError("block 3 gives NaN")

    monkeypatch.setattr("phaseprune.replication.paper.run_experiment", broken)
    with pytest.raises(UserError, match="block 3"):
        paper(demo, [load_task("demo", limit=150)], out=tmp_path / "run", settings=SMALL)


# The report


def test_the_report_opens_offline_and_holds_every_claim(run):
    page = (run.path / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|@import|url\((?!#)", page)
    for claim in CLAIMS:
        assert claim.title in page
    for target in re.findall(r'href="(?!#|data:)([^"]+)"', page):
        assert (run.path / target).exists(), target
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, target
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert page.count("<svg") == sum(len(section.drawings) for section in SECTIONS)


def test_claims_as_markdown(run):
    text = (run.path / "claims.md").read_text()
    for claim in CLAIMS:
        finding = run.tasks[0].findings[claim.name]
        assert f"## {claim.title}" in text and claim.paper in text
        assert f"- **demo: {finding.verdict}.** {finding.text}" in text


def test_claims_of_several_models_stand_side_by_side(run):
    text = claims_markdown(run, run)
    assert text.count("- **demo, demo: ") == 2 * len(CLAIMS)
    assert "| the paper says | demo, demo | demo, demo |" in text


def test_names_of_models_in_titles():
    assert shown_name("org/Model-3.1") == "org/Model-3.1" and shown_name("demo") == "demo"
    assert shown_name("/a/b/Model-3.1-8B") == "Model-3.1-8B"
    assert shown_name("models/Small.Q4_1.gguf") == "Small.Q4_1"


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(run):
    before = (run.path / "report.html").read_bytes()
    write_paper_report(run.path)
    assert (run.path / "report.html").read_bytes() == before


def test_a_figure_of_the_verdicts(run):
    figure = run.plot()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == [finding.verdict for finding in run.tasks[0].findings.values()]


def test_other_runs_are_no_runs_of_paper(run):
    with pytest.raises(UserError, match="run of prune"):
        open_paper(run.tasks[0].folder / "prune")


# The command


def call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0, capsys.readouterr()


@pytest.mark.slow
def test_the_command_and_its_configuration(tmp_path, capsys):
    """Two tasks with sizes of their own; what is typed goes first; report writes the page again."""
    config = tmp_path / "c.yaml"
    shutil.copy(
        Path(experiments.__file__).parents[1] / "demo" / "questions.jsonl",
        tmp_path / "second.jsonl",
    )
    config.write_text(
        "model: demo\nremove: 1\ncalibration: 8\nevaluation: 20\nskip: [lens, similarity, perturb, "
        f"ablate, phasewise, heal]\ntasks:\n  demo: {{limit: 40}}\n  {tmp_path}/second.jsonl: "
        "{limit: 50, evaluation: 30}\n"
    )
    out = tmp_path / "run"
    code, told = call(capsys, "paper", "--config", config, "--remove", 2, "--out", out, "--json")
    assert code == 0, told.err
    found = json.loads(told.out)
    assert [task["folder"] for task in found["tasks"]] == ["demo", "second"]
    for folder, evaluated in (("demo", 20), ("second", 30)):
        steps = read_results(out / folder)["prune"]["steps"]
        assert len(steps) == 3 and len(steps[0]["evaluation"]["correct"]) == evaluated
    (out / "report.html").unlink()
    copy = tmp_path / "alone.html"
    code, told = call(capsys, "report", out, "--copy", copy)
    assert code == 0 and 'href="demo/prune/report.html"' in (out / "report.html").read_text()
    links = re.findall(r'href="([^"]+)"', copy.read_text())
    assert links and all(link.startswith(("#", "data:")) for link in links)
    code, told = call(capsys, "report", out / "demo" / "prune", "--copy", copy)
    assert copy.read_bytes() == (out / "demo" / "prune" / "report.html").read_bytes()
    code, told = call(capsys, "report", out, "--copy", config / "alone.html")
    assert code == 2 and "Cannot write" in told.err
    code, told = call(capsys, "paper", "--config", config, "--remove", 2, "--out", out)
    assert code == 0 and "was finished before" in " ".join(told.err.split())
    assert "held against the paper" in told.out and "phaseprune report" in told.out


@pytest.mark.parametrize(
    "words, told",
    [
        ((), "name a model"),
        (("demo", "--skip", "prun"), "did you mean 'prune'"),
        (("demo", "--task", "demo,demo"), "twice"),
        (("demo", "--config", "no.yaml"), "no such file"),
        (("demo", "--ladder", "a"), "--ladder"),
    ],
)
def test_bad_input_is_one_sentence(capsys, tmp_path, words, told):
    code, captured = call(capsys, "paper", *words, "--out", tmp_path / "run")
    assert code == 2 and told.lower() in " ".join(captured.err.lower().split())
    assert not (tmp_path / "run").exists()
