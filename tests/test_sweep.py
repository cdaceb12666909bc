"""The fast way against the slow, obvious way: delete the block, run the whole model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Gemma2Config

from conftest import CONFIGS, ROPE, delete_block, save_tiny
from phaseprune.decoder.load import load_model
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import EncodedQuestion, encode_pair, encode_task
from phaseprune.questions.prompts import render
from phaseprune.questions.split import split
from phaseprune.search.objectives import OBJECTIVES, best, figures
from phaseprune.search.prune import prune
from phaseprune.sweep.measure import prepare, trace
from phaseprune.sweep.rows import make_rows
from phaseprune.sweep.walk import sweep_scores, trace_scores


@torch.no_grad()
def naive_scores(model, tokenizer, task):
    """[Q, K] scores, one plain forward of the whole model for each (question, option)."""
    width = int(task.options.max())
    scores = np.full((len(task.questions), width), -np.inf)
    for q, question in enumerate(task.questions):
        context, continuations = render(question, task.scoring)
        for o, continuation in enumerate(continuations):
            before, after = encode_pair(tokenizer, context, continuation)
            logits = model(torch.tensor([before + after[:-1]]), use_cache=False).logits[0].double()
            if task.scoring == "letter" and task.probability == "options":
                scores[q, o] = logits[-1, after[0]]
                continue
            log_p = logits.log_softmax(-1)
            scores[q, o] = sum(
                float(log_p[len(before) - 1 + i, token]) for i, token in enumerate(after)
            )
    return scores


def without(model, blocks_path, removed):
    for block in sorted(removed, reverse=True):
        model = delete_block(model, blocks_path, block)
    return model


@pytest.mark.parametrize("family", CONFIGS)
def test_every_candidate_scores_as_the_model_without_the_block(tiny, family, small_task):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    for removed in ([], [2]):
        live = [b for b in range(5) if b not in removed]
        sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, live)
        for block, scores in zip(sweep.blocks, sweep.scores, strict=True):
            plain = without(decoder.model, decoder.blocks_path, [*removed, block])
            expected = naive_scores(plain, decoder.tokenizer, small_task)
            np.testing.assert_allclose(scores, expected, atol=1e-4)
        assert np.ptp([s[np.isfinite(s)].sum() for s in sweep.scores]) > 0.1  # blocks matter


def count_block_runs(decoder):
    """Rows that each block runs, counted outside of our code: by the MLP inside the block."""
    counts = []
    handles = [
        block.mlp.register_forward_hook(lambda module, args, output: counts.append(len(args[0])))
        for block in decoder.blocks
    ]
    return counts, handles


@pytest.mark.parametrize("removed", [[], [0], [1, 4]])
def test_a_step_costs_n_times_n_plus_1_over_2_block_passes(tiny, small_task, removed):
    decoder = tiny["llama"]
    prepared = prepare(decoder, small_task)
    live = [b for b in range(5) if b not in removed]
    counts, handles = count_block_runs(decoder)
    sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, live)
    for handle in handles:
        handle.remove()
    n = len(live)
    assert sweep.block_passes == n * (n + 1) // 2
    assert sum(counts) == prepared.rows.rows * n * (n + 1) // 2


TREES = {"llama": 2**31, "qwen3": 2**31, "gpt2": 2**31, "gpt_neox": 2**31, "gemma2": 0, "falcon": 0}


@pytest.mark.parametrize("family", CONFIGS)
def test_which_families_run_trees(tiny, family):
    """None with ALiBi (a mask of ours lacks its bias) and with a window shorter than the probe."""
    assert tiny[family].tree_tokens == TREES[family]


def test_a_sliding_window_bounds_the_trees(tmp_path, question_file, monkeypatch):
    monkeypatch.setitem(CONFIGS, "windowed", lambda: Gemma2Config(**ROPE, head_dim=8,
                                                                  sliding_window=20))  # fmt: skip
    decoder = load_model(str(save_tiny(tmp_path / "windowed", "windowed")))
    assert decoder.tree_tokens == 20
    task = load_task(str(question_file), scoring="text")
    prepared = prepare(decoder, task)
    encoded = encode_task(task, decoder.tokenizer)
    assert 0 < sum(q.tree_length <= 20 for q in encoded) < len(encoded)  # both kinds of rows
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    expected = naive_scores(decoder.model, decoder.tokenizer, task)
    np.testing.assert_allclose(raw[:, -1], expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_trees_score_as_plain_rows(tiny, data):
    tokens = st.integers(0, 319)
    decoder = tiny[data.draw(st.sampled_from(["llama", "gpt2"]))]
    questions = [
        EncodedQuestion(
            tuple(data.draw(st.lists(tokens, min_size=1, max_size=12))),
            tuple(
                tuple(data.draw(st.lists(tokens, min_size=1, max_size=5)))
                for _ in range(data.draw(st.integers(2, 5)))
            ),
            (1,),
        )
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    trees = make_rows(questions, 64, tree_tokens=decoder.tree_tokens)
    plain = make_rows(questions, 64)
    assert trees.rows <= len(questions)
    np.testing.assert_allclose(
        trace_scores(decoder, trees, True), trace_scores(decoder, plain, True), atol=1e-4
    )


def test_text_questions_are_one_row_each(tiny, question_file):
    task = load_task(str(question_file), scoring="text")
    assert prepare(tiny["llama"], task).rows.rows == len(task.questions)
    assert prepare(tiny["falcon"], task).rows.rows > 2 * len(task.questions)


def test_many_small_batches_give_the_same(tiny, small_task, monkeypatch):
    decoder = tiny["gemma2"]
    whole = prepare(decoder, small_task)
    monkeypatch.setattr("phaseprune.sweep.measure.batch_tokens", lambda decoder: 40)
    pieces = prepare(decoder, small_task)
    assert len(pieces.rows.batches) > 3 and len(whole.rows.batches) == 1
    assert pieces.rows.padded_tokens <= whole.rows.padded_tokens
    one = sweep_scores(decoder, whole.rows, whole.needs_vocabulary, range(5))
    two = sweep_scores(decoder, pieces.rows, pieces.needs_vocabulary, range(5))
    assert two.block_passes == one.block_passes == 15
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


@pytest.mark.parametrize("family", CONFIGS)
def test_trace_reads_what_the_model_would_say(tiny, family, small_task):
    """Readout l of the full model = the model with all later blocks deleted; L = its own logits."""
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    for readout in (1, 3, 5):
        plain = without(decoder.model, decoder.blocks_path, range(readout, 5))
        expected = naive_scores(plain, decoder.tokenizer, small_task)
        np.testing.assert_allclose(raw[:, readout], expected, atol=1e-4)
    output = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, output_only=True)
    np.testing.assert_allclose(output[:, 0], raw[:, -1], atol=1e-5)


def test_a_removed_block_is_the_identity_in_a_trace(tiny, small_task):
    decoder = tiny["llama"]
    prepared = prepare(decoder, small_task)
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, removed=[1, 4])
    np.testing.assert_array_equal(raw[:, 2], raw[:, 1])
    np.testing.assert_array_equal(raw[:, 5], raw[:, 4])
    plain = without(decoder.model, decoder.blocks_path, [1, 4])
    expected = naive_scores(plain, decoder.tokenizer, small_task)
    np.testing.assert_allclose(raw[:, -1], expected, atol=1e-4)


def test_vocabulary_probabilities_are_the_labels_own(tiny, question_file):
    task = load_task(str(question_file), scoring="letter", probability="vocabulary")
    decoder = tiny["llama"]
    traced = trace(decoder, task)
    log_p = naive_scores(decoder.model, decoder.tokenizer, task)
    np.testing.assert_allclose(traced.decisions.probabilities[:, -1], np.exp(log_p), atol=1e-5)
    assert (traced.decisions.probabilities.sum(-1) < 1).all()


def test_normalised_texts(tiny, question_file):
    decoder = tiny["llama"]
    plain = trace(decoder, load_task(str(question_file), scoring="text"))
    task = load_task(str(question_file), scoring="text", length_norm="chars")
    traced = trace(decoder, task)
    np.testing.assert_allclose(traced.raw_scores, plain.raw_scores)
    for q, question in enumerate(task.questions):
        lengths = np.array([len(c) for c in question.choices])
        scores = traced.raw_scores[q, -1, : len(lengths)] / lengths * lengths.mean()
        np.testing.assert_allclose(traced.decisions.scores[q, -1, : len(lengths)], scores)


def check_to_the_end(decoder, calibration, objective):
    """Walk the whole search; every candidate of every step must score as the loop everyone runs.

    The loop: delete each live block in turn from a copy of what is left, run the whole model.
    Returns the blocks in order of removal, chosen from the loop's own scores.
    """
    prepared, removed = prepare(decoder, calibration), []
    while len(removed) < len(decoder.blocks) - 1:
        live = [b for b in range(len(decoder.blocks)) if b not in removed]
        sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, live)
        assert sweep.block_passes == len(live) * (len(live) + 1) // 2
        left, values = without(decoder.model, decoder.blocks_path, removed), []
        for position, (block, scores) in enumerate(zip(sweep.blocks, sweep.scores, strict=True)):
            assert block == live[position]
            plain = delete_block(left, decoder.blocks_path, position)
            expected = naive_scores(plain, decoder.tokenizer, calibration)
            np.testing.assert_allclose(scores, expected, atol=1e-4)
            values.append(figures(prepared.decide(expected[:, None]))[objective])
        removed.append(live[best(objective, values)])
    return removed


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_every_candidate_of_every_step_and_the_same_sequence(tiny, family, small_task, objective):
    decoder = tiny[family]
    pruning = prune(decoder, small_task, remove=4, calibration=5, objective=objective, seed=1)
    calibration, _ = split(small_task, 5, None, 1)
    assert pruning.removed == check_to_the_end(decoder, calibration, objective)
    assert [step.block_passes for step in pruning.steps] == [0, 15, 10, 6, 3]


def test_the_bundled_model_to_the_end(demo):
    task = load_task("demo", limit=40)
    pruning = prune(demo, task, remove=len(demo.blocks) - 1, calibration=6)
    calibration, _ = split(task, 6, None, 0)
    assert pruning.removed == check_to_the_end(demo, calibration, "decision_margin")
