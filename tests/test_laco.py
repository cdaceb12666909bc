"""Layer Collapse against a plain implementation: copied models, added weights, deleted blocks."""

import copy
import html
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from conftest import CONFIGS, QUESTIONS, ROPE, save_tiny, write_jsonl
from phaseprune.comparison.compare import compare
from phaseprune.comparison.pruned import Pruned, of_line, of_ranking
from phaseprune.comparison.text import open_text
from phaseprune.decision import laco
from phaseprune.decision.laco import LEAST, Merge, collapse, gone, largest_threshold, mixtures
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.mapped import Mapped
from phaseprune.decoder.merged import check_mergeable, merged_blocks
from phaseprune.decoder.pruned_weights import write_kept_weights
from phaseprune.decoder.reload import ExportMismatch
from phaseprune.errors import UserError
from phaseprune.healing.pruned import shortened
from phaseprune.methods import laco as search
from phaseprune.methods.laco import SAMPLES, Collapsing, check_merges, find_merges, sample_tokens
from phaseprune.methods.rank import rank_blocks
from phaseprune.methods.registry import METHODS
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.probes.ladder import read_ladder
from phaseprune.pruning.export_run import export_run
from phaseprune.pruning.prune import prune
from phaseprune.questions.prompts import render
from phaseprune.questions.split import split
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.changes import task_sequences
from phaseprune.sweep.measure import prepare
from test_methods import eight, eight_dir, text_file  # noqa: F401
from test_methods import run as run_command
from test_prune import Stopped
from test_prune_methods import figures_without, task  # noqa: F401
from test_sweep import naive_scores, without

BLOCKS = 10
TEN = {
    "llama": lambda: LlamaConfig(**ROPE | {"num_hidden_layers": BLOCKS}),
    "qwen3": lambda: Qwen3Config(**ROPE | {"num_hidden_layers": BLOCKS}, head_dim=8),
    "gemma2": lambda: Gemma2Config(
        **ROPE | {"num_hidden_layers": BLOCKS}, head_dim=8, sliding_window=4
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=320, n_embd=32, n_layer=BLOCKS, n_head=4, n_positions=256
    ),
}


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Models of ten blocks that are somewhat alike, so that merging costs more or less."""
    made = {}
    for family, config in TEN.items():
        name = f"ten_{family}"
        CONFIGS[name] = config
        try:
            made[family] = load_model(str(save_tiny(tmp_path_factory.mktemp(name), name)))
        finally:
            del CONFIGS[name]
        with torch.no_grad():
            for block in made[family].blocks:
                for weight in block.parameters():
                    weight.mul_(0.5 if weight.dim() > 1 else 1)
                    weight.add_(0.02 * torch.randn_like(weight))  # norms and biases differ too
    return made


# The plain way: everything is done to copies of the whole model.


@torch.no_grad()
def plain_merge(model, path, place, others):
    """A copy in which the block at a place takes in some after it, which are deleted."""
    copied = copy.deepcopy(model)
    target = dict(copied.get_submodule(path)[place].named_parameters())
    own = dict(model.get_submodule(path)[place].named_parameters())
    for other in range(place + 1, place + 1 + others):
        theirs = dict(model.get_submodule(path)[other].named_parameters())
        for name, weight in target.items():
            weight += theirs[name] - own[name]
    return without(copied, path, range(place + 1, place + 1 + others))


def last_state(model, tokens):
    return model(tokens, output_hidden_states=True, use_cache=False).hidden_states[-1]


def plain_logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


@torch.no_grad()
def plain_similarity(full, merged, samples):
    """The mean cosine of the last of transformers' hidden states, flattened."""
    found = []
    for tokens in samples:
        one, two = (last_state(model, torch.tensor([tokens])) for model in (full, merged))
        found.append(float(functional.cosine_similarity(one.flatten(), two.flatten(), dim=0)))
    return float(np.mean(found))


def plain_collapse(full, path, threshold, samples, most, protect=(), combined=4):
    """The published loop, with the model's own positions; gives merges by original index."""
    model, names, merges = full, list(range(BLOCKS)), []
    place = BLOCKS - 1 - combined
    while place >= 0:
        others = min(combined - 1, len(names) - place - 1, most)
        while any(names[place + i] in protect for i in range(1, others + 1)):
            others -= 1
        if others < 1 or names[place] in protect:
            place -= 1
            continue
        tried = plain_merge(model, path, place, others)
        if plain_similarity(full, tried, samples) > threshold:
            merges.append((names[place], tuple(names[place + 1 : place + 1 + others])))
            del names[place + 1 : place + 1 + others]
            model, most = tried, most - others
            if not most:
                break
        place -= 1
    return merges, model


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [tuple(map(int, rng.integers(5, 300, size))) for size in (9, 4, 12)]


def pairs(merges):
    return [(merge.into, merge.blocks) for merge in merges]


@pytest.mark.slow
@pytest.mark.parametrize("family", TEN)
def test_the_search_is_the_plain_one(ten, samples, family):
    decoder = ten[family]
    ours, seen = Collapsing(decoder, samples), set()
    for threshold in (-1.01, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99):
        for protect in ((), (3, 8)):
            found = collapse(BLOCKS, threshold, ours.similarity, BLOCKS, protect)
            plain, merged = plain_collapse(
                decoder.model, decoder.blocks_path, threshold, samples, BLOCKS, protect
            )
            assert pairs(found) == plain
            seen.add(tuple(plain))
            if not found:
                continue
            expected = plain_similarity(decoder.model, merged, samples)
            assert found[-1].similarity == pytest.approx(expected, abs=1e-4)
            tokens = torch.tensor([samples[0]])
            with merged_blocks(decoder, mixtures(found)), skipped_blocks(decoder, gone(found)):
                logits = plain_logits(decoder.model, tokens)
            torch.testing.assert_close(logits, plain_logits(merged, tokens), atol=1e-3, rtol=1e-3)
    assert len(seen) >= 4  # the thresholds make a difference
    nested = [one for one in seen if {i for i, _ in one} & {b for _, bs in one for b in bs}]
    assert nested  # a block that took others in is taken in


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_threshold_is_the_largest(ten, samples, family, number):
    decoder = ten[family]
    threshold, merges, _ = find_merges(decoder, samples, number)
    assert len(gone(merges)) == number
    plain, _ = plain_collapse(decoder.model, decoder.blocks_path, threshold, samples, number)
    assert pairs(merges) == plain
    above, _ = plain_collapse(decoder.model, decoder.blocks_path, threshold + 0.01, samples, number)
    assert sum(len(blocks) for _, blocks in above) < number


@pytest.mark.slow
@pytest.mark.parametrize("family", TEN)
def test_so_many_of_the_merges(ten, samples, family):
    """A prefix takes in the first blocks of the merge that is cut short."""
    decoder = ten[family]
    merges = (Merge(6, (7, 8, 9)), Merge(4, (5, 6)), Merge(0, (1, 2, 3)))
    tokens = torch.tensor([samples[2]])
    for number in range(1, 9):
        model, names, left = decoder.model, list(range(BLOCKS)), number
        for merge in merges:
            others = min(len(merge.blocks), left)
            if others:
                place = names.index(merge.into)
                model = plain_merge(model, decoder.blocks_path, place, others)
                del names[place + 1 : place + 1 + others]
            left -= others
        removed = gone(merges)[:number]
        assert names == [block for block in range(BLOCKS) if block not in removed]
        with merged_blocks(decoder, mixtures(merges, number)), skipped_blocks(decoder, removed):
            logits = plain_logits(decoder.model, tokens)
        torch.testing.assert_close(logits, plain_logits(model, tokens), atol=1e-3, rtol=1e-3)
    assert mixtures(merges, 0) == {}
    assert mixtures(merges, 2) == {6: {6: -1, 7: 1, 8: 1}}
    # 6* = -2*6 + 7 + 8 + 9, and 4* = -4 + 5 + 6*.
    assert mixtures(merges, 5) == {4: {4: -1, 5: 1, 6: -2, 7: 1, 8: 1, 9: 1}}
    assert mixtures([Merge(2, (3,)), Merge(1, (2,))]) == {1: {3: 1}}


def test_merged_weights_are_put_back(ten):
    decoder = ten["gemma2"]
    before = [(p, p.data_ptr(), p.clone()) for p in decoder.model.parameters()]
    with pytest.raises(KeyError), merged_blocks(decoder, {2: {2: -1, 3: 1, 4: 1}, 7: {8: 1}}):
        changed = decoder.blocks[2].mlp.up_proj.weight
        parts = [decoder.blocks[b].mlp.up_proj.weight for b in (3, 4)]
        own = next(clone for p, _, clone in before if p is changed)
        torch.testing.assert_close(changed, parts[0] + parts[1] - own)
        assert torch.equal(
            decoder.blocks[7].input_layernorm.weight, decoder.blocks[8].input_layernorm.weight
        )
        raise KeyError
    for parameter, place, clone in before:
        assert parameter.data_ptr() == place and torch.equal(parameter, clone)


def test_weights_are_rounded_once(ten):
    decoder = copy.deepcopy(ten["llama"])
    decoder.model.to(torch.bfloat16)
    weights = [block.mlp.up_proj.weight.detach().clone() for block in decoder.blocks]
    with merged_blocks(decoder, {3: {3: -2, 4: 1, 5: 1, 6: 1}}):
        expected = sum(weights[b].double() for b in (4, 5, 6)) - 2 * weights[3].double()
        merged = decoder.blocks[3].mlp.up_proj.weight
        assert merged.dtype == torch.bfloat16
        # In bfloat16 throughout, sums would be off by more than half a unit in the last place.
        assert torch.equal(merged, expected.bfloat16())


def test_kept_states_change_the_cost_alone(ten, samples, monkeypatch):
    kept = find_merges(ten["llama"], samples, 4)
    monkeypatch.setattr(search, "state_budget", lambda decoder: 0)
    bare = find_merges(ten["llama"], samples, 4)
    assert kept[0] == bare[0] and pairs(kept[1]) == pairs(bare[1]) and kept[2] < bare[2]
    assert [m.similarity for m in kept[1]] == pytest.approx([m.similarity for m in bare[1]])
    assert kept[2] <= METHODS["laco"].passes(BLOCKS, 4)


# The search alone.


cosines = st.floats(-1, 1, allow_nan=False)


@given(
    blocks=st.integers(1, 14),
    number=st.integers(1, 14),
    threshold=cosines,
    protect=st.frozensets(st.integers(0, 13), max_size=5),
    combined=st.integers(2, 6),
    interval=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_what_the_search_keeps_to(blocks, number, threshold, protect, combined, interval, seed):
    def similarity(merges):
        return np.random.default_rng([seed, hash(merges) % 2**32]).uniform(-1, 1)

    options = dict(protect=protect, combined=combined, interval=interval)
    merges = collapse(blocks, threshold, similarity, number, **options)
    assert merges == collapse(blocks, threshold, similarity, number, **options)
    went = gone(merges)
    assert len(set(went)) == len(went) <= number and set(went) < set(range(blocks))
    assert not protect & {*went, *(merge.into for merge in merges)}
    places = [merge.into for merge in merges]
    assert all(low <= high - interval for high, low in zip(places, places[1:], strict=False))
    assert all(blocks - 1 - combined >= into for into in places[:1])
    live = list(range(blocks))
    for merge in merges:
        at = live.index(merge.into)
        assert tuple(live[at + 1 : at + 1 + len(merge.blocks)]) == merge.blocks
        assert 1 <= len(merge.blocks) < combined and merge.similarity > threshold
        live = [block for block in live if block not in merge.blocks]
    for count in range(len(went) + 1):
        made = mixtures(merges, count)
        assert all(sum(of.values()) == 1 for of in made.values())
        assert not set(made) & set(went[:count])
        assert laco.read_mixtures(laco.written(made)) == made
    assert laco.read_merges([merge.to_dict() for merge in merges]) == merges


def test_a_similarity_at_the_threshold_is_not_above_it():
    assert collapse(8, 0.5, lambda merges: 0.5, 8) == ()
    assert pairs(collapse(8, 0.4, lambda merges: 0.5, 8)) == [
        (3, (4, 5, 6)),
        (2, (3, 7)),
        (1, (2,)),
        (0, (1,)),
    ]
    assert pairs(collapse(8, 0.4, lambda merges: 0.5, 2)) == [(3, (4, 5))]


def test_thresholds_are_halved_and_ties_need_no_luck():
    asked = []

    def at(threshold):
        asked.append(threshold)
        return (Merge(0, (1, 2)),) if threshold < 0.374 else ()

    assert largest_threshold(at, 2) == (0.37, (Merge(0, (1, 2)),))
    assert len(asked) <= 9 == search.THRESHOLDS
    found = largest_threshold(lambda t: (Merge(0, (1,)),) if t < -1 else (), 1)
    assert found == (LEAST / 100, (Merge(0, (1,)),))
    assert len({largest_threshold(at, 2) for _ in range(3)}) == 1


# On a model.


@pytest.mark.parametrize("scoring", ["letter", "text"])
def test_what_is_looked_at(eight, task, text_file, scoring):  # noqa: F811
    questions = replace(task, scoring=scoring)
    found = sample_tokens(eight, questions, None)
    assert len(found) == SAMPLES
    for tokens, question in zip(found, task.questions, strict=False):
        context, options = render(question, scoring)
        text = eight.tokenizer.decode(tokens)
        assert text.startswith(context) and (context + options[0]).startswith(text)
    assert sample_tokens(eight, None, [[1, 2], [3]]) == [(1, 2), (3,)]


@pytest.mark.slow
@pytest.mark.parametrize("on_text", [False, True])
def test_a_ranking(eight, task, text_file, on_text):  # noqa: F811
    given = text_file if on_text else task
    found = rank_blocks(eight, given, method="laco", remove=4, protect=[2])
    assert found.order == gone(found.merges) and len(found.order) == 4
    assert 2 not in {*found.order, *(merge.into for merge in found.merges)}
    for merge in found.merges:
        assert set(found.scores[list(merge.blocks)]) == {merge.similarity}
    assert np.isfinite(found.scores).sum() == 4
    assert 0 < found.block_passes <= METHODS["laco"].passes(8, 4)
    again = rank_blocks(eight, given, method="laco", remove=4, protect=[2])
    assert again.to_dict() == found.to_dict()
    assert found.to_dict()["merges"][0]["into"] == found.merges[0].into
    assert "merges" not in rank_blocks(eight, method="tail").to_dict()
    if not on_text:
        tokens = sample_tokens(eight, task, None)
        _, merges, passes = find_merges(eight, tokens, 4, {2})
        assert pairs(merges) == pairs(found.merges)
        share = sum(map(len, tokens)) / task_sequences(eight, task).rows.tokens
        assert found.block_passes == int(np.ceil(passes * share)) < passes


def plain_of_step(decoder, run, number):
    """The model of a step, from what the run says of merges, by copies and deletions."""
    model, names, left = decoder.model, list(range(len(decoder.blocks))), number
    for merge in run.manifest["ranking"]["merges"]:
        others = min(len(merge["blocks"]), left)
        if others:
            place = names.index(merge["into"])
            model = plain_merge(model, decoder.blocks_path, place, others)
            del names[place + 1 : place + 1 + others]
        left -= others
    return model


@pytest.mark.slow
def test_steps_are_of_the_merged_models(eight, task, tmp_path):  # noqa: F811
    before = copy.deepcopy(eight.model.state_dict())
    pruning = prune(eight, task, method="laco", remove=4, calibration=8, out=tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert len(pruning.steps) == 5 and pruning.steps[0].merged is None
    for side, questions in zip(("calibration", "evaluation"), split(task, 8, None, 0), strict=True):
        prepared = prepare(eight, questions)
        for step in pruning.steps[1:]:
            model = plain_of_step(eight, run, step.step)
            raw = naive_scores(model, eight.tokenizer, questions)
            decisions = prepared.decide(raw[:, None])
            told = getattr(step, side)
            assert told["accuracy"] == pytest.approx(decisions.correct.mean())
            assert told["decision_margin"] == pytest.approx(decisions.margins.mean(), abs=1e-4)
            removed = [block for block in range(8) if block not in step.kept]
            if any(set(of) != {next(iter(of))} for of in step.merged.values()):
                skipping = figures_without(eight, questions, removed)["decision_margin"]
                assert abs(skipping - decisions.margins.mean()) > 1e-3  # another model
    after = eight.model.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert [step.block_passes > 0 for step in pruning.steps] == [False, True, False, False, False]


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(eight, task, tmp_path):  # noqa: F811
    options = dict(method="laco", remove=3, calibration=8)
    whole = prune(eight, task, **options)

    def interrupt(label, done, total):
        if label.startswith("step 2: evaluation"):
            raise Stopped

    with pytest.raises(Stopped):
        prune(eight, task, out=tmp_path / "run", progress=interrupt, **options)
    again = prune(eight, task, out=tmp_path / "run", **options)
    assert again.state == "resumed"
    assert [step.to_dict() | {"seconds": 0} for step in again.steps] == [
        step.to_dict() | {"seconds": 0} for step in whole.steps
    ]


# What is refused.


def test_what_cannot_be_merged(ten, eight, eight_dir, task):  # noqa: F811
    streamed = load_model(str(eight_dir), stream=True)
    with pytest.raises(UserError, match="read from disk .* stream=False"):
        rank_blocks(streamed, task, method="laco", remove=2)
    shared = copy.deepcopy(ten["llama"])
    shared.blocks[3].mlp.up_proj.weight = shared.blocks[2].mlp.up_proj.weight
    with pytest.raises(UserError, match="share weights; choose another method"):
        check_mergeable(shared)
    other = copy.deepcopy(ten["llama"])
    other.blocks[4].mlp.up_proj = nn.Linear(32, 50, bias=False)
    with pytest.raises(UserError, match="block 4 differs from block 0 .*mlp.up_proj.weight"):
        check_mergeable(other)
    quantised = copy.deepcopy(ten["llama"])
    weight = torch.zeros(48, 32, dtype=torch.int8)
    quantised.blocks[0].mlp.up_proj.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(UserError, match="quantised; give a checkpoint in 16 or 32 bits"):
        check_mergeable(quantised)
    spread = copy.copy(ten["llama"])
    spread.placement = Mapped(spread.model, spread.blocks_path, "map")
    with pytest.raises(UserError, match="spread by a device map"):
        check_mergeable(spread)
    check_mergeable(ten["gemma2"])


def test_numbers_that_merges_cannot_reach(eight, tiny, task):  # noqa: F811
    with pytest.raises(UserError, match="merge 3 of the model's 5 .* and 4 are to go; give 1 to 3"):
        rank_blocks(tiny["llama"], task, method="laco", remove=4)
    with pytest.raises(UserError, match="merge 3 of .* beside those that are protected and 4 are"):
        check_merges(eight, 4, [4])
    with pytest.raises(UserError, match="laco chooses a given number of blocks together"):
        prune(eight, task, method="laco", keep_accuracy=0.9)
    with pytest.raises(UserError, match="looks at hidden states"):
        rank_blocks(eight, method="laco", remove=2)
    assert len(rank_blocks(tiny["llama"], task, method="laco", remove=3).order) == 3


# What becomes of a run.


@pytest.fixture(scope="module")
def merged_run(eight, task, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("laco") / "run"
    prune(eight, task, method="laco", remove=4, calibration=8, out=path)
    return RunDirectory(path)


@pytest.mark.parametrize("step", [2, 4])
def test_an_export_has_the_merged_weights(eight, merged_run, tmp_path, step):  # noqa: F811
    out = tmp_path / "model"
    exported = export_run(eight, merged_run, step=step, out=out)
    plain = plain_of_step(eight, merged_run, step)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    own, theirs = plain.state_dict(), model.state_dict()
    assert set(own) == set(theirs)
    for name, weight in own.items():
        torch.testing.assert_close(theirs[name], weight, atol=1e-5, rtol=1e-5)
    tokens = torch.tensor([[5, 9, 17, 40, 3, 8]])
    torch.testing.assert_close(
        plain_logits(model, tokens), plain_logits(plain, tokens), atol=1e-3, rtol=1e-3
    )
    notes = json.loads((out / "phaseprune.json").read_text())
    line = merged_run.steps()[step]
    assert notes["merged"] == line["merged"] == exported.merged and line["merged"]
    assert notes["removed"] == [one["removed"] for one in merged_run.steps()[1 : step + 1]]
    assert not (out / "mergekit.yaml").exists()
    card = (out / "README.md").read_text()
    assert "blocks merged into others and then removed" in card
    assert f"- merged: block {next(iter(line['merged']))} = " in card
    assert export_run(eight, merged_run, step=step, out=out).merged == exported.merged
    with pytest.raises(UserError, match="exists already"):
        export(eight, notes["removed"], out)  # the same blocks, skipped
    plainly = export(eight, notes["removed"], tmp_path / "skipped")
    assert "merged" not in plainly.to_dict() and (tmp_path / "skipped/mergekit.yaml").exists()
    with pytest.raises(UserError, match="exists already"):
        export_run(eight, merged_run, step=step, out=tmp_path / "skipped")


def test_an_export_that_is_not_the_merged_model_is_deleted(
    eight,  # noqa: F811
    merged_run,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(
        "phaseprune.decoder.export.write_kept_weights",
        lambda *args, in_memory, **named: write_kept_weights(*args, **named),  # the files' weights
    )
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        export_run(eight, merged_run, out=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_healing_begins_with_the_merged_model(eight, merged_run):  # noqa: F811
    run = SimpleNamespace(
        removed=lambda step: [line["removed"] for line in merged_run.steps()[1 : step + 1]],
        merged=lambda step: merged_run.steps()[step]["merged"],
    )
    with shortened(eight, run, 3, "float32") as decoder:
        plain = plain_of_step(eight, merged_run, 3)
        tokens = torch.tensor([[5, 9, 17, 40, 3, 8]])
        torch.testing.assert_close(
            plain_logits(decoder.model, tokens), plain_logits(plain, tokens), atol=1e-3, rtol=1e-3
        )


def test_what_compares_models_without_blocks_refuses(eight, task, merged_run):  # noqa: F811
    with pytest.raises(UserError, match="merged blocks into others, .* another method"):
        read_ladder(merged_run.path, eight, task)


@pytest.mark.slow
def test_the_command_says_what_was_merged(eight_dir, tmp_path, capsys):  # noqa: F811
    questions = write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)
    code, shown = run_command(
        [
            "prune",
            str(eight_dir),
            "--task",
            str(questions),
            "--method",
            "laco",
            "--remove",
            "2",
            "--calibration",
            "4",
            "--out",
            str(tmp_path / "run"),
            "--no-export",
        ],
        capsys,
    )
    assert code == 0, shown.err
    merged = RunDirectory(tmp_path / "run").steps()[2]["merged"]
    sums = "; ".join(laco.merged_words(merged))
    sentence = f"Weights of blocks that took removed ones in: {sums}."
    assert sentence in " ".join(shown.out.split())
    assert sentence in html.unescape((tmp_path / "run/report.html").read_text())
    assert laco.merged_words({"9": {"9": -1, "10": 1}}) == ["block 9 = -1 x 9 + 10"]


SMALL = Guard(windows=2, window_tokens=32, prompts=2, prompt_tokens=8, tokens=8)


@pytest.mark.slow
def test_a_comparison_has_the_merged_models(eight, task, tmp_path):  # noqa: F811
    common = dict(remove=[2, 4, 5], protect=[5], calibration=8, seed=1, guard=SMALL)
    first = compare(eight, [task], methods=["laco"], out=tmp_path / "run", **common)
    compared = compare(eight, [task], methods=["magnitude"], out=tmp_path / "run", **common)
    assert (first.state, compared.state) == ("new", "resumed")
    (found,) = compared.result["tasks"]
    assert [one["method"] for one in found["methods"]] == ["laco", "magnitude"]
    assert found["left_out"] == [
        {"method": "laco", "at": "5", "reason": found["left_out"][0]["reason"]}
    ]
    assert "can merge 4 of" in found["left_out"][0]["reason"]
    cells = found["methods"][0]["cells"]
    assert [cell["removed_blocks"] for cell in cells] == [2, 4]
    for cell in cells:
        number = cell["removed_blocks"]
        alone = prune(
            eight,
            task,
            method="laco",
            remove=number,
            protect=[5],
            calibration=8,
            seed=1,
            out=tmp_path / f"alone{number}",
        )
        last = alone.steps[-1]
        assert cell["sets"] == [sorted(alone.removed)] and cell["merged"] == last.merged
        assert cell["accuracy"] == pytest.approx(last.evaluation["accuracy"])
        assert cell["decision_margin"] == pytest.approx(
            last.evaluation["decision_margin"], abs=1e-5
        )
        plain = plain_of_step(eight, RunDirectory(tmp_path / f"alone{number}"), number)
        questions = split(task, 8, None, 1)[1]
        raw = naive_scores(plain, eight.tokenizer, questions)
        decisions = prepare(eight, questions).decide(raw[:, None])
        assert cell["decision_margin"] == pytest.approx(decisions.margins.mean(), abs=1e-4)
        plain.save_pretrained(tmp_path / f"plain{number}")
        eight.tokenizer.save_pretrained(tmp_path / f"plain{number}")
        saved = load_model(str(tmp_path / f"plain{number}"))
        reading = open_text(saved, None)
        looked = open_guard(saved, SMALL, reading.path, 1, reading.skip).figures()
        assert cell["guard"]["text_loss"] == pytest.approx(looked["text_loss"], abs=1e-4)
    assert all("merged" not in cell for cell in found["methods"][1]["cells"])
    again = compare(eight, [task], methods=["laco"], out=tmp_path / "run", **common)
    assert again.state == "finished" and again.result == compared.result
    json.dumps(compared.result, allow_nan=False)


def test_equal_sets_are_not_equal_models():
    ranking = {"order": [3, 4], "merges": [Merge(2, (3, 4), 0.5).to_dict()]}
    merged = [of_ranking(ranking, number) for number in (1, 2)]
    assert merged[0] == Pruned((3,), ((2, ((3, 1),)),))
    assert merged[1] == Pruned((3, 4), ((2, ((2, -1), (3, 1), (4, 1))),))
    assert of_ranking({"order": [4, 3, 1]}, 2) == Pruned((3, 4)) != merged[1]
    for one in (*merged, Pruned(), Pruned((3, 4))):
        assert of_line(json.loads(json.dumps(one.line()))) == one
    assert Pruned((3, 4)).line() == {"blocks": [3, 4]}  # as runs of before have it
