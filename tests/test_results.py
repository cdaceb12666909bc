"""Results at a prompt, in a notebook and as tables; runs of every command read back."""

import json
import sys
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

import phaseprune
from phaseprune import UserError, open_run
from phaseprune.decision.transition import Transition
from phaseprune.results import READERS
from phaseprune.runs.plain import rebuilt
from phaseprune.runs.result import Result
from phaseprune.runs.scores import read_all_scores

#: A repr is a few lines that fit a screen.
LINES, CHARACTERS = 12, 900


@pytest.fixture(scope="module")
def model():
    return phaseprune.load_model("demo")


@pytest.fixture(scope="module")
def task():
    return phaseprune.load_task("demo", limit=60)


def traced(model, task, out):
    return phaseprune.trace(model, task, out=out)


def traced_tuned(model, task, out):
    return phaseprune.trace(model, task, out=out, lens="tuned")


def traced_by(**how):
    def run(model, task, out):
        return phaseprune.trace(model, phaseprune.load_task("demo", limit=24, **how), out=out)

    return run


def pruned(model, task, out):
    return phaseprune.prune(model, task, remove=2, calibration=20, out=out)


def pruned_tasks(model, task, out):
    other = phaseprune.load_task(list(task.questions[40:]), name="other")
    return phaseprune.prune(model, [task.head(40), other], remove=1, calibration=8, out=out)


def compared(model, task, out):
    return phaseprune.compare(
        model, [task], methods=["tail", "magnitude", "random"], remove=[1, 2], draws=2, out=out
    )


def phasewise(model, task, out):
    return phaseprune.phasewise(model, task, draws=2, most=1, out=out)


def perturbed(model, task, out):
    return phaseprune.perturb(model, task.head(20), noise=[0.05], noise_seeds=1, out=out)


def ablated(kind):
    return lambda model, task, out: phaseprune.ablate(model, task.head(30), kind=kind, out=out)


def similar(model, task, out):
    return phaseprune.similarity(model, task.head(40), remove=[9, 11], out=out)


def planned(model, task, out):
    return phaseprune.plan(model, task.head(30), protect=[0], out=out)


RUNS = {
    "trace": traced,
    "trace, tuned": traced_tuned,
    "trace, texts": traced_by(scoring="text"),
    "trace, texts by length": traced_by(scoring="text", length_norm="bytes"),
    "trace, vocabulary": traced_by(probability="vocabulary"),
    "plan": planned,
    "prune": pruned,
    "prune --combine": pruned_tasks,
    "compare": compared,
    "phasewise": phasewise,
    "perturb": perturbed,
    "ablate": ablated("mean"),
    "ablate, swap": ablated("swap"),
    "similarity": similar,
}


@pytest.fixture(scope="module")
def runs(model, task, tmp_path_factory):
    """Each run once: what its command returned, and where it is."""
    kept = {}

    def run(name):
        if name not in kept:
            out = tmp_path_factory.mktemp("runs") / "run"
            kept[name] = RUNS[name](model, task, out), out
        return kept[name]

    return run


@pytest.fixture(scope="module")
def healed(model, task, tmp_path_factory):
    """One healing and a ladder of a run of ``prune``."""
    out = tmp_path_factory.mktemp("healed") / "run"
    phaseprune.prune(model, task, remove=2, calibration=20, out=out)
    how = {"method": "full", "steps": 2, "batch": 4}
    one = phaseprune.heal(out, step=1, name="one", **how)
    return one, phaseprune.heal_ladder(out, [1, 2], name="ladder", **how), out


def assert_same(one, other, place="result"):
    """Equal in every field, arrays bit for bit; lists and tuples are alike."""
    if isinstance(one, np.ndarray):
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), place
        assert one.dtype == np.asarray(other).dtype or one.dtype.kind in "iu", place
    elif is_dataclass(one):
        assert type(one) is type(other), place
        for field in fields(one):
            if field.name != "state":
                names = field.name, f"{place}.{field.name}"
                assert_same(getattr(one, names[0]), getattr(other, names[0]), names[1])
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_same(one[name], other[name], f"{place}[{name}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, parts in enumerate(zip(one, other, strict=True)):
            assert_same(*parts, f"{place}[{number}]")
    else:
        assert one == other or (one != one and other != other), place


#: Fields of a trace's decisions that hold the same decisions in another form.
BY_LENGTH = "trace, texts by length"


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_back_as_what_its_command_returned(runs, name):
    returned, out = runs(name)
    opened = open_run(out)
    assert type(opened) is type(returned)
    assert json.dumps(opened.to_dict()) == json.dumps(json.loads(json.dumps(returned.to_dict())))
    if name == BY_LENGTH:  # scores are kept before they are normalised
        for part in ("margins", "decided", "correct", "probabilities"):
            one, other = (getattr(one.decisions, part) for one in (returned, opened))
            assert np.array_equal(one, other), part
        assert np.array_equal(returned.raw_scores, opened.raw_scores)
        return
    assert_same(returned, opened)
    assert getattr(opened, "state", "finished") == "finished"
    assert open_run(str(out)).to_dict() == opened.to_dict()


@pytest.mark.slow
def test_healed_models_are_read_back(healed):
    one, ladder, out = healed
    assert_same(one, open_run(out / "heal" / "one"))
    assert_same(ladder, open_run(out / "heal" / "ladder"))


def test_every_command_that_has_a_reader_is_read_here_or_in_the_tests_of_paper(healed, runs):
    assert {name.partition(",")[0] for name in RUNS} | {"heal", "heal --ladder", "paper"} == {
        *READERS
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_result_is_shown_in_a_few_lines_and_as_a_table(runs, name):
    returned, _ = runs(name)
    shown(returned)
    first = repr(returned).splitlines()[0]
    assert first.startswith(f"{type(returned).__name__}: demo")


def shown(result):
    text = repr(result)
    assert len(text) <= CHARACTERS and 2 <= text.count("\n") + 1 <= LINES
    page = result._repr_html_()
    assert len(page) <= 6000 and page.count("<tr>") > 1 and "nan" not in page
    pandas = pytest.importorskip("pandas")
    frame = result.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(result._rows()) > 0
    assert result.plot() is not None


def test_healed_models_are_shown_in_a_few_lines(healed):
    for one in healed[:2]:
        shown(one)


def test_what_a_line_says(runs):
    trace, plan, prune = (runs(name)[0] for name in ("trace", "plan", "prune"))
    assert "60 questions, letter" in repr(trace) and "accuracy 1.00 (chance 0.25)" in repr(trace)
    assert f"{plan.budget} of 14 blocks can go" in repr(plan)
    assert f"removed 2: {prune.removed[0]}, {prune.removed[1]}" in repr(prune)
    assert prune.to_frame()["removed"].tolist()[1:] == prune.removed
    assert trace.to_frame()["decision_margin"].tolist() == trace.decision_margin.mean.tolist()


def test_a_ranking_is_shown_in_a_few_lines(model):
    ranking = phaseprune.rank_blocks(model, method="tail", remove=3)
    assert repr(ranking) == "Ranking: demo, by tail\n  order 12, 11, 10; protected: 13"
    frame = ranking.to_frame()
    assert frame["block"].tolist()[:4] == [12, 11, 10, 0] and len(frame) == 14
    assert frame["removed_as"].tolist()[:3] == [1, 2, 3]


def test_a_task_is_shown_in_a_line(task):
    assert repr(task) == "Task: demo (60 questions, letter/mmlu)"


def test_frames_need_pandas_and_say_so(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"pip install pandas\); to_dict\(\)"):
        runs("plan")[0].to_frame()


def test_what_is_shown_is_escaped():
    class Odd(Result):
        def _lines(self):
            return ["<b>a", "x & y"]

        def _rows(self):
            return [{"<i>": "<td>", "number": 1 / 3, "none": None}] * 30

    page = Odd()._repr_html_()
    assert "&lt;b&gt;a" in page and "x &amp; y" in page and "<td>&lt;td&gt;</td>" in page
    assert "0.333" in page and "30 rows" in page and page.count("<tr>") == 25


def test_runs_that_cannot_be_read_are_refused_in_a_sentence(runs, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        open_run(tmp_path)
    _, out = runs("plan")
    manifest = json.loads((out / "manifest.json").read_text())

    def written(name, **changes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))
        return folder

    with pytest.raises(UserError, match="is not finished .it is failed.; give its command again"):
        open_run(written("failed", status="failed"))
    with pytest.raises(UserError, match="a run of dance, which nothing here reads"):
        open_run(written("dance", command="dance"))
    with pytest.raises(UserError, match="trace.json: cannot be read"):
        open_run(written("empty"))
    older = written("older", task={})
    for file in ("trace.json", "scores.parquet", "plan.json"):
        (older / file).write_bytes((out / file).read_bytes())
    with pytest.raises(UserError, match="written by another version, whose files lack 'length_no"):
        open_run(older)


def test_a_healing_away_from_its_run_is_refused(healed, tmp_path):
    import shutil

    shutil.copytree(healed[2] / "heal" / "one", tmp_path / "a" / "b" / "one")
    with pytest.raises(UserError, match="the run of prune that it healed is not around it"):
        open_run(tmp_path / "a" / "b" / "one")


def test_scores_are_read_without_their_questions(runs):
    trace, out = runs("trace")
    kept = read_all_scores(out / "scores.parquet")
    assert kept.question_ids == trace.question_ids
    assert np.array_equal(kept.gold, trace.decisions.gold)
    assert np.array_equal(kept.options, trace.decisions.options)
    with pytest.raises(UserError, match="cannot be read"):
        read_all_scores(out / "trace.json")


def test_dataclasses_are_rebuilt_by_their_types():
    found = Transition(
        True,
        3,
        (2, 4),
        (0, 1, 2),
        (3,),
        -0.5,
        0.5,
        0.9,
        (0.5, 1.0),
        0.8,
        0.001,
        None,
        None,
        "several",
        (2, 4),
        ((1, 2), (3, 4)),
        0.9,
        True,
    )
    assert rebuilt(Transition, json.loads(json.dumps(found.to_dict()))) == found
    none = Transition(False, reason="why", informed=False)
    assert rebuilt(Transition, json.loads(json.dumps(none.to_dict()))) == none
    with pytest.raises(KeyError):
        rebuilt(Transition, {})
