"""Checkpoints as people have them: adapters, copies of weights, odd indices, odd tokenizers."""

from __future__ import annotations

import json
import shutil
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    XLNetConfig,
)

from conftest import QUESTIONS, ROPE, make_tokenizer, save_tiny, write_jsonl
from phaseprune.decoder import own_pipeline
from phaseprune.decoder.checkpoint import read_checkpoint
from phaseprune.decoder.decoder import context_limit
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.source import Source, find_source
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import trace
from test_preflight import check, copy_of, seen

INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tiny_dirs, tmp_path):
    """A copy of a tiny llama that may be damaged."""
    return copy_of(tiny_dirs["llama"], tmp_path)


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shard(directory, **extra):
    """The weights in two shards, with an index of the given further entries."""
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names, weight_map = sorted(weights), {}
    for number in range(2):
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        held = names[number::2]
        save_file({name: weights[name] for name in held}, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map} | extra))


def logits(decoder):
    with torch.no_grad():
        return decoder.model(torch.arange(20)[None]).logits


def refused(monkeypatch, capsys, directory):
    """What ``check`` says where it refuses, in one sentence; loading says the same."""
    code, _, err = check(monkeypatch, capsys, directory)
    assert code == 2 and "Traceback" not in err, err
    with pytest.raises(UserError) as error:
        load_model(str(directory))
    return str(error.value)


# -- adapters ----------------------------------------------------------------------------------


def test_an_adapter_beside_the_configuration_is_refused(model, monkeypatch, capsys):
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/one"}))
    said = refused(monkeypatch, capsys, model)
    assert "adapter_config.json lies beside config.json" in said and "merge_and_unload" in said
    (model / "adapter_config.json").unlink()
    load_model(str(model))


def test_an_adapter_alone_is_named_as_such(model, monkeypatch, capsys):
    for name in ("config.json", "model.safetensors"):
        (model / name).unlink()
    for base in ("some/one", None):
        (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        said = refused(monkeypatch, capsys, model)
        assert "is a peft adapter of" in said and ("some/one" in said) == bool(base)


# -- files of weights --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["consolidated.safetensors", "adapter_model.safetensors", "model-00001-of-00001.safetensors"],
)
def test_only_the_models_own_files_are_counted_and_read(tiny_dirs, model, name):
    shutil.copy(model / "model.safetensors", model / name)
    (model / name).write_bytes(b"\0" * 64 + (model / name).read_bytes())
    whole, plain = find_source(str(model)), find_source(str(tiny_dirs["llama"]))
    assert whole.weight_files == [model / "model.safetensors"]
    assert whole.fingerprint == plain.fingerprint
    assert seen(model).disk_bytes == seen(tiny_dirs["llama"]).disk_bytes
    assert torch.equal(logits(load_model(str(model))), logits(load_model(str(tiny_dirs["llama"]))))


def test_beside_shards_too(model):
    shutil.copy(model / "model.safetensors", model / "consolidated.safetensors")
    shard(model, metadata={})
    assert [path.name for path in find_source(str(model)).weight_files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_of_the_hub_only_the_models_own_files_are_fetched(model, monkeypatch):
    import huggingface_hub

    shard(model, metadata={})
    asked = []

    def download(name, revision, allow_patterns):
        asked.append(list(allow_patterns))
        return model

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find_source("some/model")
    weights = [p for p in asked[-1] if p.endswith(".safetensors")]
    assert weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert not any(p.endswith(".safetensors") for p in asked[0])


@pytest.mark.parametrize("extra", [{}, {"metadata": None}, {"metadata": "none"}])
@pytest.mark.parametrize("stream", [False, True])
def test_an_index_without_metadata_loads(tiny_dirs, model, extra, stream):
    shard(model, **extra)
    loaded = load_model(str(model), stream=stream)
    assert torch.equal(logits(loaded), logits(load_model(str(tiny_dirs["llama"]))))
    assert seen(model).names.problem is None


@pytest.mark.parametrize(
    "file",
    ["x" * 5000, "../other.safetensors", "/etc/passwd", "a\0b", 5, None, ["a"], ""],
    ids=["long", "up", "absolute", "null", "number", "none", "list", "empty"],
)
def test_a_shards_name_that_is_no_file_is_refused(model, monkeypatch, capsys, file):
    shard(model, metadata={})
    index = json.loads((model / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = file
    (model / INDEX).write_text(json.dumps(index))
    said = refused(monkeypatch, capsys, model)
    assert f"{INDEX} is damaged: it names" in said and len(said) < 400


BRACKETS = "[" * 100_000


def test_files_of_brackets_are_refused_by_name(model, monkeypatch, capsys):
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(
        struct.pack("<Q", len(BRACKETS)) + BRACKETS.encode() + whole
    )
    assert "model.safetensors has a damaged header" in refused(monkeypatch, capsys, model)
    (model / "model.safetensors").unlink()
    (model / INDEX).write_text(BRACKETS)
    (model / "a.safetensors").write_bytes(whole)
    assert f"{INDEX} is damaged" in refused(monkeypatch, capsys, model)
    (model / "config.json").write_text('{"a":' * 50_000)
    assert "config.json is damaged" in refused(monkeypatch, capsys, model)


# -- config.json -------------------------------------------------------------------------------

ODD = {
    "architectures": [True, [5], [["x"]], "LlamaForCausalLM", {"a": 1}],
    "model_type": [5, ["llama"], True],
    "num_hidden_layers": [True, "5", 5.5, 0, -3, [5]],
    "tie_word_embeddings": ["yes", 1, []],
    "text_config": [5, "x"],
    "quantization_config": [5, ["gptq"]],
}


@pytest.mark.slow
@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in ODD.items() for v in vs])
def test_a_field_of_another_kind_is_refused_by_its_name(model, monkeypatch, capsys, field, value):
    change_json(model / "config.json", **{field: value})
    assert f"config.json has {field} " in refused(monkeypatch, capsys, model)


@pytest.mark.parametrize("blocks", [10**9, 2**40, 10**4])
def test_more_blocks_than_the_file_has_are_refused_in_a_second(model, monkeypatch, capsys, blocks):
    change_json(model / "config.json", num_hidden_layers=blocks)
    began = time.process_time()
    said = refused(monkeypatch, capsys, model)
    assert time.process_time() - began < 4
    assert f"{blocks:,} blocks (num_hidden_layers)" in said and "files hold 5" in said


# -- tied heads --------------------------------------------------------------------------------


def own_head(model, of=lambda embeddings: torch.randn_like(embeddings)):
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = of(weights["model.embed_tokens.weight"]).contiguous()
    save_file(weights, model / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_head_of_its_own_is_told_and_exported_whatever_is_stated(
    model, tmp_path, monkeypatch, capsys, stream
):
    monkeypatch.setenv("COLUMNS", "200")
    assert json.loads((model / "config.json").read_text())["tie_word_embeddings"] is True
    parameters = seen(model).parameters
    own_head(model)
    found = seen(model)
    assert not found.tied and found.tied_stated and found.parameters == parameters + 320 * 32
    code, out, _ = check(monkeypatch, capsys, model)
    assert code == 0 and "head: its own weights, though config.json says tied" in out
    loaded = load_model(str(model), stream=stream)
    assert loaded.config.tie_word_embeddings is False
    made = export(loaded, [1], tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(made.path)
    assert plain.config.tie_word_embeddings is False
    stored = load_file(model / "model.safetensors")["lm_head.weight"]
    assert torch.equal(plain.lm_head.weight, stored)


def test_the_same_head_a_second_time_is_tied(model):
    own_head(model, lambda embeddings: embeddings.clone())
    found = seen(model)
    assert found.tied and found.tied_stated
    assert load_model(str(model)).config.tie_word_embeddings is True


# -- tokenizers and embeddings -----------------------------------------------------------------


def cut_embeddings(directory, rows):
    weights = load_file(directory / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:rows].clone()
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    change_json(directory / "config.json", vocab_size=rows)


def grow_tokenizer(directory, *tokens, special=False):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    # filled up to the 320 rows of the embeddings first
    tokenizer.add_tokens([f"<fill{i}>" for i in range(320 - len(tokenizer))])
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.save_pretrained(directory)


def test_ids_beyond_the_embeddings_are_refused(model, monkeypatch, capsys):
    cut_embeddings(model, 300)
    largest = max(make_tokenizer().get_vocab().values())
    said = refused(monkeypatch, capsys, model)
    assert f"the tokenizer makes ids up to {largest}" in said and "have 300 rows" in said


def test_added_tokens_beyond_the_embeddings_are_refused(model, monkeypatch, capsys):
    grow_tokenizer(model)
    load_model(str(model))
    grow_tokenizer(model, "frobnicate", "more")
    assert "makes ids up to 321 ('more')" in refused(monkeypatch, capsys, model)


def test_a_special_token_beyond_them_is_refused_where_a_question_has_it(
    model, tmp_path, monkeypatch, capsys
):
    """As Gemma 3's text models have one for pictures."""
    grow_tokenizer(model, "<picture>", special=True)
    decoder = load_model(str(model))
    plain = write_jsonl(tmp_path / "plain.jsonl", QUESTIONS)
    prepare(decoder, load_task(str(plain)))
    rows = [QUESTIONS[0] | {"question": "What is on <picture>"}, *QUESTIONS[1:]]
    odd = write_jsonl(tmp_path / "odd.jsonl", rows)
    with pytest.raises(UserError, match="has the token 320, and the model's embeddings have 320"):
        prepare(decoder, load_task(str(odd)))
    code, _, err = check(monkeypatch, capsys, model, "--task", odd)
    assert code == 2 and "has the token 320" in err


# -- values that are too large -----------------------------------------------------------------


def set_weight(directory, name, value, dtype=None):
    weights = load_file(directory / "model.safetensors")
    weights[name].view(-1)[7] = value
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("part", ["mlp.down_proj", "self_attn.q_proj", "input_layernorm"])
def test_a_huge_weight_is_named_with_its_block_and_dtype(model, part, stream):
    set_weight(model, f"model.layers.3.{part}.weight", 3e38)
    with pytest.raises(UserError, match=r"block 3 has a weight of 3e\+38 .* float32"):
        load_model(str(model), stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_values_beyond_float16_are_named_with_their_block_and_dtype(model, stream):
    weights = load_file(model / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"] *= 3e3
    weights["model.layers.2.mlp.gate_proj.weight"] *= 3e3
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    load_model(str(model), stream=stream)
    with pytest.raises(UserError, match=r"block 2 of .* in float16, .*dtype='bfloat16' or float32"):
        load_model(str(model), dtype="float16", stream=stream)


def test_a_weight_beyond_float16_is_no_damage(model):
    set_weight(model, "model.layers.1.mlp.up_proj.weight", 1e5)
    with pytest.raises(UserError, match="block 1 has NaN or infinite .* float16; .*dtype='bfl"):
        load_model(str(model), dtype="float16")


# -- context limits ----------------------------------------------------------------------------

LIMITS = {
    "llama": LlamaConfig(max_position_embeddings=77),
    "gpt2": GPT2Config(n_positions=66),
    "mamba": MambaConfig(),
    "bloom": BloomConfig(),
    "xlnet": XLNetConfig(),
    "mpt": MptConfig(),
}


@pytest.mark.parametrize("told", [None, 50, 5000])
@pytest.mark.parametrize("family", [f for f in LIMITS if f not in ("mpt", "xlnet")])
def test_context_limits_are_lm_evals(family, told):
    lm_eval = pytest.importorskip("lm_eval.models.utils")
    tokenizer = make_tokenizer()
    if told is not None:
        tokenizer.model_max_length = told
    theirs = lm_eval.resolve_max_length(LIMITS[family], tokenizer)
    assert context_limit(LIMITS[family], tokenizer) == theirs


def test_a_familys_own_field_lowers_what_lm_eval_finds():
    tokenizer = make_tokenizer()
    assert context_limit(MptConfig(max_seq_len=96), tokenizer) == 96
    assert context_limit(MptConfig(max_seq_len=4096), tokenizer) == 2048  # lm-eval's own
    tokenizer.model_max_length = 40
    assert context_limit(MptConfig(max_seq_len=96), tokenizer) == 40
    bloom = BloomConfig()
    bloom.seq_length = 30
    assert context_limit(bloom, tokenizer) == 30
    assert context_limit(XLNetConfig(), tokenizer) == 40  # -1 states no limit


@pytest.mark.parametrize(
    "config",
    [
        MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=320, max_seq_len=24),
        MambaConfig(hidden_size=32, num_hidden_layers=3, vocab_size=320, state_size=8),
        BloomConfig(hidden_size=32, n_layer=3, n_head=4, vocab_size=320),
    ],
    ids=lambda config: config.model_type,
)
def test_long_inputs_are_cut_and_counted(tmp_path, question_file, config):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 24
    tokenizer.save_pretrained(tmp_path / "m")
    decoder = load_model(str(tmp_path / "m"))
    assert decoder.max_length == seen_with_tokenizer(tmp_path / "m").max_length == 24
    task = load_task(str(question_file), scoring="letter")
    prepared = prepare(decoder, task)
    assert prepared.truncated == prepared.input_counts["truncated_questions"] > 0
    assert len(trace(decoder, task).readouts) == 4


def seen_with_tokenizer(directory):
    from phaseprune.decoder.load import load_tokenizer, read_config
    from phaseprune.decoder.preflight import preflight

    source = find_source(str(directory), weights=False)
    return preflight(source, read_config(source), tokenizer=load_tokenizer(source))


def test_a_table_of_positions_is_no_longer_than_it_is(tmp_path):
    """The configuration of another checkpoint states more than the table has."""
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=3, n_head=4, n_positions=40)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    decoder = load_model(str(tmp_path))
    assert decoder.position_limit == decoder.max_length == 40
    assert load_model(str(save_tiny(tmp_path / "llama"))).position_limit is None


# -- the checkpoint's own pipeline -------------------------------------------------------------


def test_real_prompts_give_what_plain_transformers_gives(tiny, monkeypatch, capsys, tiny_dirs):
    for family, decoder in tiny.items():
        found = decoder.pipeline
        assert found.remarks == () and found.prompts == 3, family
        assert found.difference < 1e-4 and found.max_length == decoder.max_length, family
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = check(monkeypatch, capsys, tiny_dirs["llama"], "--full")
    assert code == 0 and "✓ pipeline: 3 real prompts give plain transformers' tokens" in out


def test_where_tokens_differ_it_is_named(tiny_dirs, monkeypatch):
    """Context and continuation put otherwise than the whole text."""
    monkeypatch.setattr(
        own_pipeline,
        "encode_pair",
        lambda tokenizer, context, answer: (
            tokenizer(context)["input_ids"],
            tokenizer(answer.strip())["input_ids"],
        ),
    )
    remarks = load_model(str(tiny_dirs["llama"])).pipeline.remarks
    assert len(remarks) == 3 and "context and continuation put as lm-eval does have" in remarks[0]


def test_what_else_the_tokenizer_gives_the_model_is_named(tiny_dirs, monkeypatch, tmp_path):
    directory = copy_of(tiny_dirs["llama"], tmp_path)
    decoder = load_model(str(directory))

    class Masked:
        """A tokenizer that hides the first token."""

        def __init__(self, real):
            self.real = real

        def __getattr__(self, name):
            return getattr(self.real, name)

        def __call__(self, *args, **more):
            found = self.real(*args, **more)
            if more.get("return_tensors"):
                found["attention_mask"][:, :1] = 0
            return found

    decoder.tokenizer = Masked(decoder.tokenizer)
    with pytest.raises(UserError, match="real prompt .* the tokenizer gives attention_mask"):
        own_pipeline.compare_pipelines(decoder)


def test_the_model_is_loaded_once(tiny_dirs, monkeypatch):
    calls = []
    real = AutoModelForCausalLM.from_pretrained.__func__

    def counted(cls, *args, **more):
        calls.append(args)
        return real(cls, *args, **more)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", classmethod(counted))
    load_model(str(tiny_dirs["qwen3"]))
    assert len(calls) == 1


def test_streamed_models_are_looked_at_on_real_prompts_too(tiny_dirs, monkeypatch):
    from phaseprune.decoder import verify

    seen_rows = []
    real = verify.look_on

    def look(decoder, prompts):
        seen_rows.append(prompts)
        return real(decoder, prompts)

    monkeypatch.setattr(verify, "look_on", look)
    decoder = load_model(str(tiny_dirs["llama"]), stream=True)
    assert seen_rows[0].shape == (3, 12) and decoder.pipeline.difference is None


def test_headers_are_read_without_weights(tiny_dirs):
    assert read_checkpoint(Source("m", tiny_dirs["llama"])).longest_list == 5
    assert ROPE["num_hidden_layers"] == 5
