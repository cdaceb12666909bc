"""Blocks read from disk when they run: the same figures, each read once, no more than two held."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from conftest import CONFIGS, ROPE, save_tiny
from phaseprune.decoder import streamed as streaming
from phaseprune.decoder.budget import fits, in_words, parse_bytes
from phaseprune.decoder.export import check_exportable, export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.source import find_source
from phaseprune.decoder.streamed import Streamed
from phaseprune.decoder.tensors import WeightReader
from phaseprune.errors import UserError
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.sweep import memory, states
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import sweep_scores, trace_scores

FAMILIES = ["llama", "gemma2", "gpt2", "falcon", "mixtral"]


@pytest.fixture(scope="module")
def directories(tiny_dirs, tmp_path_factory):
    """Those of the tiny models, and one of a family whose experts are merged on loading."""
    CONFIGS["mixtral"] = lambda: MixtralConfig(**ROPE, num_local_experts=4, head_dim=8)
    try:
        mixtral = save_tiny(tmp_path_factory.mktemp("mixtral"), "mixtral")
    finally:
        del CONFIGS["mixtral"]
    return {**tiny_dirs, "mixtral": mixtral}


@pytest.fixture
def held(monkeypatch):
    """How many blocks are in memory, noted whenever one has been read."""
    counts = []
    load = Streamed._load

    def note(self, block):
        load(self, block)
        counts.append(len(in_memory(self)))

    monkeypatch.setattr(Streamed, "_load", note)
    return counts


def in_memory(stream):
    blocks = enumerate(stream.blocks)
    return [n for n, block in blocks if any(not p.is_meta for p in block.parameters())]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_trace_sweep_and_export_are_those_of_the_resident_model(
    directories, question_file, tmp_path, held, family
):
    directory = directories[family]
    resident, streamed = load_model(str(directory)), load_model(str(directory), stream=True)
    stream = streamed.placement
    # The model's own forward, and one beside which streams are replayed; nothing is left behind.
    assert stream.reads == [0, 1, 2, 3, 4] * 2 and not in_memory(stream)
    assert streamed.readout_difference <= 1e-5
    outside = [n for n, t in streamed.model.named_parameters() if not t.is_meta]
    assert outside and not any(name.startswith(streamed.blocks_path + ".") for name in outside)
    assert not any(b.is_meta for b in streamed.model.buffers())
    whole = (sum(p.numel() for p in d.model.parameters()) for d in (resident, streamed))
    assert len(set(whole)) == 1 and streamed.weight_bytes < resident.weight_bytes

    for scoring in ("letter", "text"):
        task = load_task(str(question_file), scoring=scoring)
        one, two = prepare(resident, task), prepare(streamed, task)
        before = len(stream.reads)
        traces = [
            trace_scores(d, p.rows, p.needs_vocabulary)
            for d, p in ((resident, one), (streamed, two))
        ]
        np.testing.assert_allclose(*traces, atol=1e-5)
        assert stream.reads[before:] == [0, 1, 2, 3, 4]
        keeps, live = (Kept(10**9), Kept(10**9)), [0, 1, 2, 3, 4]
        for removed in (3, 1):
            before = len(stream.reads)
            ours, theirs = (
                sweep_scores(d, p.rows, p.needs_vocabulary, live, kept=kept)
                for d, p, kept in ((streamed, two, keeps[0]), (resident, one, keeps[1]))
            )
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
            assert ours.block_passes == theirs.block_passes
            begin = 0 if len(live) == 5 else 3  # the states before block 3 were kept: it is gone
            assert stream.reads[before:] == [b for b in live if b >= begin]
            live.remove(removed)
    result = export(streamed, [1, 3], tmp_path / "streamed")
    other = export(resident, [1, 3], tmp_path / "resident")
    assert result.max_abs_logit_difference <= 1e-5 and result.generated_tokens == 2
    assert result.parameters == other.parameters
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("streamed", "resident")]
    assert files[0] == files[1]
    assert max(held) == 2 and not in_memory(stream)


def test_the_next_block_is_read_while_one_runs(directories, question_file, monkeypatch):
    decoder = load_model(str(directories["llama"]), stream=True)
    prepared = prepare(decoder, load_task(str(question_file)))
    threads = []
    load = Streamed._load

    def note(self, block):
        import threading

        threads.append((block, threading.current_thread().name.startswith("phaseprune-weights")))
        load(self, block)

    monkeypatch.setattr(Streamed, "_load", note)
    trace_scores(decoder, prepared.rows, False, removed=[2])
    assert threads == [(0, False), (1, True), (3, True), (4, True)]
    with decoder.resident(1, then=2):  # what was read ahead in vain is let go
        pass
    with decoder.resident(4):
        assert in_memory(decoder.placement) == [4]
    assert in_memory(decoder.placement) == []


def test_half_precision_is_what_loading_makes_of_it(directories, question_file):
    task = load_task(str(question_file), scoring="text")
    raw = []
    for stream in (False, True):
        decoder = load_model(str(directories["llama"]), dtype="bfloat16", stream=stream)
        assert decoder.dtype == torch.bfloat16
        prepared = prepare(decoder, task)
        raw.append(trace_scores(decoder, prepared.rows, True))
    np.testing.assert_array_equal(*raw)


def test_weights_over_several_files_and_the_models_own_forward(directories, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(directories["mixtral"])
    model.save_pretrained(tmp_path / "m", max_shard_size="40KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "m" / name).write_bytes((directories["mixtral"] / name).read_bytes())
    decoder = load_model(str(tmp_path / "m"), stream=True)
    tokens = torch.arange(30).view(2, 15)
    with torch.no_grad():
        own = model(tokens).logits
    torch.testing.assert_close(decoder.model(tokens).logits, own, atol=1e-5, rtol=0)


@pytest.fixture
def small(monkeypatch):
    """Tiny models work with nothing, so that their weights matter to a budget."""
    for module in (streaming, memory):
        monkeypatch.setattr(module, "working_bytes", lambda *sizes: 0)


def test_a_budget_below_the_weights_streams_by_itself(directories, small):
    name = str(directories["llama"])
    whole = load_model(name).weight_bytes
    assert load_model(name, max_memory=whole).placement.in_place
    assert load_model(name, max_memory=whole - 1).placement.in_place is False
    with pytest.raises(UserError, match="leave stream=False out"):
        load_model(name, stream=False, max_memory=whole - 1)


def test_too_small_a_budget_is_refused_with_the_least_that_would_do(directories, question_file):
    name = str(directories["llama"])
    with pytest.raises(UserError, match="give at least that much") as refusal:
        load_model(name, stream=True, max_memory="200kB")
    least = re.search(r"take (\d+[KMG]B)", str(refusal.value))[1]
    decoder = load_model(name, stream=True, max_memory=least)
    assert decoder.max_memory == parse_bytes(least)
    # Room for the model, and none for the states of a question.
    decoder.max_memory = decoder.weight_bytes + memory._working(decoder, 512) + 1000
    task = load_task(str(question_file), scoring="text")
    with pytest.raises(UserError, match=r"question number \d .* give at least \d+MB"):
        prepare(decoder, task)
    with pytest.raises(UserError, match="is no size"):
        load_model(name, max_memory="much")
    assert parse_bytes(in_words(1_234_567)) >= 1_234_567


def test_an_export_that_has_no_room_to_be_compared_is_refused_before_the_search(directories, small):
    decoder = load_model(str(directories["qwen3"]), stream=True)
    decoder.max_memory = decoder.weight_bytes
    with pytest.raises(UserError, match="comparing an export"):
        check_exportable(decoder)
    decoder.max_memory += decoder.placement.outside_bytes
    check_exportable(decoder)


def test_a_small_budget_gives_the_same_in_more_walks(directories, question_file, small):
    name = str(directories["llama"])
    task = load_task(str(question_file), scoring="text")
    free = load_model(name)
    one = prepare(free, task)
    expected = sweep_scores(free, one.rows, True, range(5)).scores
    decoder = load_model(name, stream=True)
    decoder.max_memory = decoder.weight_bytes + 2 * 2 * 6 * memory.stream_bytes(decoder, 36)
    two = prepare(decoder, task)
    traced = prepare(decoder, task, streams=1)
    assert len(two.rows.shards) > 2 and len(traced.rows.shards) < len(two.rows.shards)
    before = len(decoder.placement.reads)
    np.testing.assert_allclose(
        sweep_scores(decoder, two.rows, True, range(5)).scores, expected, atol=1e-4
    )
    assert decoder.placement.reads[before:] == [0, 1, 2, 3, 4] * len(two.rows.shards)


@pytest.mark.parametrize("stream", [False, True])
def test_where_memory_runs_out_fewer_streams_are_run_at_once(
    directories, question_file, monkeypatch, stream
):
    decoder = load_model(str(directories["llama"]), stream=stream)
    prepared = prepare(decoder, load_task(str(question_file), scoring="text"))
    expected = sweep_scores(decoder, prepared.rows, True, range(5))
    run, most = states.run_packed, [2]

    def scarce(decoder, block, hidden, *rest):
        if len(hidden) > most[0]:
            raise torch.OutOfMemoryError("out of memory")
        return run(decoder, block, hidden, *rest)

    monkeypatch.setattr(states, "run_packed", scarce)
    decoder.reads_alone = False
    found = sweep_scores(decoder, prepared.rows, True, range(5))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.block_passes == expected.block_passes
    most[0] = 0
    with pytest.raises(UserError, match="block 0 does not get the memory"):
        sweep_scores(decoder, prepared.rows, True, range(5))
    assert stream is False or not in_memory(decoder.placement)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unreadable", "cut short", "removed"])
def test_a_disk_error_ends_a_run_that_goes_on_later(
    directories, question_file, tmp_path, monkeypatch, how
):
    name = tmp_path / "model"
    name.mkdir()
    for file in directories["llama"].iterdir():
        (name / file.name).write_bytes(file.read_bytes())
    task = load_task(str(question_file))
    expected = prune(load_model(str(name)), task, remove=2, calibration=4)
    decoder = load_model(str(name), stream=True)
    weights, read = name / "model.safetensors", WeightReader.read
    content, status = weights.read_bytes(), weights.stat()
    out = tmp_path / "run"

    def broken(self, stored):
        if ".layers.3." in stored and (out / "steps.jsonl").exists():
            if how == "unreadable":
                raise OSError(5, "Input/output error")
            weights.write_bytes(content[:-5000]) if how == "cut short" else weights.unlink()
        return read(self, stored)

    monkeypatch.setattr(WeightReader, "read", broken)
    with pytest.raises(UserError, match=r"block 3 cannot be read .* same command goes on"):
        prune(decoder, task, remove=2, calibration=4, out=out)
    assert json.loads((out / "manifest.json").read_text())["status"] == "failed"
    assert not in_memory(decoder.placement)
    monkeypatch.setattr(WeightReader, "read", read)
    weights.write_bytes(content)
    steps = (out / "steps.jsonl").read_text()
    again = prune(load_model(str(name), stream=True), task, remove=2, calibration=4, out=out)
    assert again.state == "resumed" and (out / "steps.jsonl").read_text().startswith(steps)
    assert again.removed == expected.removed
    assert status.st_size == weights.stat().st_size


def damaged(directory, out, change):
    out.mkdir()
    for file in directory.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return str(out)


def test_what_is_wrong_with_a_block_is_said(directories, tmp_path):
    weight = "model.layers.3.mlp.up_proj.weight"
    llama = directories["llama"]
    lacking = damaged(llama, tmp_path / "lacking", lambda t: t.pop(weight))
    with pytest.raises(UserError, match=f"lacks 1 of the weights of block 3, the first .*{weight}"):
        load_model(lacking, stream=True)
    other = damaged(llama, tmp_path / "other", lambda t: t.update({weight: torch.ones(3, 3)}))
    with pytest.raises(UserError, match="in another shape 1 of the weights of block 3"):
        load_model(other, stream=True)
    nan = damaged(llama, tmp_path / "nan", lambda t: t[weight].fill_(torch.nan))
    with pytest.raises(UserError, match="block 3 has NaN"):
        load_model(nan, stream=True)
    outside = damaged(llama, tmp_path / "outside", lambda t: t.pop("model.norm.weight"))
    with pytest.raises(UserError, match="lacks 1 of the model's weights"):
        load_model(outside, stream=True)
    expert = damaged(
        directories["mixtral"],
        tmp_path / "expert",
        lambda t: t.pop(next(name for name in t if ".2." in name and ".experts.1." in name)),
    )
    with pytest.raises(UserError, match="block 2"):
        load_model(expert, stream=True)


def test_what_cannot_be_streamed_is_refused_before_any_work(directories, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    source = find_source(str(tmp_path / "m.gguf"))
    assert ".gguf" in streaming.streaming_problem(source, None)
    config = LlamaConfig(**ROPE)
    config.quantization_config = {"quant_method": "gptq"}
    source = find_source(str(directories["llama"]))
    assert "quantised" in streaming.streaming_problem(source, config)
    assert fits(source, torch.float32, "cpu", None)
    packed = damaged(
        directories["llama"],
        tmp_path / "packed",
        lambda t: t.update({"model.norm.weight": t["model.norm.weight"].to(torch.float8_e4m3fn)}),
    )
    with pytest.raises(UserError, match="use stream=False"):
        load_model(packed, stream=True)
