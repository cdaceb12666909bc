"""Halves of blocks as what is removed: found, swept, searched, exported, refused, told."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import phaseprune.decoder.pruned_weights as pruned_weights
from conftest import QUESTIONS, make_tokenizer, write_jsonl
from families import generation_difference, plain_scores, random_tokens
from phaseprune.cli.main import app
from phaseprune.decoder.export import export
from phaseprune.decoder.items import (
    all_items,
    check_items,
    item_list,
    lone_halves,
    short_item,
    whole_blocks,
)
from phaseprune.decoder.load import load_model
from phaseprune.decoder.reload import ExportMismatch
from phaseprune.decoder.saving import measure_saving
from phaseprune.decoder.sublayers import find_halves, skipped_items
from phaseprune.errors import UserError
from phaseprune.healing.pruned import open_run
from phaseprune.methods.objectives import OBJECTIVES, OF_ALL, best, figures
from phaseprune.probes.guards import Guard, open_guard
from phaseprune.probes.ladder import read_ladder
from phaseprune.pruning.export_run import export_run
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.report.collapse import fall_lines
from phaseprune.report.page import write_report
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import trace
from phaseprune.sweep.units import open_units
from tiny_configs import tiny_config

#: The modules whose output a block adds to its hidden state, of its attention and of its MLP.
ADDED = {
    "llama": ("self_attn", "mlp"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gpt2": ("attn", "mlp"),
    "opt": ("self_attn", "fc2"),
    "mixtral": ("self_attn", "mlp"),
    "lfm2": (("conv", "self_attn"), "feed_forward"),
}
#: The same, as they are found: those of most weights.
FOUND = ADDED | {"gemma2": ("self_attn", "mlp"), "olmo2": ("self_attn", "mlp")}
OPTIONS = dict(granularity="sublayer", remove=3, calibration=4, seed=0)


def save(folder, family, change=lambda model: None):
    """A random model with biases, all of whose halves matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.3)
            else:  # norms, of which some families begin at 0
                parameter.add_(0.2 * torch.rand_like(parameter))
    change(model)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root, models = tmp_path_factory.mktemp("halves"), {}

    def get(family):
        if family not in models:
            models[family] = load_model(str(save(root / family, family)))
        return models[family]

    return get


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = write_jsonl(tmp_path_factory.mktemp("task") / "questions.jsonl", QUESTIONS)
    return load_task(str(path), scoring="text")


@contextmanager
def without_halves(family, model, blocks_path, items):
    """The slow, obvious way: hooks let what a half adds be zeros, in the model's own forward."""
    blocks, handles = model.get_submodule(blocks_path), []
    for item in items:
        block, half = item.split(".")
        names = ADDED[family][half == "mlp"]
        block = blocks[int(block)]
        names = [n for n in ((names,) if isinstance(names, str) else names) if hasattr(block, n)]

        def zeros(module, args, output):
            if isinstance(output, tuple):
                return (torch.zeros_like(output[0]), *output[1:])
            return torch.zeros_like(output)

        handles.append(getattr(block, names[0]).register_forward_hook(zeros))
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def slowly(family, decoder, task, items):
    with without_halves(family, decoder.model, decoder.blocks_path, items), torch.no_grad():
        return plain_scores(decoder, task)


def assert_scores(found, expected):
    for row, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(row[: len(scores)], scores, atol=5e-4, rtol=1e-4)


def test_names_of_items():
    assert all_items("sublayer", 2) == ["0.attention", "0.mlp", "1.attention", "1.mlp"]
    assert all_items("mlp", 2) == ["0.mlp", "1.mlp"]
    assert all_items("block", 3) == [0, 1, 2]
    assert item_list("20, 7.attention,3.mlp") == [20, "7.attention", "3.mlp"]
    items = ["3.mlp", "1.attention", 0, "3.attention"]
    assert whole_blocks(items) == [0, 3] and lone_halves(items) == ["1.attention"]
    assert [short_item(item) for item in items] == ["3m", "1a", "0", "3a"]
    for words in ("7.norm", "a", "7.", ".mlp", "-1"):
        with pytest.raises(UserError, match="must be block indices or halves"):
            item_list(words)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["5.mlp"], "MLP 5 does not exist: the model has blocks 0 to 4"),
        (["1.mlp", "1.mlp"], "names something twice"),
        ([1, "1.mlp"], "1.mlp is a half of another"),
        (all_items("sublayer", 5), "all 5 blocks would be removed"),
    ],
)
def test_items_that_cannot_be_removed(items, words):
    with pytest.raises(UserError, match=words):
        check_items(items, 5)


@pytest.mark.parametrize("family", ADDED)
def test_halves_are_found(loaded, family):
    for block, pair in zip(loaded(family).blocks, find_halves(loaded(family)), strict=True):
        for part, names in zip(pair, FOUND[family], strict=True):
            names = (names,) if isinstance(names, str) else names
            assert part.path in names and hasattr(block, part.path)


@pytest.mark.parametrize("family", ["gpt_neox", "phi", "cohere", "falcon"])
def test_parallel_blocks_are_refused(loaded, family):
    with pytest.raises(UserError, match=r"block 0 of .* runs both side by side .*leave gran"):
        find_halves(loaded(family))


@pytest.mark.slow
def test_blocks_without_halves_are_refused(loaded):
    """Mamba has one mixer a block, and Bloom's modules add the hidden state themselves."""
    for family in ("mamba", "bloom"):
        with pytest.raises(UserError, match="has no two modules without which"):
            find_halves(loaded(family))


def test_a_half_that_shares_its_weights_is_refused(loaded, tmp_path):
    decoder = load_model(str(save(tmp_path / "model", "llama")))
    decoder.blocks[2].mlp.down_proj.weight = decoder.blocks[1].mlp.down_proj.weight
    with pytest.raises(UserError, match="block 1 .* shares weights of its mlp with model.layers.2"):
        find_halves(decoder)


def test_a_half_that_adds_something_at_zero_weights_is_refused(loaded, tmp_path):
    """An addition that no weight takes part in would stay in an exported checkpoint."""

    class Louder(nn.Module):
        def __init__(self, mlp):
            super().__init__()
            self.mlp = mlp

        def forward(self, hidden):
            return self.mlp(hidden) + 0.1 * hidden

    decoder = load_model(str(save(tmp_path / "model", "llama")))
    decoder.blocks[3].mlp = Louder(decoder.blocks[3].mlp)
    with pytest.raises(UserError, match="block 3 .* still adds something where the weights of its"):
        find_halves(decoder)


@pytest.mark.slow
def test_a_model_whose_halves_are_zeros_already_has_halves(loaded, task, tmp_path):
    decoder = loaded("llama")
    export(decoder, ["0.attention", "2.mlp"], tmp_path / "first")
    again = load_model(str(tmp_path / "first"))
    assert find_halves(again) == find_halves(decoder)
    export(again, ["3.mlp"], tmp_path / "second")
    twice = load_model(str(tmp_path / "second"))
    expected = slowly("llama", decoder, task, ["0.attention", "2.mlp", "3.mlp"])
    assert_scores(plain_scores(twice, task), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scoring"), [*((family, "text") for family in ADDED), ("llama", "letter")]
)
def test_every_candidate_scores_as_the_model_without_the_half(loaded, family, scoring, task):
    decoder, model = loaded(family), open_units(loaded(family), "sublayer")
    task = load_task(str(_path_of(task)), scoring=scoring, limit=3)
    with model.running() as view:
        prepared = prepare(view, task)
    kept = Kept(2**30)
    for removed in ([], ["2.attention"], ["2.attention", "4.mlp", "2.mlp"]):
        candidates = [name for name in model.names if name not in removed]
        sweep = model.sweep(
            prepared.rows, prepared.needs_vocabulary, removed, candidates, kept=kept
        )
        assert list(sweep.blocks) == candidates
        for item, scores in zip(sweep.blocks, sweep.scores, strict=True):
            assert_scores(scores, slowly(family, decoder, task, [*removed, item]))
        if not removed:
            assert sweep.block_passes == len(candidates) * (len(candidates) + 1) // 2
        else:
            assert sweep.block_passes < len(candidates) * (len(candidates) + 1) // 2
    assert_scores([r[-1] for r in trace(decoder, task).raw_scores], plain_scores(decoder, task))


def _path_of(task):
    return next(v for k, v in task.identity.items() if str(v).endswith(".jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_readouts_without_halves(loaded, task, family):
    """The last block's attention among them, whose block then cannot be left half-way."""
    decoder, model = loaded(family), open_units(loaded(family), "sublayer")
    prepared = prepare(decoder, task, streams=1)
    alone = decoder.reads_alone
    for removed in (["5.attention"], ["1.mlp", "4.mlp", "4.attention", "5.mlp"]):
        found = model.trace(prepared.rows, True, removed)
        assert found.shape[1] == 7
        assert_scores(found[:, -1], slowly(family, decoder, task, removed))
        output = model.trace(prepared.rows, True, removed, output_only=True)
        np.testing.assert_allclose(output[:, 0], found[:, -1], atol=1e-4)
        for block in whole_blocks(removed):
            assert (found[:, block + 1] == found[:, block]).all()
    assert decoder.reads_alone == alone
    assert all("forward" not in vars(module) for module in decoder.model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "objective"),
    [("sublayer", name) for name in OBJECTIVES if name not in OF_ALL]  # texts have no label prior
    + [("attention", "loss"), ("mlp", "accuracy")],
)
def test_each_step_removes_the_best_half(loaded, task, granularity, objective):
    decoder = loaded("llama")
    pruning = prune(
        decoder, task, granularity=granularity, remove=2, calibration=4, objective=objective
    )
    calibration, _ = split(task, 4, None, 0)
    rows = prepare(decoder, calibration)
    removed = []
    for step in pruning.steps[1:]:
        left = [i for i in all_items(granularity, 6) if i not in removed]
        values = []
        for item in left:
            scores = np.full(rows.rows.shape, -np.inf)
            slow = slowly("llama", decoder, calibration, [*removed, item])
            for row, found in zip(scores, slow, strict=True):
                row[: len(found)] = found
            values.append(figures(rows.decide(scores[:, None]))[objective])
        chosen = left[best(objective, values)]
        assert step.removed == chosen
        assert step.objective == pytest.approx(values[left.index(chosen)], abs=1e-4)
        removed.append(chosen)
        assert step.kept == [i for i in all_items(granularity, 6) if i not in removed]
        assert len(step.decision_margin_by_readout) == 7
        assert step.phase == pruning.trace.transition.phase(int(chosen.split(".")[0]))
    assert pruning.removed == removed and pruning.result["kept"] == pruning.steps[-1].kept
    assert pruning.result["granularity"] == granularity and pruning.result["blocks"] == 6
    assert pruning.result["stopped_by"].startswith("2 ")


@pytest.mark.slow
def test_text_chooses_halves_and_guards_look_at_them(loaded, task, tmp_path):
    """Guards of a step against those of the checkpoint that it is exported as."""
    decoder = loaded("gemma2")
    path, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text("What is the colour of the sky? blue, and of snow? white. " * 200)
    guard = Guard(windows=4, window_tokens=24, prompts=3, prompt_tokens=6, tokens=6)
    pruning = prune(
        decoder,
        task,
        granularity="sublayer",
        objective="text_loss",
        text=text,
        guard=guard,
        remove=2,
        calibration=4,
        out=path,
    )
    run = RunDirectory(path)
    first = [c for c in run.candidates() if c["step"] == 1]
    assert pruning.removed[0] == min(first, key=lambda c: c["text_loss"])["item"]
    assert set(pruning.steps[1].calibration) == set(OBJECTIVES)
    exported = load_model(export_run(decoder, run).path)
    skipped = run.manifest["options"]["guard_text_skipped_tokens"]
    assert skipped > 0
    plain = open_guard(exported, guard, text, 0, skipped).figures()
    ours = pruning.steps[2].guard
    assert ours["text_loss"] == pytest.approx(plain["text_loss"], abs=1e-4)
    assert ours["continuations"] == plain["continuations"]
    assert ours["text_loss"] != pytest.approx(pruning.steps[0].guard["text_loss"], abs=1e-3)


def findings(steps):
    cost = ("seconds", "block_passes")
    return [{k: v for k, v in step.items() if k not in cost} for step in steps]


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("when", ["full model", "step 2: sweep", "step 2: evaluation"])
def test_an_interrupted_run_goes_on(loaded, task, tmp_path, when):
    decoder = loaded("llama")
    whole = prune(decoder, task, out=tmp_path / "whole", **OPTIONS)

    def interrupt(label, done, total):
        if label.startswith(when):
            raise Stopped

    with pytest.raises(Stopped):
        prune(decoder, task, out=tmp_path / "run", progress=interrupt, **OPTIONS)
    assert all("forward" not in vars(module) for module in decoder.model.modules())
    labels = []
    resumed = prune(
        decoder,
        task,
        out=tmp_path / "run",
        progress=lambda label, *_: labels.append(label),
        **OPTIONS,
    )
    assert resumed.state == "resumed"
    if "step 2" in when:
        assert not any("full model" in label or label.startswith("step 1") for label in labels)
    assert (when == "step 2: evaluation") != any("step 2: sweep" in label for label in labels)
    assert findings(RunDirectory(tmp_path / "run").steps()) == findings(whole.to_dict()["steps"])
    assert resumed.result == whole.result
    again = prune(decoder, task, out=tmp_path / "run", **OPTIONS)
    assert again.state == "finished" and again.to_dict() == resumed.to_dict()
    with pytest.raises(UserError, match="granularity"):
        prune(decoder, task, out=tmp_path / "run", **OPTIONS | {"granularity": "mlp"})


@pytest.mark.slow
def test_protected_blocks_keep_both_halves(loaded, task):
    pruning = prune(loaded("llama"), task, **OPTIONS | {"remove": 4}, protect=[0, 1, 2, 5])
    assert sorted(pruning.removed) == all_items("sublayer", 6)[6:10]
    assert pruning.result["whole_blocks"] == [3, 4] and pruning.result["zeroed"] == []
    assert "Protected, both halves: 0, 1, 2, 5." in pruning.chosen_by["in_words"]
    assert pruning.chosen_by["in_words"].startswith("Halves of blocks were chosen by")


@pytest.mark.slow
def test_the_rules_count_halves(loaded, task):
    decoder = loaded("llama")
    pruning = prune(decoder, task, granularity="attention", ratio=0.34, calibration=4)
    assert len(pruning.removed) == 2
    assert pruning.result["stopped_by"] == "2 attention halves removed"
    one = prune(decoder, task, granularity="mlp", keep_text_loss=0.0, calibration=4)
    assert one.result["guard"] and one.result["stopped_by"]
    with pytest.raises(UserError, match="the model has 12 halves and 4 of them protected"):
        prune(decoder, task, granularity="sublayer", remove=9, protect=[0, 1])
    with pytest.raises(UserError, match="ratio=0.9 of 6 MLP halves is 5 MLP halves and only 4"):
        prune(decoder, task, granularity="mlp", ratio=0.9, protect=[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("family", ADDED)
def test_an_export_is_the_model_without_the_halves(loaded, family, tmp_path):
    decoder = loaded(family)
    remove = ["1.attention", "3.mlp", "4.mlp", "4.attention", "5.attention"]
    exported = export(decoder, remove, tmp_path / "out")
    assert exported.removed == remove and exported.kept == [0, 1, 2, 3, 5]
    assert exported.zeroed["items"] == ["1.attention", "3.mlp", "5.attention"]
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens = random_tokens()
    with torch.no_grad(), without_halves(family, decoder.model, decoder.blocks_path, remove):
        expected = decoder.model(input_ids=tokens, use_cache=False).logits
    with torch.no_grad():
        found = plain.eval()(input_ids=tokens, use_cache=False).logits
    assert float((found - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))
    if family != "lfm2":  # whose cache is inexact in the full model too
        assert exported.generated_tokens and generation_difference(plain, tokens) <= 1e-3
    zeros = [p for p in plain.parameters() if not p.any()]
    assert sum(p.numel() for p in zeros) == exported.zeroed["parameters"] > 0
    assert sum(p.nbytes for p in zeros) == exported.zeroed["bytes"]
    assert {p.numel() for p in decoder.model.parameters() if not p.any()} == set()
    notes = json.loads((tmp_path / "out" / "phaseprune.json").read_text())
    assert notes["removed"] == remove and notes.get("zeroed") == exported.zeroed
    card = (tmp_path / "out" / "README.md").read_text()
    assert "without 5 of 12 halves of blocks" in card and "1 block whole" in card
    assert "save neither bytes nor time" in card and "attention 1, MLP 3, attention 5" in card
    assert not (tmp_path / "out" / "mergekit.yaml").exists()


@pytest.mark.slow
def test_the_same_export_again_and_its_saving(loaded, tmp_path):
    decoder, remove = loaded("llama"), ["0.mlp", 3]
    first = export(decoder, remove, tmp_path / "out")
    again = export(decoder, remove, tmp_path / "out")
    assert again == first and first.kept == [0, 1, 2, 4, 5]
    saving = measure_saving(decoder, tmp_path / "out", repeats=1, prompt_tokens=4, new_tokens=2)
    assert saving.exported.parameters == first.parameters < first.full_parameters
    with pytest.raises(UserError, match="exists already"):
        export(decoder, ["0.attention", 3], tmp_path / "out")
    whole = export(decoder, ["2.mlp", "2.attention"], tmp_path / "whole")
    assert whole.zeroed is None and whole.kept == [0, 1, 3, 4, 5]


def test_zeros_that_are_missing_are_noticed(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(pruned_weights, "with_zeros", lambda tensors, names: tensors)
    with pytest.raises(ExportMismatch, match="is not the model that was measured.*deleted"):
        export(loaded("llama"), ["1.mlp"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_skipping_undoes_itself(loaded):
    decoder, tokens = loaded("gpt2"), random_tokens()
    halves = find_halves(decoder)
    with torch.no_grad():
        before = decoder.model(input_ids=tokens).logits
        with pytest.raises(Stopped), skipped_items(decoder, halves, [0, "2.mlp"]):
            assert not torch.equal(decoder.model(input_ids=tokens).logits, before)
            raise Stopped
        assert torch.equal(decoder.model(input_ids=tokens).logits, before)


@pytest.mark.slow
def test_what_does_not_go_with_halves(loaded, task, tmp_path):
    decoder = loaded("llama")
    for options, words in (
        ({"granularity": "layer"}, "granularity is 'layer' and must be one of block, attention"),
        ({"search": "racing"}, "search='racing' goes with whole blocks only"),
        ({"method": "block_influence"}, "ranks whole blocks and granularity='sublayer'"),
        ({"method": "beam", "remove": 2}, "ranks whole blocks and granularity='sublayer'"),
    ):
        with pytest.raises(UserError, match=words):
            prune(decoder, task, **OPTIONS | options, out=tmp_path / "none")
    streamed = load_model(decoder.name, stream=True)
    with pytest.raises(UserError, match="needs all weights in one memory, and stream spreads"):
        prune(streamed, task, **OPTIONS, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    prune(decoder, task, **OPTIONS, out=tmp_path / "run")
    with pytest.raises(UserError, match="removed halves of blocks .* heal a run of whole blocks"):
        open_run(tmp_path / "run")
    with pytest.raises(UserError, match="similarity compares models without whole blocks"):
        read_ladder(tmp_path / "run", decoder, task)


@pytest.mark.slow
def test_the_report_speaks_of_halves(loaded, task, tmp_path):
    prune(loaded("llama"), task, **OPTIONS | {"remove": 11}, out=tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "Removed half" in page and "Passes of a half" in page and "Halves removed" in page
    assert "11 of 12 halves were removed" in page and "a: attention, m: MLP" in page
    assert "Removed block" not in page and "Blocks removed" not in page
    first = run.steps()[1]["removed"]
    assert f"<td>{first}</td>" in page
    result = run.manifest["result"]
    assert "removal of block" not in page
    # Few questions of a random model have no fall; one is named by its half all the same.
    steps = [step | {"retained": 1.0} for step in run.steps()]
    fall = {
        "found": True,
        "kind": "cliff",
        "step": 2,
        "ci": [2, 2],
        "before": 1.0,
        "after": 0.1,
        "removed": "3.mlp",
        "phase": None,
        "p_value": 0.001,
    }
    (line,) = fall_lines(result | {"cliff": fall}, steps)
    assert line.startswith(
        "Retained falls off a cliff at step 2 (95 % CI 2 to 2), the removal of "
        "MLP 3: 100.0 % on average"
    )


@pytest.mark.slow
def test_the_command(loaded, task, tmp_path):
    name, questions = loaded("llama").name, str(_path_of(task))
    common = ["prune", name, "--task", questions, "--scoring", "text", "--calibration", "4"]
    run = tmp_path / "run"
    done = CliRunner().invoke(
        app,
        [
            *common,
            "--granularity",
            "sublayer",
            "--remove",
            "3",
            "--out",
            str(run),
            "--json",
            "--quiet",
        ],
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    removed = result["result"]["removed"]
    assert removed == [step["removed"] for step in result["steps"][1:]] and len(removed) == 3
    assert all(item in all_items("sublayer", 6) for item in removed)
    assert result["result"]["export"]["max_abs_logit_difference"] < 1e-4
    again = CliRunner().invoke(
        app, [*common, "--granularity", "sublayer", "--remove", "3", "--out", str(run)]
    )
    assert again.exit_code == 0 and removed[0] in again.stdout and "Half" in again.stdout
    assert max(map(len, again.stdout.split("report:")[0].splitlines())) <= 80
    assert "3 of 12 halves were removed" in " ".join(again.stdout.split())
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", name, "--remove", "4,1.mlp", "--out", str(out)])
    assert done.exit_code == 0 and "zeroed, not deleted: MLP 1" in " ".join(done.stdout.split())
    words = ["export", str(run), "--step", "1", "--out", str(tmp_path / "s")]
    step = CliRunner().invoke(app, words)
    assert step.exit_code == 0 and removed[0] in step.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--granularity", "mlp", "--stream"], "--stream spreads them"),
        (["--granularity", "mlp", "--device", "map"], "--device map spreads them"),
        (["--granularity", "head"], "--granularity is 'head' and must be one of"),
        (["--granularity", "mlp", "--search", "racing"], "--search racing goes with whole blocks"),
        (["--granularity", "mlp", "--method", "tail"], "ranks whole blocks"),
    ],
)
def test_the_command_refuses_before_it_loads(words, sentence, tmp_path):
    command = ["prune", "nowhere/model", "--task", "none.jsonl", "--out", str(tmp_path / "r")]
    done = CliRunner().invoke(app, [*command, *words])
    assert isinstance(done.exception, UserError) or done.exit_code == 2
    told = getattr(done.exception, "typed", "") + " ".join(done.output.split())
    assert sentence in told
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_halves_go_where_no_block_could_be_deleted(loaded, tmp_path):
    """Jamba's periods bind its blocks to their places; zeros leave them there."""
    decoder = loaded("jamba")
    with pytest.raises(UserError, match="period"):
        export(decoder, ["2.attention", "2.mlp"], tmp_path / "no")
    exported = export(decoder, ["2.attention", "3.mlp"], tmp_path / "out")
    assert exported.kept == [0, 1, 2, 3, 4, 5] and len(exported.zeroed["items"]) == 2
