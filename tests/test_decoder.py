"""Loading and what is refused: nothing random, nothing NaN, nothing that is not a decoder."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, T5Config

from conftest import CONFIGS, make_tokenizer, save_tiny
from phaseprune.decoder.blocks import record_calls, run_block, skipped_blocks
from phaseprune.decoder.discover import find_blocks
from phaseprune.decoder.load import load_model
from phaseprune.decoder.readout import read_logits
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError

PATHS = {
    "llama": ("model.layers", "model.norm"),
    "qwen3": ("model.layers", "model.norm"),
    "gemma2": ("model.layers", "model.norm"),
    "gpt2": ("transformer.h", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "falcon": ("transformer.h", "transformer.ln_f"),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_discovery_and_readout(tiny, family):
    decoder = tiny[family]
    assert (decoder.blocks_path, decoder.norm_path) == PATHS[family]
    assert len(decoder.blocks) == 5
    assert decoder.readout_difference <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_the_readout_does_all_that_the_model_does_there(tiny, family):
    """Norm, head, soft cap and bias, on the true last hidden state, whole and by rows."""
    decoder = tiny[family]
    tokens = torch.randint(320, (3, 9), generator=torch.Generator().manual_seed(1))
    calls = record_calls(decoder, tokens)
    hidden = calls.embedded
    for block in range(5):
        hidden = run_block(decoder, block, hidden, calls)
    expected = decoder.model(tokens, use_cache=False).logits
    torch.testing.assert_close(read_logits(decoder, hidden[:, -1]), expected[:, -1])
    rows = torch.tensor([5, 300, 7])
    torch.testing.assert_close(read_logits(decoder, hidden[:, 4], rows), expected[:, 4, rows])


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_skipping_undoes_itself(tiny, family):
    decoder = tiny[family]
    tokens = torch.arange(10)[None]
    before = decoder.model(tokens, use_cache=False).logits
    with skipped_blocks(decoder, {1, 3}):
        assert not torch.equal(decoder.model(tokens, use_cache=False).logits, before)
    assert torch.equal(decoder.model(tokens, use_cache=False).logits, before)
    with pytest.raises(RuntimeError, match="inside"), skipped_blocks(decoder, {1, 3}):
        raise RuntimeError("inside")
    assert torch.equal(decoder.model(tokens, use_cache=False).logits, before)


def copy_of(tiny_dirs, tmp_path, family="llama"):
    import shutil

    return shutil.copytree(tiny_dirs[family], tmp_path / "model")


def test_missing_weights_are_refused_never_random(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs, tmp_path)
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.3.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 .*model\.layers\.3\.mlp\.up_proj\.weight"):
        load_model(str(directory))


def test_a_config_with_more_blocks_than_weights_is_refused(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs, tmp_path)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))
    with pytest.raises(UserError, match=r"lacks .*model\.layers\.5"):
        load_model(str(directory))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_weights_name_the_block(tiny_dirs, tmp_path, value):
    directory = copy_of(tiny_dirs, tmp_path)
    weights = load_file(directory / "model.safetensors")
    weights["model.layers.2.self_attn.q_proj.weight"][0, 0] = value
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="block 2 has NaN or infinite weights.*q_proj"):
        load_model(str(directory))


def test_nan_on_the_way_names_the_block_and_the_question(tiny_dirs, question_file):
    from phaseprune.questions.catalog import load_task
    from phaseprune.sweep.trace import trace

    decoder = load_model(str(tiny_dirs["llama"]))
    decoder.blocks[3].mlp.forward = lambda hidden: hidden * float("nan")
    with pytest.raises(UserError, match="block 3 gives NaN.*question number"):
        trace(decoder, load_task(str(question_file)))


def bert(tmp_path, cls):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
    )
    cls(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


def test_encoders_are_refused(tmp_path):
    with pytest.raises(UserError, match="BertForMaskedLM is not a causal"):
        load_model(bert(tmp_path / "masked", BertForMaskedLM))
    # Loads as a causal language model, yet attends to later tokens: only a check can tell.
    with pytest.raises(UserError, match="later token .* an encoder"):
        load_model(bert(tmp_path / "head", BertLMHeadModel))


def test_encoder_decoders_are_refused_before_weights_are_read(tmp_path):
    T5Config(
        vocab_size=320,
        d_model=32,
        num_layers=2,
        num_heads=4,
        d_ff=48,
        architectures=["T5ForConditionalGeneration"],
    ).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(UserError, match="T5ForConditionalGeneration is not a causal"):
        load_model(str(tmp_path))


def test_pickles_are_refused(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs, tmp_path)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="pytorch_model.bin is a pickle.*safetensors"):
        load_model(str(directory))


def test_damaged_files_are_one_sentence(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs, tmp_path)
    (directory / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(directory))
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(directory))
    (directory / "broken.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(UserError, match="broken.gguf cannot be read as GGUF .*; fetch it again"):
        load_model(str(directory / "broken.gguf"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmo", "Did you mean 'demo'"),
        ("./nowhere/model", "no such directory of a model"),
        ("/tmp/none.gguf", "no such .gguf file"),
        ("a b c", "no such directory"),
    ],
)
def test_unknown_models(name, message, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UserError, match=message):
        load_model(name)


def test_near_directories_are_named(tiny_dirs):
    with pytest.raises(UserError, match="'gemma2'"):
        load_model(str(tiny_dirs["llama"].parent / "gema2"))


def test_hub_models_are_read_from_their_snapshot(tiny_dirs, monkeypatch):
    """The real hub code, with the download itself standing in: what is asked for, what is read."""
    import huggingface_hub

    asked = {}

    def snapshot(name, revision=None, allow_patterns=None):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tiny_dirs["llama"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    decoder = load_model("someone/some-model", revision="abc")
    assert decoder.name == "someone/some-model" and len(decoder.blocks) == 5
    assert asked["name"] == "someone/some-model" and asked["revision"] == "abc"
    assert not any(pattern.endswith(".bin") for pattern in asked["patterns"])


def test_fingerprint_is_of_the_content(tiny_dirs, tmp_path):
    directory = copy_of(tiny_dirs, tmp_path)
    same = find_source(str(directory)).fingerprint
    assert same == find_source(str(tiny_dirs["llama"])).fingerprint
    save_tiny(tmp_path / "other", seed=1)
    assert same != find_source(str(tmp_path / "other")).fingerprint


def test_wrong_dtype_and_device_are_one_sentence(tiny_dirs):
    with pytest.raises(UserError, match="dtype is 'float23'.*'float32'"):
        load_model(str(tiny_dirs["llama"]), dtype="float23")
    with pytest.raises(UserError, match="device='cuda:9' cannot be used"):
        load_model(str(tiny_dirs["llama"]), device="cuda:9")


def test_gguf_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    from phaseprune.decoder import load

    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'phaseprune\[gguf\]'"):
        load_model(str(tmp_path / "m.gguf"))


def test_no_blocks_found_names_what_was_found():
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(2, 2)] * 3)
    with pytest.raises(UserError, match=r"no list of 5 blocks .*layers \(3 x Linear\)"):
        find_blocks(model, 5)


@pytest.mark.slow
def test_half_precision_traces_alike(tiny_dirs, question_file):
    import numpy as np

    from phaseprune.questions.catalog import load_task
    from phaseprune.sweep.trace import trace

    task = load_task(str(question_file))
    exact = trace(load_model(str(tiny_dirs["llama"])), task)
    half = trace(load_model(str(tiny_dirs["llama"]), dtype="bfloat16"), task)
    np.testing.assert_allclose(
        half.decisions.probabilities, exact.decisions.probabilities, atol=0.15
    )
