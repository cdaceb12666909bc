"""CKA and the similarity of decisions against direct formulas, and the command as a whole."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from conftest import QUESTIONS, write_jsonl
from phaseprune.decision.similarity import (
    cka,
    cosine_similarity,
    hsic_vectors,
    jackknife,
    js_similarity,
    over_readouts,
    unrelated,
)
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.probes import minibatches
from phaseprune.probes import similarity as module
from phaseprune.probes.minibatches import draw_minibatches, prepare_minibatch, see_minibatch
from phaseprune.probes.similarity import similarity
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair
from phaseprune.questions.prompts import render
from phaseprune.sweep.walk import block_passes, trace_scores, walk
from test_cli import run, sentence  # noqa: F401 - a fixture
from test_sweep import count_tokens, without

SIZES = st.tuples(st.integers(5, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32))


def drawn(sizes):
    n, first, second, seed = sizes
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, first)) + 3, rng.standard_normal((n, second)), rng


def song(x, y):
    """The unbiased HSIC as Song et al. 2012, equation 5, write it."""
    n = len(x)
    k, ell = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(ell, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ ell @ one) / ((n - 1) * (n - 2))
    whole = np.trace(k @ ell) + middle - 2 / (n - 2) * (one @ k @ ell @ one)
    return whole / (n * (n - 3))


def tuples(x, y):
    """HSIC as what it estimates: means over examples that are all different."""
    k, ell, n = x @ x.T, y @ y.T, len(x)
    pairs = [k[i, j] * ell[i, j] for i, j in itertools.permutations(range(n), 2)]
    threes = [k[i, j] * ell[i, q] for i, j, q in itertools.permutations(range(n), 3)]
    fours = [k[i, j] * ell[q, r] for i, j, q, r in itertools.permutations(range(n), 4)]
    return np.mean(pairs) + np.mean(fours) - 2 * np.mean(threes)


def direct_cka(batches_x, batches_y):
    """CKA of Nguyen et al. 2021, equation 2, by the dense formula."""
    pairs = list(zip(batches_x, batches_y, strict=True))
    cross = np.mean([song(x, y) for x, y in pairs])
    first, second = np.mean([song(x, x) for x, _ in pairs]), np.mean([song(y, y) for _, y in pairs])
    return cross / np.sqrt(first * second) if first > 0 and second > 0 else np.nan


def our_cka(x, y):
    first, second = hsic_vectors(x), hsic_vectors(y)
    cross, own, other = first @ second, first @ first, second @ second
    return float(cka(cross[None, None], own[None], other[None])[0, 0])


@given(SIZES)
@settings(deadline=None, max_examples=60)
def test_hsic_is_the_formula_of_song_and_its_definition(sizes):
    x, y, _ = drawn(sizes)
    ours = hsic_vectors(x) @ hsic_vectors(y)
    scale = np.abs(x @ x.T).max() * np.abs(y @ y.T).max()
    assert ours == pytest.approx(song(x, y), abs=1e-12 * scale)
    if len(x) <= 6:
        assert ours == pytest.approx(tuples(x, y), abs=1e-12 * scale)


@given(SIZES, st.floats(0.01, 100))
@settings(deadline=None, max_examples=60)
def test_cka_does_not_change_by_rotation_scale_and_shift_and_is_1_with_itself(sizes, scale):
    x, y, rng = drawn(sizes)
    rotation, _ = np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))
    moved = scale * x @ rotation + rng.standard_normal(x.shape[1])
    assert our_cka(moved, y) == pytest.approx(our_cka(x, y), abs=1e-8)
    assert our_cka(x, moved) == pytest.approx(1, abs=1e-8)
    assert -1 <= our_cka(x, y) <= 1


def test_of_independent_states_cka_is_0_on_average_however_wide_they_are():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 10, 200)), rng.standard_normal((400, 10, 200))
    hsic = (hsic_vectors(x) * hsic_vectors(y)).sum(axis=1)
    own = (hsic_vectors(x) ** 2).sum(axis=1).mean()
    assert abs(hsic.mean()) < 4 * hsic.std() / 20 and abs(hsic.mean() / own) < 0.05
    biased = [
        np.sum((a.T @ b) ** 2) / np.sqrt(np.sum((a @ a.T) ** 2) * np.sum((b @ b.T) ** 2))
        for a, b in zip(x, y, strict=True)
    ]
    assert np.mean(biased) > 0.9  # what the estimate would be without the correction


def test_states_that_do_not_vary_have_no_cka():
    x = np.broadcast_to(np.float32([0.1, 7.3, -1e3]), (9, 3))
    y = np.random.default_rng(0).standard_normal((9, 3))
    assert np.isnan(our_cka(x, y)) and np.isnan(our_cka(y, x))


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.random.default_rng(1).standard_normal((7, 2))
    value, low, high, p = jackknife(7, lambda weights: weights @ values / weights.sum())
    np.testing.assert_allclose(value, values.mean(axis=0))
    expected = stats.t.interval(0.95, 6, values.mean(axis=0), stats.sem(values))
    np.testing.assert_allclose([low, high], expected)
    np.testing.assert_allclose(p, stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_interval_of_cka_covers_it(strength):
    """Gaussians, of which CKA is known, in 500 simulations of 10 minibatches."""
    rng, width, covered = np.random.default_rng(5), 5, 0
    for _ in range(500):
        matrix = rng.standard_normal((width, width))
        x = rng.standard_normal((10, 24, width))
        y = strength * x @ matrix + rng.standard_normal(x.shape)
        both, own = strength * matrix, strength**2 * matrix.T @ matrix + np.eye(width)
        true = (both**2).sum() / np.sqrt(width * (own**2).sum())
        first, second = hsic_vectors(x), hsic_vectors(y)
        sums = [(a * b).sum(1) for a, b in ((first, second), (first, first), (second, second))]

        def value(weights, sums=sums):
            cross, one, other = (weights @ of for of in sums)
            return cka(cross[None, None], one[None], other[None])[0, 0]

        _, low, high, _ = jackknife(10, value)
        covered += low <= true <= high
    assert 0.92 <= covered / 500 <= 0.98


def test_js_and_cosine_by_hand():
    sure, other, half = np.array([1.0, 0]), np.array([0, 1.0]), np.array([0.5, 0.5])
    assert js_similarity(sure, sure) == 1 and js_similarity(sure, other) == 0
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert js_similarity(sure, half) == pytest.approx(1 - (entropy - 0.5))
    assert cosine_similarity(sure, other) == 0
    assert cosine_similarity(sure, half) == pytest.approx(1 / np.sqrt(2))


@given(st.integers(2, 6), st.integers(0, 3), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_js_is_scipys_and_does_not_mind_absent_options(options, absent, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(options) / 2, size=(2, 4))
    padded = [np.pad(one, ((0, 0), (0, absent))) for one in (p, q)]
    expected = 1 - jensenshannon(p, q, base=2, axis=1) ** 2
    np.testing.assert_allclose(js_similarity(*padded), expected, atol=1e-7)
    np.testing.assert_allclose(js_similarity(*padded[::-1]), expected, atol=1e-7)
    np.testing.assert_allclose(cosine_similarity(*padded), cosine_similarity(p, q))


def test_over_readouts_and_unrelated_are_means_over_pairs():
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(3), size=(6, 4)), rng.dirichlet(np.ones(3), size=(6, 2))
    found = over_readouts(js_similarity, p, q)
    for i, j in itertools.product(range(4), range(2)):
        assert found[i, j] == pytest.approx(js_similarity(p[:, i], q[:, j]).mean())
    options = np.array([3, 3, 2, 3, 2, 4])  # the last one has no equal
    total, pairs = unrelated(p[:, 0], q[:, 0], options)
    expected = [
        float(js_similarity(p[i, 0], q[j, 0]))
        for i, j in itertools.permutations(range(6), 2)
        if options[i] == options[j]
    ]
    assert pairs == len(expected) == 8 and total == pytest.approx(sum(expected))


# The walk against the whole model.

REMOVALS = [(), (1,), (1, 3), (4, 0), (2, 3, 4)]


@torch.no_grad()
def naive_states(decoder, model, task, question):
    """[readouts, places, D] of a model without our code: at all places of a question that score."""
    blocks = model.get_submodule(decoder.blocks_path)
    found = []
    context, continuations = render(task.questions[question], task.scoring)
    for continuation in continuations:
        before, after = encode_pair(decoder.tokenizer, context, continuation)
        states = []
        handles = [
            blocks[0].register_forward_pre_hook(
                lambda module, args, kwargs, to=states: to.append(
                    args[0] if args else kwargs["hidden_states"]
                ),
                with_kwargs=True,
            )
        ]
        handles += [
            block.register_forward_hook(
                lambda module, args, output, to=states: to.append(
                    output[0] if isinstance(output, tuple) else output
                )
            )
            for block in blocks
        ]
        model(torch.tensor([before + after[:-1]]), use_cache=False)
        for handle in handles:
            handle.remove()
        found.append(torch.stack(states)[:, 0, len(before) - 1 :])
    return torch.cat(found, dim=1).double().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
def test_similarity_of_minibatches_is_that_of_the_whole_models(tiny, family, small_task):
    decoder = tiny[family]
    members, seed = np.array([0, 2, 3, 4, 5, 6, 7]), 5
    prepared = prepare_minibatch(decoder, small_task, members, len(REMOVALS))
    seen = see_minibatch(decoder, prepared, members, REMOVALS, seed)
    models = [without(decoder.model, decoder.blocks_path, removed) for removed in REMOVALS]
    states = []
    for model in models:
        mine = [naive_states(decoder, model, small_task, q) for q in members]
        rounds = min(minibatches.POSITIONS, max(s.shape[1] for s in mine))
        rounds = 1 if small_task.scoring == "letter" else rounds
        picked = [
            np.resize(np.random.default_rng([seed, q]).permutation(s.shape[1]), rounds)
            for q, s in zip(members, mine, strict=True)
        ]
        states.append(
            [
                np.stack([s[:, at[number]] for s, at in zip(mine, picked, strict=True)], axis=1)
                for number in range(rounds)
            ]
        )
    for number, own in enumerate(states[1:], start=1):
        found = cka(seen.cross[number - 1], seen.own[0], seen.own[number])
        assert found.shape == (6, 6 - len(REMOVALS[number]))
        varying = ~np.isnan(found)
        for i, j in itertools.product(range(found.shape[0]), range(found.shape[1])):
            expected = direct_cka([s[i] for s in states[0]], [s[j] for s in own])
            if varying[i, j]:
                assert found[i, j] == pytest.approx(expected, abs=2e-4)
        # The embedding of the prompt's last token, and what a window sees, is the same for all.
        same = [
            {
                i
                for i in range(s[0].shape[0])
                if max(np.ptp(one[i], axis=0).max() for one in s) < 1e-6 * np.abs(s[0][i]).max()
            }
            for s in (states[0], own)
        ]
        if small_task.scoring == "letter" and family != "gpt2":
            assert 0 in same[0]
        expected = [
            [i in same[0] or j in same[1] for j in range(found.shape[1])]
            for i in range(found.shape[0])
        ]
        np.testing.assert_array_equal(~varying, expected)


@pytest.mark.parametrize("family", ["llama", "falcon"])  # packed and plain rows
def test_a_walk_runs_the_counted_block_passes_and_scores_as_traces_do(tiny, family, small_task):
    decoder = tiny[family]
    members = np.arange(8)
    prepared = prepare_minibatch(decoder, small_task, members, len(REMOVALS))
    counts, handles = count_tokens(decoder)
    for _ in walk(decoder, prepared.rows.shards[0], REMOVALS):
        pass
    for handle in handles:
        handle.remove()
    tokens, reads = prepared.rows.padded_tokens, prepared.rows.shards[0].reads
    passes = sum(counts[block] / tokens for block in range(4))
    passes += counts[4] / (reads if family == "llama" else tokens)
    assert passes == block_passes(5, REMOVALS)
    assert block_passes(5, REMOVALS) < sum(5 - len(removed) for removed in REMOVALS)
    seen = see_minibatch(decoder, prepared, members, REMOVALS, 0)
    for removed, scores in zip(REMOVALS, seen.scores, strict=True):
        traced = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, removed=removed)
        own = [0, *(b + 1 for b in range(5) if b not in removed)]
        np.testing.assert_allclose(scores, traced[:, own], atol=1e-5)


# The whole.


@pytest.fixture(scope="module")
def task():
    return load_task("demo", limit=120)


@pytest.fixture(scope="module")
def pruned_run(demo, task, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "prune"
    return prune(demo, task, remove=3, calibration=40, evaluation=80, out=path), path


@pytest.mark.slow
def test_a_runs_ladder_has_its_own_accuracies(demo, task, pruned_run):
    pruning, path = pruned_run
    found = similarity(demo, task, run=path)
    assert found.questions == 80 and found.chosen_step == 3
    assert found.full["accuracy"] == pruning.steps[0].evaluation["accuracy"]
    for step, model in zip(pruning.steps[1:], found.models, strict=True):
        assert model.accuracy == step.evaluation["accuracy"]
        assert model.retained.value == step.retained and model.removed[-1] == step.removed
        alike = model.alike
        assert alike.cka.shape == (15, 15 - step.step)
        same = alike.readouts <= min(model.removed)
        assert not alike.changed[same].any() and alike.changed[~same].all()
        np.testing.assert_allclose(alike.js_diagonal.mean[same], 1)
        np.testing.assert_allclose(alike.cka_diagonal.mean[same][1:], 1)
        assert (alike.cka_diagonal.mean[~same] < 1 - 1e-6).all()
        assert alike.cka[-1, -1] == pytest.approx(alike.cka_output.mean)
        assert alike.js[-1, -1] == pytest.approx(alike.js_output.mean)
        beyond = (alike.js_output.mean - alike.js_unrelated) / (1 - alike.js_unrelated)
        assert alike.js_beyond_chance.mean == pytest.approx(beyond)
        assert alike.gap.mean == pytest.approx(alike.cka_output.mean - beyond)


@pytest.mark.slow
def test_removing_what_matters_changes_states_and_decisions(demo, task):
    found = similarity(demo, task, remove=[1]).models[0]
    harmless = similarity(demo, task, remove=[10]).models[0]
    for name in ("cka_output", "js_output", "cosine_output", "js_beyond_chance"):
        much, little = getattr(found.alike, name), getattr(harmless.alike, name)
        assert much.ci_high < little.ci_low, name
    assert harmless.retained.value > 0.9 > found.retained.ci[1]


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_comes_to_the_same_bytes(demo, task, tmp_path, monkeypatch):
    whole = similarity(demo, task, remove=[3], out=tmp_path / "whole")
    seen, really = [], module.see_minibatch

    def once(decoder, prepared, members, *rest):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(members[0])
        return really(decoder, prepared, members, *rest)

    monkeypatch.setattr(module, "see_minibatch", once)
    with pytest.raises(KeyboardInterrupt):
        similarity(demo, task, remove=[3], out=tmp_path / "parts")
    manifest = json.loads((tmp_path / "parts/manifest.json").read_text())
    assert manifest["status"] == "failed"
    monkeypatch.setattr(module, "see_minibatch", lambda *args: seen.append(0) or really(*args))
    resumed = similarity(demo, task, remove=[3], out=tmp_path / "parts")
    assert resumed.state == "resumed" and len(seen) == whole.minibatches
    files = [p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.*")]
    assert len(files) == 2 + whole.minibatches
    for name in files:
        if name.name != "manifest.json":
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "parts" / name
            ).read_bytes()
    again = similarity(demo, task, remove=[3], out=tmp_path / "parts")
    assert again.state == "finished" and again.to_dict() == whole.to_dict()
    assert len(seen) == whole.minibatches
    with pytest.raises(UserError, match="holds another run: its option remove was"):
        similarity(demo, task, remove=[4], out=tmp_path / "parts")


def test_minibatches_hold_every_question_once():
    for count, size in ((40, None), (99, None), (99, 9), (1000, None)):
        members = draw_minibatches(count, size, 0)
        assert sorted(np.concatenate(members)) == list(range(count))
        least = size or min(64, max(8, count // 10))
        assert all(least <= len(of) < 2 * least for of in members)
    with pytest.raises(UserError, match="39 questions make 4 minibatches of 8.*at least 40"):
        draw_minibatches(39, None, 0)
    with pytest.raises(UserError, match="or a smaller minibatch"):
        draw_minibatches(60, 16, 0)
    with pytest.raises(UserError, match="at least 8"):
        draw_minibatches(60, 4, 0)


@pytest.mark.slow
def test_a_run_of_another_model_or_other_questions_is_refused(
    tiny, demo, task, pruned_run, tmp_path
):
    _, path = pruned_run
    with pytest.raises(UserError, match="is not the base model of .*prune, which pruned demo"):
        similarity(tiny["llama"], task, run=path)
    with pytest.raises(UserError, match="other questions: their questions was 120 and now is 60"):
        similarity(demo, load_task("demo", limit=60), run=path)
    similarity(demo, task, remove=[3], out=tmp_path / "s")
    with pytest.raises(UserError, match="a run of similarity, which removes no blocks"):
        similarity(demo, task, run=tmp_path / "s")
    for wrong, says in (
        ({"remove": [99]}, "blocks 0 to 13"),
        ({"remove": [2, 2]}, "twice"),
        ({"remove": []}, "names no block"),
        ({}, "either remove"),
        ({"remove": range(14)}, "at least one must stay"),
    ):
        with pytest.raises(UserError, match=says):
            similarity(demo, task, **wrong)


def test_nan_names_the_block_and_the_question(tiny_dirs, small_task):
    decoder = load_model(str(tiny_dirs["llama"]))
    prepared = prepare_minibatch(decoder, small_task, np.arange(8), 2)
    decoder.blocks[3].mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"block 3 gives NaN .* on question '0'"):
        see_minibatch(decoder, prepared, np.arange(8), [(), (2,)], 0)


def test_too_little_memory_is_said(tiny_dirs, small_task):
    decoder = load_model(str(tiny_dirs["llama"]), max_memory="63MB")
    with pytest.raises(UserError, match="smaller minibatch, or a larger max_memory"):
        prepare_minibatch(decoder, small_task, np.arange(8), 300)


@pytest.mark.slow
def test_the_command(run, tmp_path):  # noqa: F811
    words = ("similarity", "demo", "--limit", 80)
    code, out, _ = run(*words, "--remove", "9,3", "--out", "s")
    assert code == 0 and "outputs" in out and "next: phaseprune prune demo" in out
    assert "blocks 9, 3" in out and max(map(len, out.split("next:")[0].splitlines())) <= 80
    page = (tmp_path / "s/report.html").read_text()
    assert 'id="similarity"' in page and 'id="matrices"' in page and "CKA" in page
    assert "http://" not in page and "https://" not in page
    code, out, err = run(*words, "--remove", "9,3", "--out", "s", "--json")
    assert code == 0 and "finished before" in err
    assert json.loads(out) == json.loads((tmp_path / "s/similarity.json").read_text())
    assert (
        run(
            "prune",
            "demo",
            "--limit",
            100,
            "--remove",
            2,
            "--calibration",
            20,
            "--out",
            "p",
            "--no-export",
            "--quiet",
        )[0]
        == 0
    )
    code, out, _ = run("similarity", "demo", "--limit", 100, "--run", "p", "--out", "l")
    assert code == 0 and "Step 2, the chosen one," in " ".join(out.split())
    assert "next: phaseprune report l" in out
    assert max(map(len, out.split("next:")[0].splitlines())) <= 80
    (tmp_path / "l/report.html").unlink()
    assert run("report", "l")[0] == 0 and (tmp_path / "l/report.html").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "either --remove 3,7 or --run RUN"),
        (("--remove", "3", "--run", "r"), "either --remove 3,7 or --run RUN"),
        (("--remove", "3,x"), "block indices"),
        (("--remove", "3", "--limit", "30"), "give at least 40 questions"),
        (("--run", "nowhere"), "no manifest.json"),
    ],
)
def test_mistakes(run, words, says):  # noqa: F811
    code, out, err = run("similarity", "demo", *words)
    assert code == 2 and out == "" and says in sentence(err)


@pytest.mark.slow
def test_texts_with_unequal_options(tiny, tmp_path):
    rows = [dict(row, question=f"{row['question']} {n}") for n in range(6) for row in QUESTIONS]
    path = write_jsonl(tmp_path / "many.jsonl", rows)
    for options in (
        {"scoring": "text", "length_norm": "chars"},
        {"permute": True},
        {"probability": "vocabulary"},
    ):
        found = similarity(tiny["gemma2"], load_task(str(path), **options), remove=[2])
        alike = found.models[0].alike
        assert found.questions == 48 and 0 < alike.js_output.mean < 1
        assert 0 < alike.cka_output.mean < 1 and np.isfinite(alike.gap_p_value)
        json.dumps(found.to_dict(), allow_nan=False)
        found.plot()
