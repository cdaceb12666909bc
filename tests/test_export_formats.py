"""What a checkpoint may look like on disk, and what of it stands in the export."""

import copy
import dataclasses
import json
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    Gemma3ForConditionalGeneration,
    MixtralConfig,
    Qwen3_5ForConditionalGeneration,
)

from conftest import ROPE, make_tokenizer, save_tiny
from phaseprune.decoder.export import check_exportable, export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.tensors import (
    DTYPES,
    LazyTensor,
    pieces,
    stored_tensors,
    write_safetensors,
)
from phaseprune.errors import UserError
from tiny_configs import tiny_config


def save(model, folder):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return load_model(str(folder))


def save_as_any_class(model, folder):
    """Without the class in config.json, so that it does not ask to be loaded as multimodal."""
    type(model).save_pretrained(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": None}))


def tensors(folder):
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
def test_a_vision_towers_layers_are_not_the_blocks(tmp_path):
    config = tiny_config("gemma3")
    torch.manual_seed(0)
    decoder = save(Gemma3ForConditionalGeneration(config), tmp_path / "m")
    before = tensors(tmp_path / "m")
    assert type(decoder.model).__name__ == "Gemma3ForConditionalGeneration"
    towers = [name for name in before if "vision" in name and ".layers." in name]
    assert len(towers) > 6
    (tmp_path / "m/preprocessor_config.json").write_text('{"size": 8}')
    export(decoder, [0, 2], tmp_path / "out")
    after = tensors(tmp_path / "out")
    for name in towers:
        assert torch.equal(before[name], after[name])
    gone = len([name for name in before if "vision" not in name and ".layers.0." in name])
    assert len(before) - len(after) == 2 * gone
    assert AutoConfig.from_pretrained(tmp_path / "out").text_config.num_hidden_layers == 4
    assert json.loads((tmp_path / "out/preprocessor_config.json").read_text()) == {"size": 8}


@pytest.mark.slow
def test_the_text_part_of_a_multimodal_checkpoint_is_exported_alone(tmp_path):
    torch.manual_seed(0)
    model = Qwen3_5ForConditionalGeneration(tiny_config("qwen3_5"))
    model.save_pretrained = lambda folder: save_as_any_class(model, folder)
    decoder = save(model, tmp_path / "m")
    assert type(decoder.model).__name__ == "Qwen3_5ForCausalLM"
    assert any("visual" in name for name in tensors(tmp_path / "m"))
    export(decoder, [1, 4], tmp_path / "out")
    after = tensors(tmp_path / "out")
    assert not any("visual" in name for name in after)
    assert set(after) == {*AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()} - (
        {"lm_head.weight"} if decoder.config.tie_word_embeddings else set()
    )
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.model_type == "qwen3_5_text" and config.architectures == ["Qwen3_5ForCausalLM"]
    assert load_model(str(tmp_path / "out")).family == "qwen3_5_text"


def test_names_without_the_outer_prefix_stay_so(tmp_path):
    folder = save_tiny(tmp_path / "m", "gpt2")
    rewrite(folder, lambda w: {name.removeprefix("transformer."): t for name, t in w.items()})
    before = load_file(folder / "model.safetensors")
    export(load_model(str(folder)), [0], tmp_path / "out")
    after = tensors(tmp_path / "out")
    assert torch.equal(after["h.0.ln_1.weight"], before["h.1.ln_1.weight"])
    assert not any(name.startswith("transformer.") for name in after)


def test_experts_stay_one_by_one_as_they_are_on_disk(tmp_path):
    torch.manual_seed(0)
    config = MixtralConfig(**ROPE, num_local_experts=2, num_experts_per_tok=1)
    decoder = save(AutoModelForCausalLM.from_config(config), tmp_path / "m")
    before = tensors(tmp_path / "m")
    name = "model.layers.{}.block_sparse_moe.experts.1.w1.weight"
    assert name.format(3) in before
    export(decoder, [0, 2], tmp_path / "out")
    after = tensors(tmp_path / "out")
    assert torch.equal(after[name.format(1)], before[name.format(3)])
    assert {n for n in after if ".1." in n} <= set(before)


def test_only_what_transformers_loads_is_exported(tmp_path):
    """Beside the weights there may be the same in another form."""
    folder = save_tiny(tmp_path / "m")
    other = {"layers.0.attention.wq.weight": torch.ones(2), "norm.weight": torch.ones(2)}
    save_file(other, folder / "consolidated.safetensors")
    export(load_model(str(folder)), [1], tmp_path / "out")
    assert not set(other) & set(tensors(tmp_path / "out"))


@pytest.mark.slow
def test_heads_that_predict_further_tokens_are_left_out(tmp_path):
    config = DeepseekV3Config(
        vocab_size=320,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        num_hidden_layers=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=8,
        head_dim=4,
        first_k_dense_replace=2,
        num_nextn_predict_layers=1,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    save(AutoModelForCausalLM.from_config(config), tmp_path / "m")
    further = {"model.layers.4.eh_proj.weight": torch.ones(2), "mtp.head.weight": torch.ones(2)}
    rewrite(tmp_path / "m", lambda weights: weights | further)
    export(load_model(str(tmp_path / "m")), [1, 3], tmp_path / "out")
    after = tensors(tmp_path / "out")
    assert {name.split(".")[2] for name in after if ".layers." in name} == {"0", "1"}
    assert "mtp.head.weight" not in after
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert (written["first_k_dense_replace"], written["num_nextn_predict_layers"]) == (1, 0)


def test_what_belongs_to_the_tokenizer_and_to_generation(tmp_path):
    folder = save_tiny(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    tokenizer.save_pretrained(folder)
    settings = {"temperature": 0.7, "top_k": 20, "eos_token_id": [0, 5], "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    export(load_model(str(folder)), [1], tmp_path / "out")
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again.chat_template == tokenizer.chat_template
    assert (tmp_path / "out/chat_template.jinja").is_file()
    assert again("a <tool> b").input_ids == tokenizer("a <tool> b").input_ids
    assert (again.eos_token, again.pad_token) == ("<eos>", "<eos>")
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert {name: written[name] for name in settings} == settings


def test_a_quantised_checkpoint_is_refused_before_anything_is_written(tiny, tmp_path):
    decoder = dataclasses.replace(tiny["llama"], model=copy.copy(tiny["llama"].model))
    decoder.model.config = copy.deepcopy(decoder.config)
    decoder.model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(UserError, match="a quantised checkpoint cannot be exported"):
        export(decoder, [1], tmp_path / "out")
    with pytest.raises(UserError, match="quantise the export"):
        check_exportable(decoder)
    assert not list(tmp_path.iterdir())


OWN_CONFIG = """
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
OWN_MODEL = """
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_checkpoint_with_code_of_its_own(tmp_path):
    folder = save_tiny(tmp_path / "own")
    (folder / "configuration_own.py").write_text(OWN_CONFIG)
    (folder / "modeling_own.py").write_text(OWN_MODEL)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own_llama",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="trust_remote_code"):
        load_model(str(folder))
    export(load_model(str(folder), trust_remote_code=True), [1], tmp_path / "out")
    again = load_model(str(tmp_path / "out"), trust_remote_code=True)
    in_memory = load_model(again.model, again.tokenizer)
    with pytest.raises(UserError, match="code of its own, whose files a model in memory"):
        export(in_memory, [1], tmp_path / "from memory")
    assert len(again.blocks) == 4 and type(again.model).__name__ == "OwnForCausalLM"


@pytest.mark.slow
def test_a_model_that_could_no_longer_generate_is_refused(tmp_path):
    """transformers' cache of a hybrid model needs one block that attends."""
    config = tiny_config("lfm2")
    config.layer_types = ["conv", "full_attention", "conv", "conv", "full_attention", "conv"]
    config.full_attn_idxs = [1, 4]
    torch.manual_seed(0)
    decoder = save(AutoModelForCausalLM.from_config(config), tmp_path / "m")
    assert export(decoder, [0, 1, 3], tmp_path / "fewer").generated_tokens > 0
    with pytest.raises(UserError, match="cannot generate with the KV cache .*keep a block of each"):
        export(decoder, [1, 4], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fewer", "m"]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_written_file_is_read_by_safetensors(tmp_path, dtype):
    values = {
        "b": (torch.arange(6) % 2).reshape(2, 3).to(dtype),
        "a": torch.ones((), dtype=dtype),
        "c": torch.zeros(0, 4, dtype=dtype),
        "other": torch.arange(3, dtype=torch.int8),
    }
    lazy = {name: LazyTensor(tuple(t.shape), t.dtype, lambda t=t: t) for name, t in values.items()}
    write_safetensors(tmp_path / "x.safetensors", lazy)
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == values.keys()
    for name, tensor in values.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float(), tensor.float())
    again = stored_tensors([tmp_path / "x.safetensors"])
    assert {name: t.shape for name, t in again.items()} == {n: t.shape for n, t in values.items()}


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    alive: list[weakref.ref] = []

    def read():
        assert all(tensor() is None for tensor in alive)
        tensor = torch.ones(4, 4)
        alive.append(weakref.ref(tensor))
        return tensor

    lazy = {f"t{i}": LazyTensor((4, 4), torch.float32, read) for i in range(20)}
    write_safetensors(tmp_path / "x.safetensors", lazy)
    assert len(alive) == 20


def test_the_kept_blocks_pieces():
    whole = torch.arange(24).reshape(2, 12)
    cut = pieces(LazyTensor((2, 12), torch.int64, lambda: whole), 1, 4, [0, 3])
    assert cut.shape == (2, 6)
    assert torch.equal(cut.read(), whole[:, [0, 1, 2, 9, 10, 11]])


def write_llama_gguf(path, kind: str):
    """A tiny random Llama as GGUF, its matrices in Q8_0 or F16."""
    gguf = pytest.importorskip("gguf")
    width, inner, vocabulary, blocks, heads = 32, 64, 320, 4, 4
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(blocks)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    core = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(core["vocab"], key=core["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(vocabulary - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * vocabulary)
    merges = [" ".join(m) if isinstance(m, list) else m for m in core["merges"]]
    writer.add_token_merges(merges)
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    shapes = {"token_embd": (vocabulary, width), "output": (vocabulary, width)}
    for block in range(blocks):
        shapes |= {
            f"blk.{block}.attn_q": (width, width),
            f"blk.{block}.attn_k": (width // 2, width),
            f"blk.{block}.attn_v": (width // 2, width),
            f"blk.{block}.attn_output": (width, width),
            f"blk.{block}.ffn_gate": (inner, width),
            f"blk.{block}.ffn_up": (inner, width),
            f"blk.{block}.ffn_down": (width, inner),
        }
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{norm}.weight", np.ones(width, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for name, shape in shapes.items():
        values = generator.normal(0, 0.15, shape).astype(np.float32)
        as_type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(
            f"{name}.weight", gguf.quants.quantize(values, as_type), raw_dtype=as_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_gguf(tmp_path, kind):
    path = write_llama_gguf(tmp_path / f"tiny.{kind}.gguf", kind)
    decoder = load_model(str(path))
    assert len(decoder.blocks) == 4 and decoder.dtype == torch.float32
    result = export(decoder, [0, 2], tmp_path / "out")
    assert result.max_abs_logit_difference <= 1e-4
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.config.num_hidden_layers == 2
    assert getattr(plain.config, "quantization_config", None) is None
    up = decoder.blocks[3].mlp.up_proj.weight
    assert torch.equal(plain.model.layers[1].mlp.up_proj.weight, up)
    text = "What is the sky"
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text).input_ids == (
        decoder.tokenizer(text).input_ids
    )
