"""GGUF files that llama.cpp's own converter makes: experts, convolutions, linear attention.

Each is read here, and must give llama.cpp's log-probabilities or be refused by its name.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t

pytest.importorskip("gguf")
sys.path += [str(Path(__file__).parents[1] / "benchmarks"), str(Path(__file__).parent / "interop")]

from as_gguf import LENGTHS  # noqa: E402
from old_models import tokens  # noqa: E402

from conftest import ROPE, make_tokenizer, need  # noqa: E402
from gguf_files import tiny_model  # noqa: E402
from interop import CONVERTER, PYTHON, in_interop  # noqa: E402
from phaseprune.decoder.export import export  # noqa: E402
from phaseprune.decoder.load import load_model  # noqa: E402
from phaseprune.errors import UserError  # noqa: E402

pytestmark = pytest.mark.llama_cpp

SIZES = ROPE | {"num_hidden_layers": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED = EXPERTS | {"num_experts": 4}
SHARED = {"shared_expert_intermediate_size": 24}
CONVOLVED = {"conv_L_cache": 3, "layer_types": ["conv", "full_attention"] * 2}
LINEAR = {
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
ROPES = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
}
GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 24,
    "num_kv_shared_layers": 0,
    "vocab_size_per_layer_input": 320,
    "hidden_size_per_layer_input": 0,
}

#: Files that are read -> (configuration, what else the source's config.json says).
READ = {
    "qwen3moe": (lambda: t.Qwen3MoeConfig(**SIZES, **ROUTED, head_dim=16, norm_topk_prob=True), {}),
    "qwen35": (lambda: t.Qwen3_5TextConfig(**SIZES, **LINEAR, **ROPES), {}),
    "qwen35moe": (
        lambda: t.Qwen3_5MoeTextConfig(**SIZES, **ROUTED, **SHARED, **LINEAR, **ROPES),
        {},
    ),
    "minimax-m2": (
        lambda: t.MiniMaxM2Config(
            **SIZES, head_dim=16, rotary_dim=8, num_local_experts=4, num_experts_per_tok=2
        ),
        {"scoring_func": "sigmoid"},
    ),
    "lfm2": (lambda: t.Lfm2Config(**SIZES, **CONVOLVED, block_auto_adjust_ff_dim=False), {}),
}
#: Files that are refused -> (configuration, what is named).
REFUSED = {
    "qwen2moe": (
        lambda: t.Qwen2MoeConfig(**SIZES, **ROUTED, **SHARED),
        "mlp.shared_expert_gate.weight",
    ),
    "mixtral": (
        lambda: t.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        "llama.expert_count",
    ),
    "gpt-oss": (
        lambda: t.GptOssConfig(**SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
        "no configuration of this gpt-oss file",
    ),
    "lfm2moe": (
        lambda: t.Lfm2MoeConfig(**SIZES, **CONVOLVED, **ROUTED, num_dense_layers=1),
        "architecture lfm2moe",
    ),
    "gemma4": (lambda: t.Gemma4TextConfig(**SIZES, **GEMMA4), "gemma4.attention.key_length"),
    "gemma4 with experts": (
        lambda: t.Gemma4TextConfig(
            **SIZES,
            **GEMMA4,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=16,
        ),
        "gemma4.expert_used_count",
    ),
}
#: Sources that are exported without their first block, which breaks the pattern of the others.
EXPORTED = {
    "qwen3next": lambda: t.Qwen3NextConfig(
        **SIZES, **ROUTED, **SHARED, **LINEAR, partial_rotary_factor=0.5, norm_topk_prob=True
    ),
    "qwen35": READ["qwen35"][0],
    "qwen35moe": READ["qwen35moe"][0],
}


def save(folder: Path, config, stated: dict) -> Path:
    """A checkpoint that transformers 4.57, which the converter works with, reads too."""
    tiny_model(config, scale=4.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    for name, more in (
        ("config.json", stated),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return folder


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Folders by name, and llama.cpp's log-probabilities by folder; the converted files beside."""
    need(PYTHON)
    need(CONVERTER / "convert_hf_to_gguf.py")
    root = tmp_path_factory.mktemp("converted")
    folders = {name: save(root / name, make(), more) for name, (make, more) in READ.items()}
    folders |= {name: save(root / name, make(), {}) for name, (make, _) in REFUSED.items()}
    for name, make in EXPORTED.items():
        source = folders.get(name) or save(root / name, make(), {"mtp_num_hidden_layers": 1})
        made = export(load_model(str(source)), [0], root / f"{name} exported")
        assert made.warnings is None
        folders[f"{name} exported"] = Path(made.path)
    in_interop("as_gguf.py", CONVERTER, *folders.values(), "--out", root / "said.npz")
    with np.load(root / "said.npz") as found:
        return folders, dict(found)


@torch.no_grad()
def difference(model, said: np.ndarray) -> float:
    """The largest difference of log-probabilities after prompts of some lengths."""
    ids = torch.as_tensor(tokens()[:1])
    ours = [model(ids[:, :n]).logits[0, -1].float().log_softmax(-1).numpy() for n in LENGTHS]
    return float(np.abs(said - np.array(ours)).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_converted_file_is_what_llama_cpp_makes_of_it(said, name):
    folders, answers = said
    decoder = load_model(str(folders[name] / "model.gguf"))
    assert difference(decoder.model, answers[f"{folders[name]}|llama.cpp"]) < 1e-4


@pytest.mark.parametrize("name", REFUSED)
def test_a_converted_file_that_is_not_read_is_refused_by_its_name(said, name):
    with pytest.raises(UserError, match=REFUSED[name][1].replace(".", r"\.")):
        load_model(str(said[0][name] / "model.gguf"))


@pytest.mark.parametrize("name", EXPORTED)
def test_an_export_of_linear_attention_needs_no_pattern(said, name):
    """llama.cpp reads the list of such blocks."""
    folders, answers = said
    folder = folders[f"{name} exported"]
    plain = t.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert difference(plain, answers[f"{folder}|llama.cpp"]) < 1e-4


@pytest.mark.slow
def test_a_model_of_experts_is_exported_from_its_file(said, tmp_path):
    decoder = load_model(str(said[0]["qwen3moe"] / "model.gguf"))
    made = export(decoder, [1], tmp_path / "out")
    assert made.max_abs_logit_difference < 1e-4 and made.kept == [0, 2, 3]
