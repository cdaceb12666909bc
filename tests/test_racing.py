"""Racing: chosen candidates swept alone, the statistics of the race, runs and their options."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseprune.cli.main import main
from phaseprune.decision.racing import (
    PRIOR_FREEDOM,
    Race,
    bounds,
    differences,
    looks,
    mean_bound,
)
from phaseprune.errors import UserError
from phaseprune.methods.choice import search_options
from phaseprune.methods.judge import question_judge
from phaseprune.methods.objectives import OBJECTIVES, OF_ALL
from phaseprune.methods.racing import make_racing, race_candidates
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.prune import racing_line
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep import estimate
from phaseprune.sweep.kept import BASE, Kept, counted_passes, passes, schedule
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import stream_bytes
from phaseprune.sweep.walk import sweep_scores

RACING = dict(remove=3, calibration=48, evaluation=40, search="racing", race_dtype="own")
COSTS = ("seconds", "block_passes")


def without_costs(lines):
    return [
        {k: v for k, v in line.items() if k not in COSTS and k != "block_passes_saved"}
        | ({"race": {**line["race"], "block_passes_saved": 0}} if line.get("race") else {})
        for line in lines
    ]


# --- sweeps over chosen candidates ---------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])  # packed and plain rows
@pytest.mark.parametrize("chosen", [[0], [4], [1, 3], [0, 2, 4]])
def test_chosen_candidates_score_as_in_the_full_sweep(tiny, small_task, family, chosen):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    arguments = decoder, prepared.rows, prepared.needs_vocabulary, range(5)
    full = sweep_scores(*arguments)
    sweep = sweep_scores(*arguments, candidates=chosen)
    assert sweep.blocks == tuple(chosen)
    np.testing.assert_allclose(sweep.scores, full.scores[chosen], atol=1e-4)
    # The base to the last candidate's block, and each candidate behind its own.
    assert sweep.block_passes == chosen[-1] + 1 + sum(4 - block for block in chosen)


@pytest.mark.parametrize("family", ["llama", "falcon"])
@pytest.mark.parametrize("budget", [0, 30_000, 10**9])
def test_kept_states_of_some_candidates_change_nothing(tiny, small_task, family, budget):
    """Whatever was swept before, and whichever of it is wanted now."""
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    rng, live, kept = np.random.default_rng(0), list(range(5)), Kept(budget)
    counted, a_stream = Kept(budget), stream_bytes(decoder, prepared.rows.padded_tokens)
    while len(live) > 1:
        chosen = sorted(rng.choice(live, rng.integers(1, len(live) + 1), replace=False).tolist())
        arguments = decoder, prepared.rows, prepared.needs_vocabulary, live
        fresh = sweep_scores(*arguments)
        sweep = sweep_scores(*arguments, candidates=chosen, kept=kept)
        expected = fresh.scores[[live.index(block) for block in chosen]]
        np.testing.assert_allclose(sweep.scores, expected, atol=1e-4)
        assert sweep.block_passes == counted_passes(counted, live, chosen, a_stream)
        assert sum(s.nbytes for _, states in kept.entries.values() for s in states) <= budget
        live.remove(chosen[-1])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_schedule_runs_each_stream_from_where_it_begins(data):
    live = sorted(data.draw(st.sets(st.integers(0, 9), min_size=1)))
    candidates = sorted(data.draw(st.sets(st.sampled_from(live), min_size=1)))
    kept = {}
    for place in data.draw(st.sets(st.integers(1, len(live)))):
        kept[place] = (BASE, *data.draw(st.sets(st.sampled_from(live[:place]))))
    legs = schedule(live, candidates, kept)
    streams = set()
    for leg in legs:
        for stream in leg.joins:
            assert stream not in streams
            assert stream in kept[len(leg.before)] if leg.before else stream == BASE
        streams |= set(leg.joins)
        assert streams == set(leg.streams) and leg.block not in streams
        assert BASE not in streams or leg.streams[0] == BASE
        if leg.born:
            assert BASE in streams
            streams.add(leg.block)
        if leg.ends:
            streams.remove(BASE)
    assert streams == set(candidates) and legs[-1].block is None
    assert passes(legs) <= passes(schedule(live, candidates, {}))


# --- statistics ----------------------------------------------------------------------------------


def test_looks():
    assert looks(64) == [16, 32, 48, 64] and looks(48) == [16, 32, 48] and looks(20) == [20]
    assert looks(256) == [16, 32, 48, 72, 108, 162, 256] and looks(1) == [1]
    for questions in range(1, 400):
        ends = looks(questions)
        assert ends[-1] == questions and ends == sorted(set(ends))


def margins(rng, means, questions, spread=0.35, shared=0.6):
    """Synthetic figures: a question's own difficulty, and an own deviation for each candidate."""
    own = rng.standard_t(5, (len(means), questions)) * spread * (1 - shared)
    values = rng.normal(0, spread * shared, questions) + own
    values += np.asarray(means)[:, None] - values.mean(axis=1, keepdims=True)
    return values


@pytest.mark.slow
def test_differences_are_unbiased_with_and_without_what_was_known_before():
    """Over samples drawn without replacement; the error that is stated is the one that is made."""
    rng = np.random.default_rng(0)
    means = np.array([0.0, -0.05, 0.02, -0.3])
    then = margins(rng, means, 64)
    now = 0.8 * then + margins(rng, means, 64, spread=0.1)
    truth = now.mean(axis=1) - now[0].mean()
    for known in (0, 32, 64):
        found, errors = [], []
        for _ in range(1500):
            order = rng.permutation(64)
            before = np.where(np.arange(64) < known, then[:, order], np.nan)
            estimate, error, freedom = differences(now[:, order], before, 0, 16)
            found.append(estimate)
            errors.append(error)
        off = np.mean(found, axis=0) - truth
        assert (np.abs(off) < 4 * np.std(found, axis=0) / np.sqrt(1500) + 2e-3).all()
        made, stated = np.std(found, axis=0)[1:], np.sqrt(np.mean(np.square(errors), axis=0))[1:]
        assert (made < 1.1 * stated).all() and (stated < 1.6 * made).all()
        assert (freedom == PRIOR_FREEDOM + (14 if known > 16 else 15))[1:].all()
        spread = made if known == 0 else spread  # noqa: F821
        assert known < 64 or (made < 0.6 * spread).all()  # it helps


def test_all_questions_seen_leaves_no_doubt():
    rng = np.random.default_rng(0)
    values = margins(rng, [0.0, 0.1, -0.2], 20)
    found = bounds(values, np.full((3, 20), np.nan), 20, 1e-9)
    assert found.leader == 1
    np.testing.assert_allclose(found.upper, values.mean(axis=1) - values[1].mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("means", "tolerance"),
    [
        (np.r_[0.0, np.full(11, -0.021)], 0.02),  # all but one just worse than what is accepted
        (-np.linspace(0, 0.4, 20), 0.0),
        (-np.geomspace(0.03, 0.6, 12), 0.02),
    ],
)
def test_a_race_ends_wrongly_as_rarely_as_it_says(means, tolerance):
    """Ends worse than the best by more than the tolerance in at most alpha of 500 races."""
    rng = np.random.default_rng(1)
    alpha, wrong, seen = 0.1, 0, 0
    for _ in range(500):
        then = margins(rng, means, 64)
        known = rng.integers(0, 5) * 16
        values = 0.7 * (then - then.mean(axis=1, keepdims=True))
        values += margins(rng, means, 64, spread=0.2)
        race = Race(np.where(np.arange(64) < known, then, np.nan), alpha, tolerance, looks(64))
        while not race.over:
            begin = race.seen
            seen += len(race.alive) * (race.ends[race.look] - begin)
            race.see(values[race.alive, begin : race.ends[race.look]])
        chosen = race.alive[np.nanmean(race.values[race.alive], axis=1).argmax()]
        wrong += values.mean(axis=1).max() - values[chosen].mean() > tolerance
    assert wrong <= alpha * 500
    assert seen < 500 * 64 * len(means)  # and it gives some up


def test_tolerances_do_not_add_up():
    race = Race(np.full((3, 64), np.nan), 0.05, 0.02, looks(64))
    race.stands_for[1] = 0.015  # a better one by at most so much was given up for it
    steady = np.tile([0.0, -0.001], 8)
    race.see(np.stack([steady, steady - 0.004, steady - 0.5]))
    assert race.alive.tolist() == [0] and race.stands_for[0] == pytest.approx(0.011, abs=1e-9)
    race = Race(np.full((2, 64), np.nan), 0.05, 0.02, looks(64))
    race.stands_for[1] = 0.025
    race.see(np.stack([steady, steady - 0.004]))
    assert race.alive.tolist() == [0, 1]


# --- runs ----------------------------------------------------------------------------------------


def noted(lines):
    return [{k: line[k] for k in ("block", "questions", "dropped")} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - OF_ALL))
def test_without_tolerance_and_error_a_race_ends_as_the_exact_search(demo, objective):
    task = load_task("demo", limit=150)
    common = dict(remove=4, calibration=48, evaluation=40, objective=objective)
    exact = prune(demo, task, **common)
    raced = prune(demo, task, search="racing", race_alpha=1e-9, race_tolerance=0, **common)
    assert raced.removed == exact.removed
    for one, two in zip(exact.steps[1:], raced.steps[1:], strict=True):
        assert two.race["questions"] == 48
        assert two.objective == pytest.approx(one.objective, abs=1e-5)


@pytest.mark.slow
def test_what_a_race_writes_down(demo, tmp_path):
    pruning = prune(demo, load_task("demo", limit=150), out=tmp_path / "run", **RACING)
    run = RunDirectory(tmp_path / "run")
    options = run.manifest["options"]
    assert (options["search"], options["alpha"], options["tolerance"]) == ("racing", 0.05, 0.02)
    for step in run.steps()[1:]:
        lines = [c for c in run.candidates() if c["step"] == step["step"]]
        left = [line for line in lines if line["dropped"] is None]
        race = step["race"]
        assert race["confidence"] == 0.95 and race["left"] == len(left)
        assert {line["questions"] for line in left} == {race["questions"]}
        assert step["removed"] in [line["block"] for line in left]
        for line in lines:
            assert len(line["values"]) == line["questions"]
            assert line["questions"] == (
                race["questions"] if line["dropped"] is None else 16 * line["dropped"]
            )
            assert line["decision_margin"] == pytest.approx(np.mean(line["values"]), abs=1e-6)
    first = run.steps()[1]
    assert first["block_passes"] + first["race"]["block_passes_saved"] == 14 * 15 // 2
    total = pruning.result["racing"]
    assert total["block_passes"] == sum(step.block_passes for step in pruning.steps)
    assert total["block_passes_saved"] > 0


def test_exact_is_the_default_and_says_nothing_of_races(tiny, small_task, tmp_path):
    pruning = prune(tiny["llama"], small_task, remove=2, calibration=4, out=tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["options"]["search"] == "exact"
    assert "alpha" not in run.manifest["options"]
    assert pruning.result["racing"] is None and pruning.steps[1].race is None
    assert "dropped" not in run.candidates()[0]


@pytest.mark.slow
@pytest.mark.parametrize("matmul_dtype", [None, torch.bfloat16])
def test_block_passes_are_those_run(demo, matmul_dtype):
    """Weighted by the chunk's share of the tokens; the exact search's are counted beside it."""
    task, _ = split(load_task("demo", limit=150), 48, 40, 0)
    calibration = prepare(demo, task)
    how = search_options("racing")
    racing = make_racing(
        demo, question_judge(demo, calibration), "decision_margin", how, 0, matmul_dtype
    )
    assert sum(chunk.share for chunk in racing.chunks) >= 1 - 1e-9
    live, kept = list(range(14)), Kept(racing.exact.budget)
    for number in (1, 2, 3):
        run = [0.0]

        def count(label, done, total, run=run):
            run[0] += 1

        lines = race_candidates(demo, racing, live, number, count)
        racing.learn(lines)
        exact = sweep_scores(demo, calibration.rows, calibration.needs_vocabulary, live, kept=kept)
        assert lines[0]["block_passes"] + lines[0]["block_passes_saved"] == exact.block_passes
        best = max((x for x in lines if x["dropped"] is None), key=lambda x: x["decision_margin"])
        live.remove(best["block"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["own", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes(demo, tmp_path, dtype):
    task = load_task("demo", limit=150)
    for name in ("a", "b"):
        prune(demo, task, out=tmp_path / name, seed=3, **(RACING | {"race_dtype": dtype}))
    a, b = (RunDirectory(tmp_path / name) for name in ("a", "b"))
    for lines in (RunDirectory.steps, RunDirectory.candidates):
        texts = [
            json.dumps([{k: v for k, v in x.items() if k != "seconds"} for x in lines(run)])
            for run in (a, b)
        ]
        assert texts[0] == texts[1]


# --- reduced precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])  # packed and plain rows
def test_products_in_reduced_precision_change_scores_a_little(tiny, small_task, family):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    arguments = decoder, prepared.rows, prepared.needs_vocabulary, range(5)
    exact = sweep_scores(*arguments).scores
    kept = Kept(10**9)
    for _ in range(2):  # the second begins with kept states
        rough = sweep_scores(*arguments, kept=kept, matmul_dtype=torch.bfloat16).scores
        finite = np.isfinite(exact)
        change = np.abs(rough[finite] - exact[finite])
        assert 0 < change.max() < 0.05 * np.abs(exact[finite]).max()
        assert (np.isfinite(rough) == finite).all()


@pytest.mark.slow
def test_a_race_in_reduced_precision_says_what_that_changed(demo, tmp_path):
    task, options = load_task("demo", limit=150), RACING | {"race_dtype": "bfloat16"}
    exact = prune(demo, task, **(options | {"search": "exact", "race_dtype": None}))
    pruning = prune(demo, task, out=tmp_path / "run", **options)
    run = RunDirectory(tmp_path / "run")
    assert run.manifest["race_products"]["dtype"] == "bfloat16"
    for step in pruning.steps[1:]:
        assert step.race["products"] == "bfloat16" and 0 < step.race["drift"] <= 0.015
    assert pruning.result["racing"]["drift"] == max(s.race["drift"] for s in pruning.steps[1:])
    assert "Products in bfloat16 changed" in racing_line(pruning.result["racing"])
    scored = {line["block"]: line for line in run.candidates() if line["step"] == 1}
    first = exact.steps[1]
    if scored[first.removed]["dropped"] is None:
        assert scored[first.removed]["decision_margin"] == pytest.approx(first.objective, abs=0.01)


@pytest.mark.slow
def test_where_reduced_precision_changes_too_much_the_race_is_run_again(demo, tmp_path):
    """With almost no tolerance: this step and all later ones in full precision, resumed or not."""
    task = load_task("demo", limit=150)
    options = RACING | dict(race_tolerance=1e-7, race_dtype="bfloat16")
    own = prune(demo, task, **(options | {"race_dtype": "own"}))

    def interrupt(label, done, total):
        if label.startswith("step 2: race"):
            raise Stopped

    with pytest.raises(Stopped):
        prune(demo, task, out=tmp_path / "run", progress=interrupt, **options)
    pruning = prune(demo, task, out=tmp_path / "run", **options)
    assert pruning.removed == own.removed
    assert [step.race["products"] for step in pruning.steps[1:]] == [None] * 3
    drifts = [step.race["drift"] for step in pruning.steps[1:]]
    assert drifts[0] > 1e-7 and drifts[1:] == [None, None]
    assert pruning.steps[1].block_passes > own.steps[1].block_passes
    for one, two in zip(own.steps, pruning.steps, strict=True):
        assert two.objective == pytest.approx(one.objective, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("times", "expected"), [(2.0, torch.bfloat16), (1.1, None)])
def test_reduced_precision_are_taken_where_they_are_faster(demo, monkeypatch, times, expected):
    rows = prepare(demo, load_task("demo", limit=20)).rows
    monkeypatch.setattr(
        estimate, "_block_seconds", lambda walker, *_: 1 / times if walker.matmul_dtype else 1.0
    )
    found, gain = estimate.faster_matmul_dtype(demo, rows)
    assert found == expected and gain == pytest.approx(times)


def test_a_model_in_reduced_precision_is_not_measured(demo, monkeypatch):
    rows = prepare(demo, load_task("demo", limit=20)).rows
    monkeypatch.setattr(type(demo), "dtype", property(lambda _: torch.bfloat16))
    assert estimate.faster_matmul_dtype(demo, rows) == (None, 1.0)


@pytest.mark.slow
def test_what_questions_share_is_not_run_once_a_chunk(demo):
    """With long examples in front of them all questions are one look."""
    task = load_task("demo", limit=100)
    alone = question_judge(demo, prepare(demo, task.head(48)))
    how = search_options("racing")
    assert make_racing(demo, alone, "decision_margin", how, 0).ends == [16, 32, 48]
    shown = load_task("demo", limit=100, shots=4, shots_from="demo")
    shared = question_judge(demo, prepare(demo, shown.head(48)))
    assert make_racing(demo, shared, "decision_margin", how, 0).ends == [48]


def test_the_bound_of_a_mean_fails_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(2000):
        values = rng.normal(0.01, 0.02, 64)
        failed += abs(values.mean()) > mean_bound(values[rng.permutation(64)[:16]], 64, 0.05)
    assert failed <= 0.05 * 2000
    assert mean_bound(values, 64, 0.05) == abs(values.mean())


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("when", ["step 1: race", "step 3: race", "step 2: eval"])
def test_an_interrupted_race_goes_on(demo, tmp_path, when):
    task = load_task("demo", limit=150)
    undisturbed = prune(demo, task, out=tmp_path / "whole", **RACING)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(demo, task, out=tmp_path / "run", progress=interrupt, **RACING)
    resumed = prune(demo, task, out=tmp_path / "run", **RACING)
    whole, run = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "run")
    assert resumed.removed == undisturbed.removed
    assert noted(run.candidates()) == noted(whole.candidates())
    # What stands in memory is lost with the process, so only the costs may differ.
    for lines in (RunDirectory.steps, RunDirectory.candidates):
        assert without_costs(lines(run)) == without_costs(lines(whole))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(search="exact"), 'option search was "racing" and now is "exact"'),
        (dict(race_alpha=0.1), "option alpha was 0.05 and now is 0.1"),
        (dict(race_tolerance=0.05), "option tolerance was 0.02 and now is 0.05"),
    ],
)
def test_another_search_on_the_same_directory_is_refused(tiny, small_task, tmp_path, change, says):
    options = dict(remove=1, calibration=4, search="racing")
    prune(tiny["llama"], small_task, out=tmp_path / "run", **options)
    with pytest.raises(UserError, match=f"holds another run: its {says}"):
        prune(tiny["llama"], small_task, out=tmp_path / "run", **(options | change))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(search="race"), "search is 'race' and must be one of exact, racing"),
        (dict(search="racing", alpha=0), "race_alpha must lie between 0 and 1 and is 0"),
        (dict(search="racing", alpha=1.0), "race_alpha must lie between 0 and 1"),
        (dict(search="racing", tolerance=-1), "race_tolerance must be 0 or more and is -1"),
        (dict(search="racing", tolerance=float("nan")), "race_tolerance must be 0 or more"),
        (dict(search="exact", tolerance=0.1), "race_tolerance=0.1 goes with search='racing'"),
        (dict(search="exact", dtype="own"), "race_dtype='own' goes with search='racing' only"),
        (dict(search="racing", dtype="float8"), "race_dtype is 'float8' and must be one of auto"),
        (dict(search="racing", dtype="bfloat16", tolerance=0), "race_tolerance=0 allows no"),
        (dict(search="exact", alpha=0.1), "race_alpha=0.1 goes with search='racing'"),
    ],
)
def test_bad_options(options, says):
    with pytest.raises(UserError, match=says):
        search_options(**options)


def test_what_is_said_of_a_race():
    racing = {"tolerance": 0.02, "confidence": 0.95, "block_passes": 70, "block_passes_saved": 30}
    line = racing_line(racing)
    assert "within 0.02" in line and "95 % confidence; 30 of 100 block passes saved" in line
    line = racing_line(racing | {"block_passes_saved": -7})
    assert "7 more than the 63 block passes of an exact search" in line


@pytest.mark.slow
def test_the_command_line(tmp_path, capsys):
    run = str(tmp_path / "run")
    command = [
        "prune",
        "demo",
        "--limit",
        "90",
        "--calibration",
        "32",
        "--remove",
        "1",
        "--no-export",
        "--out",
        run,
        "--search",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*command, "race"])
    assert ended.value.code == 2 and "must be one of exact, racing" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*command, "racing", "--race-tolerance", "0.05"])
    assert not ended.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "within 0.05 of the best objective with 95 % confidence" in said
    assert "Racing: a step" in (tmp_path / "run/report.html").read_text()
