"""Models spread by accelerate's device map: the same figures as with all weights on one device.

Really tried are host memory and disk. Several devices are played by the processor
(``second_device``), which shows that nothing of ours assumes one, and nothing about GPUs.
"""

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from conftest import CONFIGS, ROPE, save_tiny
from families import save_family
from phaseprune.cli.main import main
from phaseprune.decoder import mapped
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.mapped import (
    block_places,
    fetched,
    main_device,
    pruned_map,
    refuse_unmappable,
)
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError
from phaseprune.methods.rank import rank_blocks
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.sweep import scoring
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.probe import packed_length
from phaseprune.sweep.states import Walker
from phaseprune.sweep.walk import sweep_scores, trace_scores
from second_device import further_devices

FAMILIES = ["llama", "qwen3", "gemma2", "gpt2", "falcon", "mixtral"]
BLOCKS = 5


@pytest.fixture(scope="module")
def directories(tiny_dirs, tmp_path_factory):
    """Those of the tiny models, and one of a family whose experts are merged on loading."""
    CONFIGS["mixtral"] = lambda: MixtralConfig(**ROPE, num_local_experts=4, head_dim=8)
    try:
        mixtral = save_tiny(tmp_path_factory.mktemp("mixtral"), "mixtral")
    finally:
        del CONFIGS["mixtral"]
    return {**tiny_dirs, "mixtral": mixtral}


def a_map(decoder, blocks, outside, **others):
    """A map of a model: the places of its blocks, of all else, and of single modules else."""
    path = decoder.blocks_path + "."
    parts = {
        name.rpartition(".")[0]
        for name, _ in decoder.model.named_parameters(remove_duplicate=False)
        if not name.startswith(path)
    }
    return (
        {part: outside for part in parts}
        | others
        | {f"{path}{n}": place for n, place in enumerate(blocks)}
    )


def offloaded(decoder):
    """Where weights of hooked modules are at rest: all must be on the meta device."""
    hooks = ((m, getattr(m, "_hf_hook", None)) for m in decoder.model.modules())
    return [
        p
        for m, hook in hooks
        if getattr(hook, "offload", False)
        for p in m.parameters(recurse=False)
    ]


def figures(decoder, question_file):
    """States, traces and two steps with kept states, of letters and texts."""
    found, every = [], list(range(len(decoder.blocks)))
    for kind in ("letter", "text"):
        prepared = prepare(decoder, load_task(str(question_file), scoring=kind))
        rows, needs = prepared.rows, prepared.needs_vocabulary
        walker = Walker(decoder, rows.shards[0], batch_tokens(decoder))
        states = walker.embedded()
        for block in every:
            states = walker.run(block, states)
            found += [state.cpu().numpy() for state in states]
        found.append(trace_scores(decoder, rows, needs))
        found.append(trace_scores(decoder, rows, needs, removed=[2]))
        kept = Kept(10**9)
        for live in (every, [block for block in every if block != 3]):
            sweep = sweep_scores(decoder, rows, needs, live, kept=kept)
            found += [sweep.scores, np.array(sweep.block_passes)]
    return found


def compare(one, other, atol):
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["memory and disk", "all on disk"])
def test_figures_and_export_are_those_of_the_resident_model(
    directories, question_file, tmp_path, family, how
):
    name = str(directories[family])
    resident = load_model(name)
    asked = {"": "disk"}
    if how == "memory and disk":
        asked = a_map(resident, ["cpu", "disk", "cpu", "disk", "disk"], "cpu")
    spread = load_model(name, device=asked)
    away = offloaded(spread)
    assert away and all(p.is_meta for p in away)
    assert spread.device == torch.device("cpu") and spread.dtype == resident.dtype
    assert spread.weight_bytes < resident.weight_bytes
    assert spread.readout_difference <= 1e-5
    compare(figures(spread, question_file), figures(resident, question_file), atol=0)
    assert spread.packed_length == resident.packed_length
    assert spread.reads_alone == resident.reads_alone
    assert all(p.is_meta for p in offloaded(spread)) and len(offloaded(spread)) == len(away)
    ours = export(spread, [1, 3], tmp_path / "spread")
    theirs = export(resident, [1, 3], tmp_path / "resident")
    assert ours.to_dict() | {"path": ""} == theirs.to_dict() | {"path": ""}
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("spread", "resident")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_half_precision_is_what_loading_makes_of_it(directories, question_file):
    name = str(directories["qwen3"])
    one, two = (
        load_model(name, dtype="bfloat16", device=device) for device in ("cpu", {"": "disk"})
    )
    assert two.dtype == torch.bfloat16
    task = load_task(str(question_file), scoring="text")
    compare(*([trace_scores(d, prepare(d, task).rows, True)] for d in (one, two)), atol=0)


def test_the_export_is_reloaded_where_the_model_lies(directories, tmp_path, monkeypatch):
    name = str(directories["llama"])
    asked = a_map(load_model(name), ["disk", "cpu", "disk", "cpu", "cpu"], "cpu")
    decoder = load_model(name, device=asked)
    reloaded = []
    loading = AutoModelForCausalLM.from_pretrained

    def note(*args, **kwargs):
        reloaded.append(kwargs["device_map"])
        return loading(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", note)
    export(decoder, [0, 3], tmp_path / "out")
    kept = {path: place for path, place in reloaded[0].items() if "layers" in path}
    assert kept == {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "cpu"}
    assert reloaded[0]["model.embed_tokens"] == "cpu"


@given(st.lists(st.sampled_from(["cpu", "disk", 0, 1]), min_size=1, max_size=14), st.data())
def test_each_kept_block_stays_where_it_was(places, data):
    every = range(len(places))
    kept = sorted(data.draw(st.sets(st.sampled_from(every), min_size=1)))
    full = {"embed": 0} | {f"m.h.{n}.{part}": p for n, p in enumerate(places) for part in "ab"}
    found = pruned_map(full | {"m.h2.1": 1}, "m.h", kept)
    assert found == {"embed": 0, "m.h2.1": 1} | {
        f"m.h.{number}.{part}": places[block] for number, block in enumerate(kept) for part in "ab"
    }
    assert pruned_map("map", "m.h", kept) == "map"


@pytest.mark.slow
def test_a_walk_fetches_a_block_once_and_the_head_once_a_readout(
    directories, question_file, monkeypatch
):
    decoder = load_model(str(directories["qwen3"]), device={"": "disk"})
    modules = {module: name for name, module in decoder.model.named_modules()}
    prepared = prepare(decoder, load_task(str(question_file), scoring="text"))
    packed_length(decoder)
    monkeypatch.setattr(scoring, "LOGIT_ELEMENTS", scoring.READS * 32)  # ten parts of the head
    before, fetch = [], mapped._fetched

    def note(module, hook):
        before.append(modules[module])
        return fetch(module, hook)

    monkeypatch.setattr(mapped, "_fetched", note)
    sweep_scores(decoder, prepared.rows, True, range(BLOCKS))
    assert before.count("lm_head") == 1
    norms = [f"model.layers.{n}.input_layernorm" for n in range(BLOCKS)]
    assert [name for name in before if "input_layernorm" in name] == norms


def test_weights_are_let_go_where_a_block_fails(directories):
    decoder = load_model(str(directories["llama"]), device={"": "disk"})
    with pytest.raises(ZeroDivisionError), fetched(decoder.blocks[2]), fetched(decoder.blocks[2]):
        inside = list(decoder.blocks[2].parameters())
        assert inside and not any(p.is_meta for p in inside)
        raise ZeroDivisionError
    assert all(p.is_meta for p in offloaded(decoder))
    assert all(p.is_meta for p in decoder.blocks[2].parameters())


@pytest.mark.slow
def test_a_family_that_uses_weights_without_calling_their_module(question_file, tmp_path):
    name = str(save_family("dbrx", tmp_path / "dbrx"))
    resident = load_model(name)
    spread = load_model(name, device=a_map(resident, ["disk"] * len(resident.blocks), "cpu"))
    compare(figures(spread, question_file), figures(resident, question_file), atol=0)


@pytest.mark.slow
def test_the_map_that_accelerate_makes_keeps_to_the_budget(directories, question_file, monkeypatch):
    name = str(directories["qwen3"])
    resident = load_model(name)
    assert set(block_places(load_model(name, device="map").model, "model.layers")) == {"cpu"}
    monkeypatch.setattr(mapped, "RESIDENT_SHARE", resident.weight_bytes * 0.7 / 2e9)
    spread = load_model(name, device="map", max_memory="2GB")
    places = block_places(spread.model, spread.blocks_path)
    assert set(places) == {"cpu", "disk"} and places == sorted(places)
    in_memory = sum(p.nbytes for p in spread.model.parameters() if not p.is_meta)
    assert in_memory <= spread.weight_bytes <= 0.7 * resident.weight_bytes
    compare(figures(spread, question_file), figures(resident, question_file), atol=0)
    result = prune(spread, load_task(str(question_file)), remove=2, calibration=4)
    expected = prune(resident, load_task(str(question_file)), remove=2, calibration=4)
    assert result.removed == expected.removed


@pytest.mark.slow
def test_weights_that_loading_changed_are_deleted_with_the_model(
    directories, tmp_path, monkeypatch
):
    monkeypatch.setattr(mapped.tempfile, "tempdir", str(tmp_path))
    decoder = load_model(str(directories["mixtral"]), device={"": "disk"})
    (folder,) = tmp_path.iterdir()
    assert any(folder.iterdir())  # the experts, merged
    del decoder
    gc.collect()
    assert not folder.exists()


def damaged(directory, out, change):
    out.mkdir()
    for file in directory.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return str(out)


def test_what_is_wrong_with_offloaded_weights_is_said(directories, tmp_path):
    weight = "model.layers.3.mlp.up_proj.weight"
    nan = damaged(directories["qwen3"], tmp_path / "nan", lambda t: t[weight].fill_(torch.nan))
    with pytest.raises(UserError, match=f"block 3 has NaN .*{weight}"):
        load_model(nan, device={"": "disk"})
    lacking = damaged(directories["qwen3"], tmp_path / "lacking", lambda t: t.pop(weight))
    with pytest.raises(UserError, match=weight):
        load_model(lacking, device={"": "disk"})


def test_what_cannot_be_spread_is_refused_before_any_work(directories, tmp_path, monkeypatch):
    name = str(directories["llama"])
    with pytest.raises(UserError, match="stream reads blocks from disk itself"):
        load_model(name, device="map", stream=True)
    config = LlamaConfig(**ROPE)
    with pytest.raises(UserError, match=r"m.gguf: device='map' .*de-quantised as a whole"):
        refuse_unmappable(Source("m.gguf", tmp_path, "m.gguf"), config, None)
    config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(UserError, match="quantised weights are not moved"):
        refuse_unmappable(Source(name, Path(name)), config, None)
    with pytest.raises(UserError, match="does not give any device"):
        load_model(name, device={"model.layers": "cpu", "model.norm": "disk"})
    monkeypatch.setattr(mapped, "find_spec", lambda name: None)
    for device in ("map", {"": "disk"}):
        with pytest.raises(UserError, match=r"needs accelerate.*pip install 'phaseprune\[map\]'"):
            load_model(name, device=device)


def test_the_device_that_most_runs_on():
    assert main_device("map", "cuda") == "cuda"
    assert main_device({"a": "cpu", "b": "disk"}, "cuda") == "cpu"
    assert main_device({"a": "cpu", "b": 1, "c": 0}, "cuda") == "cuda:1"
    assert main_device({"a": "cpu", "b": torch.device("cuda:2")}, "cuda") == "cuda:2"


@pytest.mark.slow
def test_the_commands_give_the_same_with_a_map(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mapped, "_room", lambda most: {"cpu": 1_200_000})
    common = ["demo", "--limit", "60", "--json"]

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([*words])
        assert end.value.code in (0, None), capsys.readouterr().err
        return capsys.readouterr()

    spread = ["--device", "map", "--max-memory", "2GB"]
    done = run("trace", *common, *spread, "--out", str(tmp_path / "trace"))
    places = "its blocks:"
    assert places in done.err and "on disk" in done.err.replace("\n", " ")
    plain = run("trace", *common, "--out", str(tmp_path / "plain"))
    assert places not in plain.err and json.loads(done.out) == json.loads(plain.out)
    results = []
    for number, how in enumerate((spread, [])):
        out = tmp_path / f"prune-{number}"
        run("prune", *common, "--remove", "2", *how, "--out", str(out))
        steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
        results.append([{k: v for k, v in step.items() if k != "seconds"} for step in steps])
        assert (out / "model" / "model.safetensors").is_file()
    assert results[0] == results[1]
    checked = json.loads(run("check", *common, "--full", *spread).out)
    assert checked["ok"]
    with pytest.raises(SystemExit) as end:
        main(["check", "demo", "--device", "map", "--stream"])
    assert end.value.code == 2


@pytest.fixture
def played(monkeypatch):
    """Further devices, onto which transformers' loading spreads a model by accelerate."""
    loading = AutoModelForCausalLM.from_pretrained

    def spread(directory, *, device_map=None, max_memory=None, offload_folder=None, **options):
        model, report = loading(directory, **options)
        if device_map is None:
            return model, report
        skip = model._skip_keys_device_placement
        dispatch_model(model, device_map, main_device="lazy:0", skip_keys=skip)
        return model, report

    with further_devices():
        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spread)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "falcon"])
def test_nothing_assumes_one_device(directories, question_file, tmp_path, played, family):
    name = str(directories[family])
    resident = load_model(name)
    head = {"lm_head": "cpu"} if family == "qwen3" else {}
    blocks = ["lazy:0", "lazy:1", "cpu", "lazy:0", "lazy:1"]
    norm = {resident.norm_path: "lazy:1"}
    spread = load_model(name, device=a_map(resident, blocks, "lazy:0", **norm, **head))
    assert spread.device == torch.device("lazy:0")
    assert [spread.block_device(n) for n in range(2)] == [torch.device(b) for b in blocks[:2]]
    assert spread.block_device(2) == spread.device  # offloaded to host memory
    expected = figures(resident, question_file)
    compare(figures(spread, question_file), expected, atol=2e-5)
    assert spread.packed_length == resident.packed_length
    ours = export(spread, [1, 3], tmp_path / "spread")
    assert ours.max_abs_logit_difference <= 1e-5 and ours.generated_tokens == 8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["block_influence", "angular", "cka", "magnitude", "loss"])
def test_rankings_are_those_of_the_resident_model(directories, question_file, played, method):
    name, task = str(directories["qwen3"]), load_task(str(question_file), scoring="text")
    resident = load_model(name)
    blocks = ["lazy:0", "lazy:1", "cpu", "lazy:0", "lazy:1"]
    spread = load_model(name, device=a_map(resident, blocks, "lazy:0"))
    found, expected = (
        rank_blocks(decoder, task, method=method, remove=2) for decoder in (spread, resident)
    )
    assert found.order == expected.order and found.block_passes == expected.block_passes
    compare([found.scores], [expected.scores], atol=1e-5 * np.nanmax(np.abs(expected.scores)))


def test_a_spread_model_gives_no_gradients(directories, tmp_path):
    (tmp_path / "text.txt").write_text("the sky is blue " * 200)
    spread = load_model(str(directories["llama"]), device={"": "disk"})
    with pytest.raises(UserError, match="gives no gradients"):
        rank_blocks(spread, tmp_path / "text.txt", method="taylor")


@pytest.mark.slow
def test_plain_rows_are_run_where_a_map_lets_no_packed_ones(directories, question_file, played):
    """The model's own code wants the positions that we give where its embeddings are."""
    name = str(directories["qwen3"])
    resident = load_model(name)
    blocks, away = ["lazy:0"] * BLOCKS, {"model.embed_tokens": "lazy:1"}
    spread = load_model(name, device=a_map(resident, blocks, "lazy:0", **away))
    raw = []
    for decoder in (resident, spread):
        prepared = prepare(decoder, load_task(str(question_file), scoring="text"))
        raw.append(trace_scores(decoder, prepared.rows, True))
    assert resident.packed_length and spread.packed_length == 0
    compare(raw[:1], raw[1:], atol=2e-5)


def test_the_played_devices_refuse_what_real_ones_do():
    with further_devices():
        here, there = torch.ones(3), torch.ones(3).to("lazy:1")
        assert (there + 1).device == torch.device("lazy:1")
        for other in (here, there.to("lazy:0")):
            with pytest.raises(RuntimeError, match="same device"):
                there + other
            with pytest.raises(RuntimeError, match="same device"):
                other @ there
        with pytest.raises(RuntimeError, match="same device"):
            here[torch.tensor([0]).to("lazy:1")]
        other = torch.zeros(2, 3)
        other[1] = there
        assert other.sum() == 3 and float((there * 2).sum()) == 6
