"""Noise at a readout: against hooks on the whole model, its variance, its cost, its figures."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import QUESTIONS, write_jsonl
from phaseprune.cli.main import main
from phaseprune.decision.perturbation import curve, halving_noise, phase_curves, phase_difference
from phaseprune.decision.transition import Transition
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.probes import parts
from phaseprune.probes.perturbation import check_seeds, most_passes, noise_levels, perturb
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair, encode_task
from phaseprune.questions.prompts import render
from phaseprune.report.perturb import halving_cell, shown_levels
from phaseprune.sweep.branches import (
    branch_scores,
    noise_births,
    perturbed,
    prefix_key,
    token_keys,
    token_noise,
)
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.probe import ANY_LENGTH
from phaseprune.sweep.rows import make_rows
from phaseprune.sweep.states import Walker
from phaseprune.sweep.walk import trace_scores

LEVELS, DRAWS, SEED = (0.02, 0.5), 2, 3


def noisy(hidden, tokens, readout, draw, variance):
    """The definition: one row's ``[1, T, D]`` state plus sqrt(variance) * sigma(h) * N(0, I)."""
    keys = [prefix_key(tokens[: i + 1]) for i in range(len(tokens))]
    normal = token_noise(keys, SEED, draw, readout, hidden.shape[2:])
    spread = hidden.float().std(dim=-1, unbiased=False, keepdim=True)
    return hidden + variance**0.5 * spread * normal[None]


@torch.no_grad()
def hooked_scores(decoder, task, readout, draw, variance):
    """``[Q, K]``: the whole model on each (question, option), with a hook at one readout."""
    width = int(task.options.max())
    scores = np.full((len(task.questions), width), -np.inf)
    tokens = []

    def before(module, args, kwargs):
        if args:
            return (noisy(args[0], tokens, readout, draw, variance), *args[1:]), kwargs
        name = decoder.input_name
        return args, kwargs | {name: noisy(kwargs[name], tokens, readout, draw, variance)}

    def after(module, args, output):
        if isinstance(output, tuple):
            return (noisy(output[0], tokens, readout, draw, variance), *output[1:])
        return noisy(output, tokens, readout, draw, variance)

    if readout == 0:
        handle = decoder.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = decoder.blocks[readout - 1].register_forward_hook(after)
    for q, question in enumerate(task.questions):
        context, continuations = render(question, task.scoring)
        for o, continuation in enumerate(continuations):
            shared, own = encode_pair(decoder.tokenizer, context, continuation)
            tokens[:] = shared + own[:-1]
            logits = decoder.model(torch.tensor([tokens]), use_cache=False).logits[0].double()
            if task.scoring == "letter":
                scores[q, o] = logits[-1, own[0]]
            else:
                log_p = logits.log_softmax(-1)
                places = range(len(shared) - 1, len(tokens))
                scores[q, o] = sum(float(log_p[p, t]) for p, t in zip(places, own, strict=True))
    handle.remove()
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])  # falcon: plain rows
def test_noisy_streams_score_as_the_whole_model_with_hooks(tiny, family, small_task):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    births = noise_births(5, LEVELS, DRAWS, SEED)
    found = branch_scores(decoder, prepared.rows, prepared.needs_vocabulary, births)
    scores = found.scores.reshape(len(small_task.questions), 6, DRAWS, len(LEVELS), -1)
    for readout, draw, level in ((0, 0, 1), (1, 1, 0), (3, 0, 0), (4, 1, 1), (5, 1, 1), (5, 0, 0)):
        expected = hooked_scores(decoder, small_task, readout, draw, LEVELS[level])
        np.testing.assert_allclose(scores[:, readout, draw, level], expected, atol=3e-4)
    held, clean = (np.where(np.isfinite(s), s, 0) for s in (scores, found.base[:, -1]))
    changes = np.abs(held - clean[:, None, None, None])
    assert (changes.max(axis=(0, 4)) > 1e-3).all()  # noise does something everywhere
    # The stream that the others branch off from is the model itself.
    plain = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    np.testing.assert_allclose(found.base, plain, atol=1e-5)


@pytest.mark.slow
def test_noise_does_not_depend_on_rows_batches_or_shards(tiny, small_task, monkeypatch):
    """Packed, plain, in parts and in shards: a token has one noise."""
    decoder = tiny["llama"]
    encoded = encode_task(small_task, decoder.tokenizer)
    vocabulary = small_task.scoring == "text"
    layouts = [
        make_rows(encoded, 4096, packed_length=ANY_LENGTH),
        make_rows(encoded, 40, packed_length=ANY_LENGTH),
        make_rows(encoded, 64, packed_length=ANY_LENGTH, shard_tokens=40),
        make_rows(encoded, 64),
        make_rows(encoded, 4096, packed_length=12),  # some packed, some plain
    ]
    assert len(layouts[2].shards) > 2 and layouts[3].batches[0].packing is None
    assert len(layouts[1].batches) > 2
    births = noise_births(5, LEVELS, DRAWS, SEED)
    first, *others = (branch_scores(decoder, rows, vocabulary, births) for rows in layouts)
    for other in others:
        np.testing.assert_allclose(other.scores, first.scores, atol=3e-4)
        assert other.block_passes == first.block_passes
    monkeypatch.setattr("phaseprune.sweep.walk.batch_tokens", lambda decoder: 1)
    one_by_one = branch_scores(decoder, layouts[0], vocabulary, births)
    np.testing.assert_allclose(one_by_one.scores, first.scores, atol=3e-4)


def test_every_token_has_the_key_of_its_prefix(tiny, question_file):
    """In packed rows with trunks, and in plain ones, where padding has none."""
    decoder = tiny["llama"]
    task = load_task(str(question_file), scoring="text", shots=3, shots_from=question_file, limit=4)
    encoded = encode_task(task, decoder.tokenizer)
    prefixes = {
        prefix_key((q.context + c[:-1])[: i + 1])
        for q in encoded
        for c in q.continuations
        for i in range(len(q.context) + len(c) - 1)
    }
    for length, size in ((ANY_LENGTH, 4096), (ANY_LENGTH, 50), (0, 4096), (0, 64)):
        rows = make_rows(encoded, size, packed_length=length)
        keys = [k for shard in rows.shards for some in token_keys(shard) for k in some]
        assert {key for key in keys if key} == prefixes
        assert sum(key is None for key in keys) == rows.padded_tokens - rows.tokens


def test_the_noise_has_the_stated_variance(tiny, small_task):
    """Over the hidden units of a token, in units of that token's own variance; mean 0."""
    width, tokens = 512, 400
    hidden = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0))
    hidden = hidden * torch.linspace(0.1, 30, tokens)[:, None] + 5
    keys = [prefix_key([n]) for n in range(tokens)]
    normal = token_noise(keys, 0, 0, 0, (width,))
    out = perturbed(hidden, normal, (0.005, 0.1, 1.0)) - hidden
    count = tokens * width
    for change, variance in zip(out, (0.005, 0.1, 1.0), strict=True):
        units = (change / hidden.std(dim=-1, unbiased=False, keepdim=True)).double()
        assert abs(units.var().item() / variance - 1) < 5 * (2 / count) ** 0.5
        assert abs(units.mean().item()) < 5 * (variance / count) ** 0.5
        # Not scaled by what other tokens are like: each token has the variance itself.
        assert (units.var(dim=-1) / variance - 1).abs().max() < 6 * (2 / width) ** 0.5
    # Other draws, readouts, seeds and tokens have other noise.
    others = [token_noise(keys, *of, (width,)) for of in ((0, 1, 0), (0, 0, 1), (1, 0, 0))]
    for other in (*others, normal.roll(1, 0)):
        correlation = (other * normal).double().mean().item()
        assert abs(correlation) < 5 / count**0.5
    np.testing.assert_array_equal(normal[7], token_noise([keys[7]], 0, 0, 0, (width,))[0])


def test_the_variance_of_noisy_streams_as_they_are_born(tiny, small_task):
    """Read off the states in the walk, all tokens together."""
    decoder = tiny["llama"]
    prepared = prepare(decoder, small_task)
    births = noise_births(5, LEVELS, DRAWS, SEED)
    (shard,) = prepared.rows.shards
    walker = Walker(decoder, shard, 4096, range(5))
    base = walker.embedded()
    (born,) = births.begin(walker)(0, {0: base}, False, lambda streams: None)
    change = (born - base[0]).reshape(DRAWS, len(LEVELS), -1, decoder.width)
    units = change / base[0][0].std(dim=-1, unbiased=False, keepdim=True)
    count = units[0, 0].numel()
    for draw in range(DRAWS):
        for level, variance in enumerate(LEVELS):
            measured = units[draw, level].square().mean().item() / variance
            assert abs(measured - 1) < 5 * (2 / count) ** 0.5
    # One draw's levels are the same noise, larger; another draw is another noise.
    ratio = (LEVELS[1] / LEVELS[0]) ** 0.5
    np.testing.assert_allclose(units[0, 1], units[0, 0] * ratio, atol=1e-3)
    assert not torch.allclose(units[0, 0], units[1, 0], atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_the_cost_is_bounded_by_levels_times_seeds_pruning_steps(tiny, small_task, family):
    """Counted inside the blocks by hooks: a stream born at readout r runs L - r blocks."""
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    births = noise_births(5, LEVELS, DRAWS, SEED)
    ran = dict.fromkeys(range(5), 0)

    def count(block):
        def hook(module, args, output):
            ran[block] += args[0].shape[:-1].numel()

        return hook

    handles = [b.mlp.register_forward_hook(count(n)) for n, b in enumerate(decoder.blocks)]
    found = branch_scores(decoder, prepared.rows, prepared.needs_vocabulary, births)
    for handle in handles:
        handle.remove()
    branches = len(LEVELS) * DRAWS
    expected = {
        block: prepared.rows.padded_tokens * (1 + branches * (block + 1)) for block in range(5)
    }
    if family == "llama":  # the last block is run for what is read alone
        reads = sum(shard.reads for shard in prepared.rows.shards)
        expected[4] = reads * (1 + branches * 5)
    assert ran == expected
    assert found.block_passes == births.block_passes == 5 + branches * 15
    assert found.block_passes <= most_passes(len(LEVELS), DRAWS, 5) == (branches + 1) * 15


@pytest.mark.slow
def test_a_streamed_model_and_a_small_budget_give_the_same(
    tiny, tiny_dirs, small_task, monkeypatch
):
    directory = str(tiny_dirs["llama"])
    whole = perturb(tiny["llama"], small_task, noise=[0.1], noise_seeds=2)
    streamed = load_model(directory, stream=True)
    reads = len(streamed.placement.reads)
    found = perturb(streamed, small_task, noise=[0.1], noise_seeds=2)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-4)
    # One walk of one shard reads each block once (and trying out packed rows once more).
    assert streamed.placement.reads[reads:].count(3) == 2
    monkeypatch.setattr("phaseprune.sweep.memory.state_budget", lambda decoder: 250_000)
    assert len(prepare(tiny["llama"], small_task, streams=13).rows.shards) > 1
    found = perturb(tiny["llama"], small_task, noise=[0.1], noise_seeds=2)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-4)


@pytest.mark.slow
def test_the_figures_are_means_over_draws_and_questions(tiny, small_task):
    decoder = tiny["qwen3"]
    found = perturb(decoder, small_task, noise=[0.5, 0, 0.02, 0.5], noise_seeds=2, seed=SEED)
    assert found.noise.tolist() == [0, 0.02, 0.5]
    assert found.margins.shape == (len(small_task.questions), 6, 3)
    # No noise is the model itself, wherever it is not put in.
    clean = found.trace.decisions.margins[:, -1]
    np.testing.assert_array_equal(found.margins[:, :, 0], np.repeat(clean[:, None], 6, axis=1))
    for part in ("mean", "ci_low", "ci_high"):
        clean = getattr(found.trace.accuracy, part)[-1]
        np.testing.assert_allclose(getattr(found.accuracy, part)[:, 0], clean)
    prepared = prepare(decoder, small_task)
    for readout, level in ((0, 2), (5, 1), (3, 2)):
        margins = [
            prepared.decide(
                hooked_scores(decoder, small_task, readout, draw, found.noise[level])[:, None]
            ).margins[:, 0]
            for draw in range(2)
        ]
        np.testing.assert_allclose(
            found.margins[:, readout, level], np.mean(margins, axis=0), atol=1e-3
        )
    np.testing.assert_allclose(found.decision_margin.mean, found.margins.mean(axis=0))
    low, high = found.decision_margin.ci_low, found.decision_margin.ci_high
    assert (low <= found.decision_margin.mean).all() and (high >= found.decision_margin.mean).all()
    assert found.block_passes == 5 + 4 * 15 <= most_passes(2, 2, 5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_a_killed_run_goes_on(
    tiny, question_file, tmp_path, monkeypatch
):
    decoder, task = tiny["llama"], load_task(str(question_file), scoring="text")
    monkeypatch.setattr(parts, "PART", 3)
    options = dict(noise=[0.1], noise_seeds=2)
    first = perturb(decoder, task, out=tmp_path / "a", **options)
    written = (tmp_path / "a" / "perturbation.json").read_bytes()
    assert len(list((tmp_path / "a" / "parts").iterdir())) == 3
    perturb(decoder, task, out=tmp_path / "b", **options)
    assert (tmp_path / "b" / "perturbation.json").read_bytes() == written
    other = perturb(decoder, task, seed=1, **options)
    assert np.abs(other.margins[:, :, 1] - first.margins[:, :, 1]).max() > 1e-3

    # Killed in the second part; damaged while at it.
    measured = []

    def dying(decoder, task, **more):
        measured.append(len(task.questions))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return prepare(decoder, task, **more)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "prepare", dying)
        with pytest.raises(KeyboardInterrupt):
            perturb(decoder, task, out=tmp_path / "c", **options)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["status"] == "failed"
    assert not (tmp_path / "c" / "perturbation.json").exists()
    kept = sorted((tmp_path / "c" / "parts").iterdir())
    kept[1].write_bytes(kept[1].read_bytes()[:100])
    measured.clear()
    monkeypatch.setattr(parts, "prepare", dying)
    resumed = perturb(decoder, task, out=tmp_path / "c", **options)
    assert resumed.state == "resumed" and measured == [3, 2]  # the first part is kept
    assert (tmp_path / "c" / "perturbation.json").read_bytes() == written
    again = perturb(decoder, task, out=tmp_path / "c", **options)
    assert again.state == "finished" and again.to_dict() == first.to_dict() and len(measured) == 2
    with pytest.raises(UserError, match="its option noise was"):
        perturb(decoder, task, out=tmp_path / "c", noise=[0.2], noise_seeds=2)


def test_parts_of_questions_with_different_numbers_of_options(tiny, question_file, monkeypatch):
    decoder, task = tiny["llama"], load_task(str(question_file))
    whole = perturb(decoder, task, noise=[0.1], noise_seeds=1)
    monkeypatch.setattr(parts, "PART", 2)
    found = perturb(decoder, task, noise=[0.1], noise_seeds=1)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-4)
    np.testing.assert_allclose(found.trace.raw_scores, whole.trace.raw_scores, atol=1e-4)


LEVEL_LISTS = st.lists(st.floats(1e-4, 10), min_size=1, max_size=8, unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_halving_is_where_the_curve_crosses_half(data):
    noise = [0.0, *data.draw(LEVEL_LISTS)]
    values = data.draw(
        st.lists(st.floats(-1, 1), min_size=len(noise), max_size=len(noise)).map(np.array)
    )
    found = float(halving_noise(values, noise))
    half = values[0] / 2
    if not np.isfinite(found):
        assert (values > half).all()
    elif values[0] <= 0:
        assert found == 0
    else:
        assert np.interp(found, noise, values) == pytest.approx(half, abs=1e-9)
        before = [v for v, level in zip(values, noise, strict=True) if level < found - 1e-12]
        assert all(value > half for value in before)  # the first crossing
    np.testing.assert_array_equal(halving_noise(np.stack([values, values]), noise), [found] * 2)


def falling(questions=200, at=0.3, spread=0.1, seed=0):
    """``[Q, 1, N]`` margins that fall in a straight line and halve at a known variance."""
    noise = np.array([0, 0.1, 0.2, 0.5, 1.0])
    level = 0.8 + spread * np.random.default_rng(seed).standard_normal(questions)
    return level[:, None, None] * (1 - noise / (2 * at)), noise


def test_a_known_halving_is_found_with_its_interval():
    margins, noise = falling()
    found = curve(margins, noise, [0], 0).halving
    assert found.value == pytest.approx(0.3) and found.reason is None
    assert found.ci_low == pytest.approx(0.3) and found.ci_high == pytest.approx(0.3)
    # Half of the questions fall early, half late: the interval has width and holds the value.
    early, late = falling(at=0.15)[0], falling(at=0.9)[0]
    found = curve(np.concatenate([early[:60], late[:60]]), noise, [0], 0).halving
    assert 0.15 < found.ci_low < found.value < found.ci_high < 0.9


@pytest.mark.slow
def test_the_interval_of_a_halving_covers_the_true_one():
    """500 samples of 50 questions from a population whose mean curve is known."""
    noise = np.array([0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])

    def sample(seed, questions):
        rng = np.random.default_rng(seed)
        clean = np.clip(rng.normal(0.6, 0.35, questions), -1, 1)[:, None]
        scale = np.exp(rng.normal(np.log(0.08), 1, questions))[:, None]
        margins = clean * np.exp(-noise / scale) - 0.2 * (1 - np.exp(-noise / 0.5))
        return (margins + rng.normal(0, 0.05, margins.shape) * (noise > 0))[:, None]

    true = float(halving_noise(sample(0, 400_000).mean(axis=(0, 1)), noise))
    found = [curve(sample(1 + n, 50), noise, [0], n).halving for n in range(500)]
    held = [f.ci_low <= true and (f.ci_high is None or true <= f.ci_high) for f in found]
    assert 0.92 <= np.mean(held) <= 0.98


def test_halving_says_why_there_is_none():
    margins, noise = falling(at=5)
    found = curve(margins, noise, [0], 0).halving
    assert found.value is None and "no level up to 1 halves" in found.reason
    assert found.ci_low is None and found.ci_high is None
    assert halving_cell(vars(found), 1.0) == ">1"
    found = curve(margins - 0.79, noise, [0], 0).halving
    assert found.value is None and "without noise is not above 0" in found.reason
    assert halving_cell(vars(found), 1.0) == "–"
    # The mean never halves, some draws do: a lower bound, no upper one.
    mixed = np.concatenate([falling(at=0.25)[0][:60], falling(at=50)[0][:80]])
    found = curve(mixed, noise, [0], 0).halving
    if found.value is None:
        assert found.ci_low is not None and found.ci_high is None
        assert halving_cell(vars(found), 1.0).endswith(", >1]")
    else:
        assert found.ci_low <= found.value


def test_phases_are_means_over_their_readouts_and_hold_the_papers_levels():
    rng = np.random.default_rng(0)
    noise = np.array([0, 0.02, 0.1, 1.0])
    silent = 0.9 * np.array([1, 0.4, 0.1, 0])
    decisive = 0.9 * np.array([1, 1, 0.98, 0.7])
    margins = np.stack([silent, silent, decisive, decisive])[None] * (
        1 + 0.05 * rng.standard_normal((100, 1, 1))
    )
    transition = Transition(True, 2, silent_blocks=(0, 1), decisive_blocks=(2,))
    phases = phase_curves(margins, noise, transition, 0)
    assert phases["silent"].readouts == (0, 1) and phases["decisive"].readouts == (2, 3)
    np.testing.assert_allclose(
        phases["silent"].decision_margin.mean, margins[:, :2].mean(axis=(0, 1))
    )
    assert phases["silent"].halving.value == pytest.approx(0.02 * 0.5 / 0.6)
    assert phases["silent"].paper_share[0] == pytest.approx(0.4)
    assert phases["decisive"].paper_share[0] == pytest.approx(0.98)
    assert phases["decisive"].halving.value is None
    none = Transition(False, reason="none")
    assert phase_curves(margins, noise, none, 0) == {}
    assert phase_difference(margins, none, 0) is None
    difference = phase_difference(margins, transition, 0)
    expected = (margins[:, 2:] - margins[:, :2]).mean(axis=(0, 1))
    np.testing.assert_allclose(difference.mean, expected, atol=1e-12)
    assert difference.ci_low[2] > 0.7 and difference.ci_high[0] == 0
    beyond = phase_curves(margins[:, :, :2], noise[:2], transition, 0)
    assert beyond["decisive"].paper_share is None  # 0.1 was not tried


@pytest.mark.parametrize(
    ("noise", "says"),
    [
        ([-0.1], "0 or more"),
        ([float("nan")], "0 or more"),
        ([float("inf")], "0 or more"),
        ([], "no variance above 0"),
        ([0.0], "no variance above 0"),
        (["0.1"], "'0.1' is no number"),
        ([True], "no number"),
    ],
)
def test_levels_that_do_not_do(noise, says):
    with pytest.raises(UserError, match=says):
        noise_levels(noise)


@pytest.mark.parametrize("seeds", [0, -1, 1.5])
def test_numbers_of_draws_that_do_not_do(seeds):
    with pytest.raises(UserError, match="at least 1"):
        check_seeds(seeds)


def test_a_single_question_and_endless_noise_are_refused(tiny, question_file):
    decoder = tiny["llama"]
    with pytest.raises(UserError, match="at least 2"):
        perturb(decoder, load_task(str(question_file), limit=1))
    with pytest.raises(UserError, match=r"noise of sigma\^2 1e\+90 at readout 0 gives NaN .* 0"):
        perturb(decoder, load_task(str(question_file)), noise=[1e90], noise_seeds=1)


def test_levels_that_do_not_fit_are_left_out_evenly():
    assert shown_levels([0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]) == list(range(9))
    many = [n / 1000 for n in range(40)]
    shown = shown_levels(many)
    assert shown[0] == 0 and shown[-1] == 39 and 5 <= len(shown) < 12


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        words = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["phaseprune", *words])
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.mark.slow
def test_the_command_on_the_bundled_model(run, tmp_path):
    words = ("perturb", "demo", "--limit", 40, "--noise", "0.02,0.1,1", "--noise-seeds", 1)
    code, out, _ = run(*words, "--out", "a")
    assert code == 0 and "next: phaseprune ablate demo" in out
    table = out.split("next:")[0].splitlines()
    assert max(map(len, table)) <= 80
    held = json.loads((tmp_path / "a" / "perturbation.json").read_text())
    assert held["noise"] == [0, 0.02, 0.1, 1] and held["readouts"] == list(range(15))
    # Every readout has its row; both phases have one where there is a transition.
    assert held["transition"]["found"] and set(held["phases"]) == {"silent", "decisive"}
    rows = out.split("σ² in units")[0].splitlines()
    firsts = [line.split()[0] for line in rows if line.strip()]
    assert [str(n) for n in range(15)] == [f for f in firsts if f.isdigit()]
    assert "Silent" in firsts and "Decisive" in firsts
    assert held["block_passes"] == 14 + 3 * 105 <= held["block_passes_bound"] == 4 * 105
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Decision Margin with noise" in page and "The paper (arXiv 2605.07271)" in page
    code, out, err = run(*words, "--out", "a", "--json")
    assert code == 0 and json.loads(out) == held and "finished before" in err
    code, out, _ = run("report", "a")
    assert code == 0
    code, out, _ = run("perturb", "demo", "--limit", 20, "--noise", "0.5", "--quiet")
    assert code == 0 and out == ""


@pytest.mark.slow
def test_without_a_transition_there_are_no_phases(run, tiny_dirs, question_file, tmp_path):
    words = ("perturb", tiny_dirs["llama"], "--task", question_file, "--noise", "0.1,0.4")
    code, out, _ = run(*words, "--out", "a")
    assert code == 0 and "No transition was found" in out and "Without a transition" in out
    held = json.loads((tmp_path / "a" / "perturbation.json").read_text())
    assert held["phases"] == {} and held["noise_seeds"] == 3
    for entry in held["halving"]:
        assert entry["value"] is not None or entry["reason"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--noise", "0.1,x"), "'x' is no number"),
        (("--noise", ""), "'' is no number"),
        (("--noise=-0.1",), "0 or more"),
        (("--noise", "0"), "no variance above 0"),
        (("--noise", "nan"), "0 or more"),
        (("--noise-seeds", "0"), "at least 1"),
        (("--noise-seeds", "two"), "--noise-seeds"),
        (("--limit", "1"), "at least 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_sentence_and_exit_2(run, words, says, tmp_path):
    code, out, err = run("perturb", "demo", *words, "--out", "a")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(lines) == 1 and says in lines[0]
    assert "Traceback" not in err and not (tmp_path / "a").exists()


def test_the_figures_show_every_level_and_readout(tiny, tmp_path):
    task = load_task(str(write_jsonl(tmp_path / "q.jsonl", QUESTIONS * 3)))
    found = perturb(tiny["llama"], task, noise=[0.1, 0.4], noise_seeds=1)
    (axes,) = found.plot().axes
    lines = {line.get_label(): line for line in axes.lines}
    assert {"none", "0.1", "0.4"} <= set(lines)
    np.testing.assert_allclose(lines["0.4"].get_ydata(), found.decision_margin.mean[:, 2])
