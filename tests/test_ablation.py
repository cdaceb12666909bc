"""Ablations of single blocks against hooks on the whole model."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from phaseprune.cli.main import main
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.probes import parts
from phaseprune.probes.ablation import ablate
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_task
from phaseprune.questions.split import split
from phaseprune.sweep.branches import (
    KINDS,
    ablation_births,
    ablation_order,
    branch_scores,
    mean_contributions,
)
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.probe import ANY_LENGTH
from phaseprune.sweep.rows import make_rows
from phaseprune.sweep.walk import sweep_scores
from test_sweep import naive_scores

FAMILIES = ["llama", "gemma2", "gpt2", "falcon"]  # falcon: plain rows


def first(output):
    return output[0] if isinstance(output, tuple) else output


def like(output, hidden):
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def given(decoder, args, kwargs):
    return args[0] if args else kwargs[decoder.input_name]


@torch.no_grad()
def slow_means(decoder, task):
    """Mean of block(h) - h over tokens that differ in themselves or in what stands before."""
    changes = [{} for _ in decoder.blocks]
    tokens = []

    def hook(block):
        def record(module, args, kwargs, output):
            change = (first(output) - given(decoder, args, kwargs))[0]
            for position in range(len(tokens)):
                changes[block].setdefault(tuple(tokens[: position + 1]), change[position].double())

        return record

    handles = [
        b.register_forward_hook(hook(n), with_kwargs=True) for n, b in enumerate(decoder.blocks)
    ]
    for question in encode_task(task, decoder.tokenizer):
        for continuation in question.continuations:
            tokens[:] = question.context + continuation[:-1]
            decoder.model(torch.tensor([tokens]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [torch.stack([*some.values()]).mean(dim=0) for some in changes]


def hooked(decoder, task, block, change):
    """Scores of the whole model with ``change(module, args, kwargs, output)`` at a block."""
    handle = decoder.blocks[block].register_forward_hook(change, with_kwargs=True)
    try:
        return naive_scores(decoder.model, decoder.tokenizer, task)
    finally:
        handle.remove()


def swapped_model(decoder, block):
    """A copy of the model whose list of blocks has two in the other order."""
    model = copy.deepcopy(decoder.model)
    path, _, name = decoder.blocks_path.rpartition(".")
    parent = model.get_submodule(path)
    order = list(range(len(decoder.blocks)))
    order[block], order[block + 1] = order[block + 1], order[block]
    setattr(parent, name, nn.ModuleList([getattr(parent, name)[n] for n in order]))
    if getattr(model.config, "layer_types", None):  # each keeps its kind of attention
        for config in {id(c): c for c in (model.config, parent.config)}.values():
            config.layer_types = [decoder.config.layer_types[n] for n in order]
    return model


def slow_scores(decoder, task, kind, block, means):
    def mean(module, args, kwargs, output):
        hidden = given(decoder, args, kwargs)
        return like(output, hidden + means[block].to(hidden))

    def repeat(module, args, kwargs, output):
        if args:
            args = (first(output), *args[1:])
        else:
            kwargs = kwargs | {decoder.input_name: first(output)}
        return module.forward(*args, **kwargs)

    if kind == "swap":
        return naive_scores(swapped_model(decoder, block), decoder.tokenizer, task)
    return hooked(decoder, task, block, {"mean": mean, "repeat": repeat}[kind])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_ablation_scores_as_the_whole_model_with_hooks(tiny, family, kind, small_task):
    decoder = tiny[family]
    calibration = small_task.with_questions(small_task.questions[::2])
    slow = slow_means(decoder, calibration)
    means = mean_contributions(decoder, prepare(decoder, calibration, streams=1).rows)
    for fast, expected in zip(means, slow, strict=True):
        np.testing.assert_allclose(fast, expected, atol=1e-3 * expected.abs().max().item())
    prepared = prepare(decoder, small_task)
    found = branch_scores(
        decoder, prepared.rows, prepared.needs_vocabulary, ablation_births(kind, 5, means)
    )
    plain = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, range(5))
    order = ablation_order(kind, 5)
    assert sorted(order) == sorted(
        [("removal", n) for n in range(5)] + [(kind, n) for n in range(5 - (kind == "swap"))]
    )
    full = found.base[:, -1]
    present = np.isfinite(full)
    moved = 0.0
    for number, (what, block) in enumerate(order):
        scores = found.scores[:, number]
        if what == "removal":
            np.testing.assert_allclose(scores, plain.scores[block], atol=1e-4)
        else:
            expected = slow_scores(decoder, small_task, kind, block, slow)
            np.testing.assert_allclose(scores, expected, atol=3e-4)
            moved = max(moved, np.abs(scores[present] - full[present]).max())
    assert moved > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_block_passes_are_counted(tiny, small_task, kind, family):
    """By hooks inside the blocks, in tokens; and no more than two pruning steps and a bit."""
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    decoder.reads_alone, before = False, decoder.reads_alone  # whole rows, to count in
    ran = [0]

    def count(module, args, output):
        ran[0] += args[0].shape[:-1].numel()

    means = mean_contributions(decoder, prepared.rows)
    handles = [block.mlp.register_forward_hook(count) for block in decoder.blocks]
    births = ablation_births(kind, 5, means)
    found = branch_scores(decoder, prepared.rows, prepared.needs_vocabulary, births)
    for handle in handles:
        handle.remove()
    decoder.reads_alone = before
    assert found.block_passes * prepared.rows.padded_tokens == ran[0]
    assert found.block_passes == births.block_passes <= 2 * 15 + 2 * 5
    if kind == "mean":
        assert found.block_passes == 5 + 2 * 10


def test_means_do_not_depend_on_the_rows(tiny, question_file):
    """A context that options share is one, in packed rows and in plain ones."""
    decoder = tiny["llama"]
    encoded = encode_task(load_task(str(question_file), scoring="text"), decoder.tokenizer)
    layouts = [
        make_rows(encoded, 4096, packed_length=ANY_LENGTH),
        make_rows(encoded, 64),
        make_rows(encoded, 64, packed_length=ANY_LENGTH, shard_tokens=40),
    ]
    prepare(decoder, load_task(str(question_file)))  # tries out packed rows
    one, *others = (mean_contributions(decoder, rows) for rows in layouts)
    for other in others:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_streamed_model_gives_the_same(tiny, tiny_dirs, small_task, kind):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    one, two = (ablate(m, small_task, kind=kind, calibration=3) for m in (tiny["llama"], streamed))
    np.testing.assert_allclose(one.margins, two.margins, atol=1e-4)


def test_figures_are_of_the_evaluation_questions(tiny, question_file, tmp_path, monkeypatch):
    decoder, task = tiny["llama"], load_task(str(question_file), scoring="text")
    monkeypatch.setattr(parts, "PART", 2)
    found = ablate(decoder, task, kind="mean", calibration=3, out=tmp_path / "a")
    calibration, evaluation = split(task, 3, None, 0)
    assert found.trace.question_ids == tuple(q.id for q in evaluation.questions)
    slow = slow_means(decoder, calibration)
    prepared = prepare(decoder, evaluation)
    for block in (0, 4):
        expected = prepared.decide(
            slow_scores(decoder, evaluation, "mean", block, slow)[:, None]
        ).margins[:, 0]
        np.testing.assert_allclose(found.margins[:, block], expected, atol=1e-3)
    difference = found.decision_margin.mean - found.removal_margin.mean
    np.testing.assert_allclose(found.difference.mean, difference, atol=1e-12)
    assert (found.difference.ci_low <= difference).all()
    again = ablate(decoder, task, kind="mean", calibration=3, out=tmp_path / "a")
    assert again.state == "finished" and again.to_dict() == found.to_dict()
    with pytest.raises(UserError, match="its option kind was"):
        ablate(decoder, task, kind="swap", calibration=3, out=tmp_path / "a")


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
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_on_the_bundled_model(run, tmp_path, kind):
    words = ("ablate", "demo", "--kind", kind, "--limit", 90, "--evaluation", 40, "--out", "a")
    code, out, _ = run(*words)
    assert code == 0 and "next: phaseprune prune demo" in out
    shown = out.split("next:")[0]
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    held = json.loads((tmp_path / "a" / "ablation.json").read_text())
    count = 13 if kind == "swap" else 14
    assert held["kind"] == kind and held["blocks"] == list(range(count))
    rows = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert sum(row.rstrip(",").isdigit() for row in rows) == count
    assert "Decision Margin by ablated block" in (tmp_path / "a" / "report.html").read_text()
    code, out, err = run(*words, "--json")
    assert code == 0 and json.loads(out) == held and "finished before" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--kind", "means"), "Did you mean 'mean'"),
        (("--limit", "3", "--calibration", "2"), "at least 2"),
        (("--limit", "3", "--calibration", "3"), "3 questions: 3 for calibration"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(run, words, says, tmp_path):
    code, out, err = run("ablate", "demo", *words, "--out", "a")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(lines) == 1 and says in lines[0]
    assert "Traceback" not in err and not (tmp_path / "a").exists()
