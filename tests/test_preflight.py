"""What is said of a model before its weights are loaded, and what is refused."""

import copy
import dataclasses
import json
import shutil
import struct
import sys
import time
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, MixtralForCausalLM

from conftest import CONFIGS, ROPE, make_tokenizer
from phaseprune.cli.main import main
from phaseprune.decoder import checkpoint as checkpoint_module
from phaseprune.decoder.checkpoint import read_checkpoint
from phaseprune.decoder.load import load_model, read_config
from phaseprune.decoder.preflight import preflight
from phaseprune.decoder.source import Source, find_source
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.sweep.trace import trace

BIG = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=False,
    dtype="bfloat16",
    architectures=["LlamaForCausalLM"],
)


def seen(directory):
    source = find_source(str(directory), weights=False)
    return preflight(source, read_config(source))


def write_header(path, shapes):
    """A safetensors file of bfloat16 zeros that takes no room on disk: a header and a hole."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    with open(path, "wb") as handle:
        handle.write(struct.pack("<Q", len(header)) + header)
        handle.truncate(8 + len(header) + end)


def write_big(directory, shards=4, leave_out=()):
    """The files of Llama-3-8B's shape, four shards of headers, without the weights."""
    directory.mkdir()
    BIG.save_pretrained(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(BIG)
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if n not in leave_out}
    names = list(shapes)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        held = names[shard::shards]
        write_header(directory / file, {name: shapes[name] for name in held})
        weight_map |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 16_060_522_496}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    return write_big(tmp_path_factory.mktemp("big") / "model")


@pytest.mark.slow
def test_eight_billion_parameters_in_two_seconds_and_little_memory(big):
    seen(big)  # the first call imports
    tracemalloc.start()
    began = time.process_time()
    found = seen(big)
    seconds = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 2 and peak < 50e6
    assert (found.family, found.blocks, found.blocks_path) == ("llama", 32, "model.layers")
    assert found.norm_path == "model.norm" and not found.tied
    assert found.parameters == 8_030_261_248 and found.dtype == "bfloat16"
    assert abs(found.disk_bytes - 16_060_522_496) < 1e5
    assert set(found.block_bytes) == {2 * 218_112_000}
    assert found.weight_bytes(None) == 16_060_522_496
    assert found.weight_bytes(torch.float32) == 32_121_044_992
    assert found.names.checked == "names and shapes" and found.names.problem is None
    assert found.quantisation is None and found.export_problem is None


def test_no_memory_is_taken_for_a_big_model(big):
    """Peak resident memory of the process, which also sees what PyTorch allocates."""
    resource = pytest.importorskip("resource")
    seen(big)
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    seen(big)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 200e6


def test_a_missing_tensor_of_a_big_model_is_named(tmp_path):
    gone = ["model.layers.17.mlp.up_proj.weight", "model.layers.20.mlp.up_proj.weight"]
    problem = seen(write_big(tmp_path / "m", leave_out=gone)).names.problem
    assert f"lacks 2 of the model's weights, the first {gone[0]}" in problem


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_said_is_what_loading_finds(tiny_dirs, tiny, family):
    found, decoder = seen(tiny_dirs[family]), tiny[family]
    weights = load_file(tiny_dirs[family] / "model.safetensors")
    assert found.family == decoder.family and found.blocks == len(decoder.blocks)
    assert (found.blocks_path, found.norm_path) == (decoder.blocks_path, decoder.norm_path)
    assert found.parameters == sum(p.numel() for p in decoder.model.parameters())
    assert found.tied == (decoder.head.weight is decoder.model.get_input_embeddings().weight)
    assert found.names.problem is None and found.names.checked == "names and shapes"
    assert found.names.unused == () and found.names.unsure == ()
    prefix = f"{found.blocks_path}.2."
    assert found.block_bytes[2] == sum(t.nbytes for n, t in weights.items() if prefix in n)
    assert found.disk_bytes == (tiny_dirs[family] / "model.safetensors").stat().st_size


@pytest.mark.parametrize("family", CONFIGS)
def test_a_checkpoint_may_lack_the_outer_prefix(tiny_dirs, tiny, tmp_path, family):
    """As ``h.0`` for ``transformer.h.0``."""
    directory = copy_of(tiny_dirs[family], tmp_path)
    prefix = tiny[family].model.base_model_prefix + "."
    whole = load_file(directory / "model.safetensors")
    bare = {name.removeprefix(prefix): tensor for name, tensor in whole.items()}
    assert set(bare) != set(whole)
    save_file(bare, directory / "model.safetensors", metadata={"format": "pt"})
    found = seen(directory)
    assert found.names.problem is None and found.names.unsure == found.names.unused == ()
    assert found.block_bytes == seen(tiny_dirs[family]).block_bytes


def change(directory, damage):
    weights = load_file(directory / "model.safetensors")
    damage(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def copy_of(directory, tmp_path):
    return shutil.copytree(directory, tmp_path / "model")


def test_another_shape_is_refused_and_another_tensor_is_told(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs["qwen3"], tmp_path)
    change(directory, lambda w: w.update({"model.layers.5.extra.weight": torch.ones(2)}))
    names = seen(directory).names
    assert names.problem is None and names.unused == ("model.layers.5.extra.weight",)
    change(directory, lambda w: w.update({"lm_head.weight": torch.ones(300, 32)}))
    assert "lm_head.weight is [300, 32] in the checkpoint and [320, 32]" in (
        seen(directory).names.problem
    )


def save_mixtral(directory):
    config = MixtralConfig(**ROPE, num_local_experts=2, num_experts_per_tok=1)
    MixtralForCausalLM(config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)


def test_names_that_are_converted_on_loading_are_no_false_alarm(tmp_path):
    save_mixtral(tmp_path)
    found = seen(tmp_path)
    assert found.names.problem is None and len(found.names.unsure) > 0
    assert all("experts" in name or "gate" in name for name in found.names.unsure)
    # What has its plain name in the other blocks is missing for certain.
    change(tmp_path, lambda w: w.pop("model.layers.3.self_attn.q_proj.weight"))
    assert "the first model.layers.3.self_attn.q_proj.weight" in seen(tmp_path).names.problem


def quantised(directory, settings, damage=lambda weights: None):
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = settings
    (directory / "config.json").write_text(json.dumps(config))

    def pack(weights):
        for name in [n for n in weights if n.endswith("_proj.weight")]:
            module = name.removesuffix("weight")
            weights[module + "qweight"] = weights.pop(name)[:4].to(torch.int32)
            weights[module + "scales"] = torch.ones(4, dtype=torch.float16)
        damage(weights)

    change(directory, pack)
    return directory


GPTQ = {"quant_method": "gptq", "bits": 4}


def test_quantised_checkpoints_are_recognised(tiny_dirs, tmp_path):
    found = seen(quantised(copy_of(tiny_dirs["llama"], tmp_path), GPTQ))
    assert found.quantisation.method == "gptq 4-bit"
    assert "optimum" in (found.quantisation.problem or "optimum")  # says what is not installed
    assert found.names.checked == "modules" and found.names.problem is None
    assert "de-quantise it first" in found.export_problem
    assert found.weight_bytes(torch.float32) == found.disk_bytes


def test_a_module_that_a_quantised_checkpoint_lacks_is_named(tiny_dirs, tmp_path):
    def damage(weights):
        for part in ("qweight", "scales"):
            weights.pop(f"model.layers.1.mlp.up_proj.{part}")

    found = seen(quantised(copy_of(tiny_dirs["llama"], tmp_path), GPTQ, damage))
    assert "the first model.layers.1.mlp.up_proj.weight" in found.names.problem


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "nonesuch"}, "nonesuch"),
    ],
)
def test_methods_of_quantisation(tiny_dirs, tmp_path, settings, method):
    found = seen(quantised(copy_of(tiny_dirs["llama"], tmp_path), settings))
    assert found.quantisation.method == method and found.export_problem
    if method == "nonesuch":
        assert "Unknown quantization type" in found.quantisation.problem


def test_the_dtype_of_a_quantised_model_is_that_of_its_hidden_states(tiny):
    decoder = dataclasses.replace(tiny["llama"], model=copy.deepcopy(tiny["llama"].model))
    decoder.blocks = decoder.model.get_submodule(decoder.blocks_path)
    packed = torch.zeros(8, dtype=torch.uint8)
    decoder.blocks[0].self_attn.q_proj.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert next(decoder.blocks.parameters()).dtype == torch.uint8
    assert decoder.dtype == torch.float32


@pytest.mark.parametrize("bits", [4, 8])
def test_where_the_library_is_installed_a_quantised_model_is_traced(tmp_path, question_file, bits):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = LlamaConfig(**ROPE | {"hidden_size": 64, "intermediate_size": 128})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "plain")
    settings = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=torch.float32
    )
    AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=settings, dtype=torch.float32, device_map="cpu"
    ).save_pretrained(tmp_path / "packed")
    make_tokenizer().save_pretrained(tmp_path / "packed")
    found = seen(tmp_path / "packed")
    assert found.quantisation.method == f"bitsandbytes {bits}-bit"
    assert found.quantisation.problem is None and found.names.problem is None
    traced = trace(load_model(str(tmp_path / "packed")), load_task(str(question_file)))
    assert len(traced.readouts) == 6


def cut_short(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lfs_pointer(directory):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
    (directory / "model.safetensors").write_text(text)


def no_weights(directory):
    (directory / "model.safetensors").unlink()


def pickles(directory):
    no_weights(directory)
    (directory / "pytorch_model.bin").write_bytes(b"")


def shard_gone(directory):
    no_weights(directory)
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    write_header(directory / "model-00002-of-00002.safetensors", {})


def bad_index(directory):
    no_weights(directory)
    (directory / "model.safetensors.index.json").write_text("{}")
    write_header(directory / "other.safetensors", {})


def other_name(directory):
    (directory / "model.safetensors").rename(directory / "consolidated.safetensors")


def bad_header(directory):
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"what")


def bad_config(directory):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_act": "nonesuch"}))


DAMAGES = {
    cut_short: "model.safetensors is cut short: it has",
    lfs_pointer: "model.safetensors is a Git LFS pointer, not the weights; fetch it again",
    no_weights: "no .safetensors files; give a full checkpoint",
    pickles: "pytorch_model.bin is a pickle, which can run code when it is loaded; convert it",
    shard_gone: "the index names model-00001-of-00002.safetensors, which is not there",
    bad_index: "model.safetensors.index.json is damaged",
    other_name: "neither model.safetensors nor model.safetensors.index.json",
    bad_header: "model.safetensors has a damaged header",
    bad_config: "its configuration makes no model",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_unusable_files_are_refused_in_one_sentence(
    tiny_dirs, tmp_path, monkeypatch, capsys, damage
):
    directory = copy_of(tiny_dirs["llama"], tmp_path)
    damage(directory)
    code, out, err = check(monkeypatch, capsys, directory)
    assert code == 2 and "✗ model" in out and "Traceback" not in err
    assert DAMAGES[damage] in err and len([x for x in err.splitlines() if "error: " in x]) == 1


def check(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["phaseprune"])
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, words)])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def never(*args, **kwargs):
    raise AssertionError("the weights were loaded")


@pytest.mark.slow
def test_the_command_reads_no_weights_unless_asked(
    big, tiny_dirs, question_file, monkeypatch, capsys
):
    from phaseprune.decoder import load

    monkeypatch.setenv("COLUMNS", "200")
    with monkeypatch.context() as patched:
        patched.setattr(load, "_place", never)
        code, out, _ = check(patched, capsys, big, "--dtype", "bfloat16")
        assert code == 0 and "✗" not in out
        for line in (
            "family: llama, 8,030.3M parameters",
            "blocks: 32 at model.layers, final norm at",
            "head: its own weights",
            "size: 16.1 GB, bfloat16, 436.2 MB a block",
            "weights: all there, by the names and shapes",
            "export: as a plain checkpoint",
            "memory: about 16.1 GB for the weights in bfloat16 on ",
        ):
            assert f"✓ {line}" in out
        assert f"next: phaseprune check {big} --task TASK" in out
        words = (tiny_dirs["llama"], "--task", question_file)
        code, out, _ = check(patched, capsys, *words, "--json")
        told = json.loads(out)
        assert code == 0 and told["ok"] and "trace_seconds" not in told
        assert {c["check"] for c in told["checks"]} >= {"task", "labels", "tokens", "weights"}
        code, out, _ = check(patched, capsys, *words, "--scoring", "text")
        assert "if the model runs packed rows, else" in out
        assert f"next: phaseprune trace {tiny_dirs['llama']} --task {question_file}" in out
    code, out, _ = check(monkeypatch, capsys, tiny_dirs["llama"], "--full", "--json")
    full = json.loads(out)
    assert code == 0 and full["readout_difference"] < 1e-4 and "questions" not in full
    assert full["memory_bytes"] > full["disk_bytes"] and full["tied"]
    # Without a model's weights nothing is said of time; packed rows are counted exactly.
    whole = json.loads(check(monkeypatch, capsys, *words, "--full", "--json")[1])
    assert whole["tokens"] == told["tokens"]
    assert whole["trace_seconds"] > 0


def test_what_would_be_refused_is_told_beside_what_is_fine(
    tiny_dirs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "300")
    directory = quantised(copy_of(tiny_dirs["llama"], tmp_path), {"quant_method": "nonesuch"})
    code, out, err = check(monkeypatch, capsys, directory)
    assert code == 2 and "✗ quantisation: nonesuch, which cannot be loaded here" in out
    assert "✗ export" in out and "✓ blocks: 5" in out and "would be refused: nonesuch" in err
    for words in (["--device", "nonesuch"], ["--dtype", "float23"]):
        code, _, err = check(monkeypatch, capsys, tiny_dirs["llama"], *words)
        assert code == 2 and words[0] in err


@pytest.mark.slow
def test_which_removals_could_be_exported_is_told(tmp_path, monkeypatch, capsys):
    """The first block of this family is built otherwise than the others."""
    monkeypatch.setenv("COLUMNS", "300")
    from tiny_configs import tiny_config

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("modernbert-decoder")).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    found = seen(tmp_path)
    assert found.export_problem is None
    assert found.export_limits.startswith("of single blocks 1, 2, 3, 4, 5 can be removed")
    code, out, _ = check(monkeypatch, capsys, tmp_path)
    assert code == 0 and "with fewer blocks; of single blocks 1, 2, 3, 4, 5 can be removed" in out
    told = json.loads(check(monkeypatch, capsys, tmp_path, "--json")[1])
    assert told["exportable"] and told["export_limits"] == found.export_limits


def test_a_model_of_one_block_cannot_be_exported(tmp_path):
    config = LlamaConfig(**ROPE | {"num_hidden_layers": 1})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert "its only block cannot be removed" in seen(tmp_path).export_problem


def hub(directory, revision=None):
    return Source("some/model", directory, on_hub=True, revision=revision)


def test_of_a_hub_model_only_small_files_are_wanted(tiny_dirs, tmp_path, monkeypatch):
    import huggingface_hub

    wanted = []

    def download(name, revision, allow_patterns):
        wanted.extend(allow_patterns)
        return tiny_dirs["llama"]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = find_source("some/model", "main", weights=False)
    assert source.on_hub and source.revision == "main"
    assert "*.safetensors" not in wanted and "*.safetensors.index.json" in wanted


@pytest.mark.slow
def test_a_hub_model_is_told_from_its_headers_else_its_index(big, tmp_path, monkeypatch):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError
    from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

    for name in ("config.json", "model.safetensors.index.json"):
        shutil.copy(big / name, tmp_path)
    local = read_checkpoint(Source("big", big))

    def headers(api, name, *, revision):
        assert (name, revision) == ("some/model", "v1")
        tensors = {
            n: TensorInfo(dtype=t.dtype, shape=list(t.shape), data_offsets=(0, t.nbytes))
            for n, t in local.tensors.items()
        }
        file = SafetensorsFileMetadata(metadata={}, tensors=tensors)
        return SafetensorsRepoMetadata(None, True, {}, {"model.safetensors": file})

    def failing(error):
        def call(*args, **kwargs):
            raise error

        return call

    source, config = hub(tmp_path, "v1"), read_config(Source("big", big))
    monkeypatch.setattr(HfApi, "get_safetensors_metadata", headers)
    found = preflight(source, config)
    assert found.names.checked == "names and shapes" and found.names.problem is None
    assert found.disk_bytes == 16_060_522_496
    # The hub cannot be reached: the index tells names.
    monkeypatch.setattr(HfApi, "get_safetensors_metadata", failing(OSError("no network")))
    found = preflight(source, config)
    assert found.names.checked == "names" and found.names.problem is None
    assert found.disk_bytes == 16_060_522_496 and set(found.block_bytes) == {2 * 218_112_000}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"].pop("model.norm.weight")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "the first model.norm.weight" in preflight(source, config).names.problem
    # A single file has no index.
    (tmp_path / "model.safetensors.index.json").unlink()
    assert preflight(source, config).names.checked == "nothing"
    monkeypatch.setattr(
        HfApi, "get_safetensors_metadata", failing(NotASafetensorsRepoError("only pickles"))
    )
    with pytest.raises(UserError, match="the hub has no safetensors of this model; pickles"):
        preflight(source, config)


def write_gguf(path, blocks=2, cut=0):
    """A tiny file by the gguf package's own writer; its names are llama's."""
    import numpy as np

    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(3)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_token_list(["a", "b", "ä"])
    writer.add_array("test.numbers", [1, 2, 3])
    writer.add_tensor("token_embd.weight", np.ones((3, 32), np.float32))
    for block in range(blocks):
        values = gguf.quants.quantize(np.ones((32, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
        name = f"blk.{block}.attn_q.weight"
        writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


def test_the_header_of_a_gguf_file(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = write_gguf(tmp_path / "m.gguf")
    read = read_checkpoint(Source("m", tmp_path, path.name))
    assert read.file_type == "Q8_0" and read.disk_bytes == path.stat().st_size
    assert {
        tensor.name: (tuple(reversed([int(n) for n in tensor.shape])), int(tensor.n_bytes))
        for tensor in gguf.GGUFReader(path).tensors
    } == {name: (tensor.shape, tensor.nbytes) for name, tensor in read.tensors.items()}
    found = seen(path)
    assert found.quantisation.method == "GGUF Q8_0" and found.quantisation.dequantised
    assert found.names.checked == "blocks" and found.names.problem is None
    assert found.block_bytes == (34 * 32, 34 * 32) and found.export_problem is None
    assert found.weight_bytes(torch.float32) == 4 * found.parameters
    write_gguf(path, blocks=1)
    assert seen(path).names.problem == "the file has no tensor of block 1"


def test_damaged_gguf_files(tmp_path):
    def read():
        return read_checkpoint(Source("m", tmp_path, "m.gguf"))

    path = write_gguf(tmp_path / "m.gguf", cut=200)
    with pytest.raises(UserError, match="m.gguf is cut short: it has"):
        read()
    for content in (b"", b"GGUF", b"what is this, and is it long enough?", path.read_bytes()[:150]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="m.gguf cannot be read as GGUF .*; fetch it again"):
            read()


def test_a_header_of_a_negative_or_huge_length(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (b"", b"12", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 50) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no safetensors file"):
            checkpoint_module.read_safetensors_header(path)
