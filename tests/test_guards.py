"""Guards against the slow obvious way: shortened models, whole forwards, transformers' generate."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from families import save_family
from phaseprune.decision.guards import common_prefix, guard_figures, repetition
from phaseprune.decision.intervals import resamples
from phaseprune.decoder.export import export
from phaseprune.decoder.greedy import cached_tokens, greedy_tokens
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.probes.guards import Guard, guard_model, open_guard
from phaseprune.pruning.prune import prune
from phaseprune.pruning.stopping import stop_rule
from phaseprune.questions.catalog import load_task
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.text import read_text_file, text_windows
from test_plain_text import plain_loss
from test_prune import Stopped, findings
from test_sweep import without

SMALL = Guard(windows=9, window_tokens=24, prompts=4, prompt_tokens=8, tokens=6)
OPTIONS = dict(remove=3, calibration=4, guard=SMALL)


def test_prefix_and_repetition_by_hand():
    first = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [9, 2, 3, 4]])
    second = np.array([[1, 2, 3, 4], [1, 2, 0, 4], [1, 2, 3, 4]])
    assert common_prefix(first, second).tolist() == [4, 2, 0]
    once, twice = [1, 2, 3, 4, 5, 6, 7], [5, 5, 5, 5, 5, 5, 5]
    again = [1, 2, 3, 4, 1, 2, 3]  # only pieces of three stand twice
    assert repetition(np.array([once, twice, again])).tolist() == [0, 0.75, 0]
    assert repetition(np.array([again]), piece=3).tolist() == [pytest.approx(1 / 5)]


def test_figures_and_their_intervals():
    rng = np.random.default_rng(3)
    full_losses, losses = rng.uniform(2, 3, 12), rng.uniform(3, 6, 12)
    full_tokens, tokens = rng.integers(3, size=(2, 5, 9))
    full = guard_figures(full_losses, full_tokens, None, 0)
    assert (full["text_loss_rise"], full["agreement"], full["common_prefix"]) == (0, 1, 9)
    assert full["text_loss_rise_ci"] == [0, 0] and full["repetition_rise"] == 0
    found = guard_figures(losses, tokens, full, 0)
    assert found["text_loss_rise"] == pytest.approx(losses.mean() / full_losses.mean() - 1)
    weights = np.concatenate(list(resamples(12, 0)))
    rises = [
        np.average(losses, weights=w) / np.average(full_losses, weights=w) - 1 for w in weights
    ]
    assert found["text_loss_rise_ci"] == pytest.approx(np.percentile(rises, [2.5, 97.5]).tolist())
    same = [
        [a == b for a, b in zip(*rows, strict=True)]
        for rows in zip(tokens, full_tokens, strict=True)
    ]
    assert found["agreement"] == pytest.approx(sum(map(sum, same)) / 45)
    for place, share in enumerate(found["agreement_up_to"]):
        assert share == pytest.approx(np.mean([row[: place + 1] for row in same]))
    assert found["agreement_ci"][0] < found["agreement"] < found["agreement_ci"][1]
    assert json.loads(json.dumps(found)) == found


@torch.no_grad()
def generated(model, prompts, count):
    model.generation_config.eos_token_id = None
    made = model.generate(
        torch.as_tensor(prompts),
        attention_mask=torch.ones(prompts.shape, dtype=torch.long),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=0,
    )
    return made[:, prompts.shape[1] :].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "falcon"])
def test_loss_and_tokens_are_those_of_the_shortened_model(tiny, tmp_path, family):
    decoder, removed = tiny[family], [0, 3]
    opened = open_guard(decoder, SMALL)
    full = opened.figures()
    found = opened.figures(removed, full)
    short = without(decoder.model, decoder.blocks_path, removed)
    for number in (0, 5):
        loss = plain_loss(short, [opened.windows[number]])
        assert found["losses"][number] == pytest.approx(loss, abs=1e-4)
    assert full["text_loss"] == pytest.approx(plain_loss(decoder.model, opened.windows), abs=1e-4)
    assert full["guessing"] == found["guessing"] == pytest.approx(np.log(320))
    export(decoder, removed, tmp_path / "short")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "short").eval()
    assert loaded.config.num_hidden_layers == 3
    expected = generated(loaded, opened.prompts, 6)
    assert found["continuations"] == expected.tolist()
    whole = AutoModelForCausalLM.from_pretrained(decoder.source.directory).eval()
    assert full["continuations"] == generated(whole, opened.prompts, 6).tolist()
    assert full["continuations"] != found["continuations"]  # else this compares nothing


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mamba2", "lfm2", "qwen3_moe", "bloom", "gemma3_text"])
def test_families_of_other_kinds(tmp_path, family):
    """State spaces, convolutions, experts, other positions: the continuations of the export."""
    decoder = load_model(str(save_family(family, tmp_path / "full")))
    opened = open_guard(decoder, SMALL)
    found = opened.figures([2, 4], opened.figures())
    export(decoder, [2, 4], tmp_path / "short")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "short").eval()
    assert found["continuations"] == generated(loaded, opened.prompts, 6).tolist()
    assert found["text_loss"] == pytest.approx(plain_loss(loaded, opened.windows), abs=1e-3)


@pytest.mark.slow
def test_a_streamed_model_has_the_same_figures(tiny, tiny_dirs):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    told = [guard_model(one, [0, 2], guard=SMALL) for one in (streamed, tiny["llama"])]
    for name in ("full", "pruned"):
        assert told[0][name]["continuations"] == told[1][name]["continuations"]
        np.testing.assert_allclose(told[0][name]["losses"], told[1][name]["losses"], atol=1e-5)


def test_a_guess_changes_the_work_alone(tiny):
    decoder = tiny["llama"]
    prompts = open_guard(decoder, SMALL).prompts
    calls = []

    def run(guess, rows=4):
        calls.clear()
        return greedy_tokens(
            decoder,
            prompts,
            10,
            removed=[1],
            guess=guess,
            rows=rows,
            progress=lambda *told: calls.append(told),
        )

    expected = run(None)
    assert 1 < len(calls) <= 10 and calls[-1][1:] == (40, 40)
    assert all(before[1] < after[1] for before, after in pairwise(calls))
    np.testing.assert_array_equal(run(expected), expected)
    assert len(calls) == 1
    half = np.where(np.arange(10) < 5, expected, 7)
    np.testing.assert_array_equal(run(half, rows=3), expected)
    np.testing.assert_array_equal(run(np.full((4, 10), 7)), expected)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "falcon"])
@pytest.mark.parametrize("removed", [[], [0, 3], [1, 2]])
def test_what_is_said_with_the_cache_needs_one_forward_more(tiny, family, removed):
    decoder, calls = tiny[family], []
    prompts = open_guard(decoder, SMALL).prompts
    guess = cached_tokens(decoder, prompts, 10, removed=removed, rows=3)
    expected = greedy_tokens(decoder, prompts, 10, removed=removed)
    np.testing.assert_array_equal(guess, expected)
    greedy_tokens(
        decoder,
        prompts,
        10,
        removed=removed,
        guess=guess,
        progress=lambda *told: calls.append(told),
    )
    assert len(calls) == 1


def test_without_a_kv_cache_there_is_no_guess(tmp_path, tiny_dirs):
    mamba = load_model(str(save_family("mamba2", tmp_path / "full")))
    prompts = open_guard(mamba, SMALL).prompts
    assert cached_tokens(mamba, prompts, 4, removed=[1]) is None
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    assert cached_tokens(streamed, prompts, 4) is None


def test_prompts_are_pieces_of_the_text_by_seed(tiny):
    decoder = tiny["llama"]
    text, _ = read_text_file()
    tokens = np.concatenate(text_windows(decoder, text, 24)[:9])
    pieces = [tokens[start : start + 8].tolist() for start in range(0, 9 * 24, 8)]
    drawn = [open_guard(decoder, SMALL, seed=seed).prompts.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(prompt in pieces for prompt in drawn[0] + drawn[2])
    assert len({tuple(prompt) for prompt in drawn[0]}) == 4


@pytest.mark.slow
def test_steps_have_the_figures_of_their_models(tiny, question_file, tmp_path):
    decoder, task = tiny["gemma2"], load_task(str(question_file))
    pruning = prune(decoder, task, out=tmp_path / "run", **OPTIONS)
    bare = prune(decoder, task, remove=3, calibration=4)
    assert pruning.removed == bare.removed  # guards do not change the search
    assert bare.steps[0].guard is None and bare.result["guard"] is None
    for step in pruning.steps[1:]:
        fresh = guard_model(decoder, pruning.removed[: step.step], guard=SMALL)
        assert step.guard == fresh["pruned"]
        assert pruning.steps[0].guard == fresh["full"]
    last = pruning.steps[-1].guard
    summary = pruning.result["guard"]
    assert summary["pruned"]["agreement"] == last["agreement"]
    assert summary["full"]["text_loss"] == pruning.steps[0].guard["text_loss"]
    assert "losses" not in summary["pruned"]
    options = RunDirectory(tmp_path / "run").manifest["options"]
    assert options["guard_windows"] == 9 and options["keep_text_loss"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "when", ["full model: text", "step 2: without", "step 2: without block .: continuations"]
)
def test_an_interrupted_run_goes_on(tiny, question_file, tmp_path, when):
    decoder, task = tiny["llama"], load_task(str(question_file))
    undisturbed = prune(decoder, task, **OPTIONS)

    def interrupt(label, done, total):
        if re.match(when, label):
            raise Stopped

    with pytest.raises(Stopped):
        prune(decoder, task, out=tmp_path / "run", progress=interrupt, **OPTIONS)
    assert len(RunDirectory(tmp_path / "run").steps()) == (2 if "2" in when else 0)
    resumed = prune(decoder, task, out=tmp_path / "run", **OPTIONS)
    assert resumed.state == "resumed"
    lines = RunDirectory(tmp_path / "run").steps()
    assert findings(lines) == findings(
        [json.loads(json.dumps(s.to_dict())) for s in undisturbed.steps]
    )


@pytest.mark.slow
def test_the_search_ends_before_the_loss_has_risen_too_far(tiny, question_file, tmp_path):
    decoder, task = tiny["gemma2"], load_task(str(question_file))
    whole = prune(decoder, task, remove=4, calibration=4, guard=SMALL)
    rises = [step.guard["text_loss_rise"] for step in whole.steps]
    assert rises[0] == 0
    limit = max(rises) / 2
    first = next(number for number, rise in enumerate(rises) if rise > limit)
    assert 1 < first < 4
    stopped = prune(
        decoder, task, calibration=4, guard=SMALL, keep_text_loss=limit, out=tmp_path / "run"
    )
    assert [step.removed for step in stopped.steps] == [s.removed for s in whole.steps[: first + 1]]
    assert stopped.result["chosen_step"] == first - 1
    assert stopped.result["stopped_by"] == (
        f"the text loss is more than {1 + limit:g} times the full model's"
    )
    with pytest.raises(UserError, match="its option keep_text_loss was"):
        prune(
            decoder,
            task,
            calibration=4,
            guard=SMALL,
            keep_text_loss=limit / 2,
            out=tmp_path / "run",
        )
    with pytest.raises(UserError, match="its option"):
        prune(decoder, task, calibration=4, remove=4, out=tmp_path / "run")


def test_which_rule_ends_a_search():
    rule = stop_rule(30, keep_text_loss=0.2)
    assert rule.keep_accuracy is None and rule.most == 29
    assert rule.reason(3, 0.1, 0.2) is None
    assert rule.reason(3, 0.1, 0.2001) == "the text loss is more than 1.2 times the full model's"
    both = stop_rule(30, remove=4, keep_accuracy=0.8, keep_text_loss=0.2)
    assert both.reason(2, 0.9, 0.1) is None
    assert both.reason(2, 0.7, 0.1) and both.reason(2, 0.9, 0.3) and both.reason(4, 0.9, 0.1)


@pytest.mark.slow
def test_blocks_are_not_chosen_and_judged_by_the_same_text(tiny, question_file, tmp_path):
    decoder = tiny["llama"]
    text, _ = read_text_file()
    length = 256
    cut = decoder.tokenizer.decode(np.concatenate(text_windows(decoder, text, length)[:20]))
    path = tmp_path / "text.txt"
    path.write_text(cut, encoding="utf-8")
    common = dict(remove=1, calibration=4, objective="text_loss", text=path)
    guarded = prune(
        decoder, load_task(str(question_file)), guard=SMALL, out=tmp_path / "run", **common
    )
    assert guarded.removed == prune(decoder, load_task(str(question_file)), **common).removed
    options = RunDirectory(tmp_path / "run").manifest["options"]
    assert options["text_windows"] == 16 and options["guard_text_skipped_tokens"] == 16 * length
    after = text_windows(decoder, cut, 24, skip=16 * length)[:9]
    fresh = plain_loss(decoder.model, after)
    assert guarded.steps[0].guard["text_loss"] == pytest.approx(fresh, abs=1e-4)
    path.write_text(text[: len(cut) // 2], encoding="utf-8")
    with pytest.raises(UserError, match="tokens.* behind the .* needed; give a longer"):
        prune(decoder, load_task(str(question_file)), guard=SMALL, **common)


BAD = {
    "missing": (dict(text="nowhere.txt", guard=SMALL), "nowhere.txt: there is no such"),
    "short": (dict(text="short", guard=SMALL), "are 0 windows of 24, and 1 are needed"),
    "few": (dict(text="few", guard=SMALL), "has 3 windows of 24 tokens, and 8 are needed"),
    "no need": (dict(text="few"), "goes with objective='text_loss' or guard only"),
    "negative": (dict(keep_text_loss=-0.1), "keep_text_loss must be 0 or more and is -0.1"),
    "nan": (dict(keep_text_loss=float("nan")), "keep_text_loss must be 0 or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(tiny, question_file, tmp_path, name):
    decoder = tiny["llama"]
    options, says = BAD[name]
    text, _ = read_text_file()
    few = decoder.tokenizer.decode(text_windows(decoder, text, 3 * 24)[0])
    places = {"short": "What is the sky", "few": few}
    if options.get("text") in places:
        path = tmp_path / "text.txt"
        path.write_text(places[options["text"]], encoding="utf-8")
        options = options | {"text": path}
    with pytest.raises(UserError, match=says):
        prune(decoder, load_task(str(question_file)), remove=1, calibration=4, **options)


def test_bad_sizes():
    with pytest.raises(UserError, match="guard: tokens is 3 and must be at least 4"):
        Guard(tokens=3)
