"""GGUF files: every key and tensor is read, applied, or refused by its name."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")

import gguf_files
from gguf_files import CONTEXT, byte_level, families, make, scaled, sentencepiece, write_gguf
from phaseprune.decoder.load import load_model, load_tokenizer, read_config
from phaseprune.decoder.source import find_source
from phaseprune.errors import UserError
from test_preflight import check, seen

#: Families whose activation llama.cpp reads from a table of half precision.
TOLERANCE = {
    "gemma2": 5e-3,
    "gemma3": 5e-3,
    "gpt2": 3e-3,
    "starcoder2": 3e-3,
    "falcon": 5e-3,
    "bloom": 3e-3,
}
LENGTHS = (5, 40, 120, 300)


def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 310, (n,), generator=generator).tolist() for n in LENGTHS]


@torch.no_grad()
def following(model, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token."""
    return model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every family and scaled variant: its file and the model that it was made of."""
    root = tmp_path_factory.mktemp("gguf")
    found = {}
    for number, name in enumerate([*families(), *scaled()]):
        model, family, keys, tensors = make(name)
        path = write_gguf(root / f"{number}.gguf", model, family, keys, tensors)
        found[name] = path, model, family
    return found


@pytest.fixture(scope="module")
def loaded(files):
    found = {}

    def load(name: str):
        if name not in found:
            found[name] = load_model(str(files[name][0]))
        return found[name]

    return load


@pytest.mark.slow
@pytest.mark.parametrize("name", [*families(), *scaled()])
def test_a_file_is_the_model_that_it_was_made_of(files, loaded, name):
    _, model, _ = files[name]
    for ids in prompts():
        theirs, ours = following(model, ids), following(loaded(name).model, ids)
        assert float((theirs - ours).abs().max()) < 1e-4, len(ids)


def llama_cpp_python() -> str:
    """A Python with llama.cpp's binding: LLAMA_CPP_PYTHON, or that of ``make llama-cpp``."""
    made = Path(__file__).parents[1] / ".venv-interop" / "bin" / "python"
    python = os.environ.get("LLAMA_CPP_PYTHON") or (str(made) if made.is_file() else sys.executable)
    imports = "import importlib.util as u; assert u.find_spec('xllamacpp')"
    if subprocess.run([python, "-c", imports], capture_output=True).returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("xllamacpp is not installed and CI must have it: make llama-cpp")
        pytest.skip("xllamacpp is not installed: make llama-cpp")
    return python


def ask_llama_cpp(asked: list[dict], folder: Path) -> list[dict]:
    """What llama.cpp says of each file (``interop/ask_llama_cpp.py``)."""
    python = llama_cpp_python()
    (folder / "asked.json").write_text(json.dumps(asked))
    script = Path(__file__).parent / "interop" / "ask_llama_cpp.py"
    done = subprocess.run(
        [python, str(script), str(folder / "asked.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("answers:")[1])


@pytest.fixture(scope="module")
def said(files, tmp_path_factory):
    """llama.cpp's log-probabilities of every file."""
    asked = [
        {"path": str(path), "context": CONTEXT, "prompts": prompts(), "texts": []}
        for path, _, _ in files.values()
    ]
    answers = ask_llama_cpp(asked, tmp_path_factory.mktemp("asked"))
    return dict(zip(files, answers, strict=True))


@pytest.mark.llama_cpp
@pytest.mark.parametrize("name", [*families(), *scaled()])
def test_llama_cpp_gives_the_same_log_probabilities(files, loaded, said, name):
    """Contexts of 300 tokens, where scaled families were trained on 128."""
    allowed = TOLERANCE.get(files[name][2], 1e-4)
    for ids, theirs in zip(prompts(), said[name]["next"], strict=True):
        if name == "longrope" and len(ids) <= 128:
            continue  # llama.cpp takes the long factors of all inputs of a long context
        ours = following(loaded(name).model, ids)[: len(theirs)]
        assert float((torch.tensor(theirs) - ours).abs().max()) < allowed, len(ids)


#: Kinds of byte-level tokenizers by how they split: with each, BOS where the file does not say.
KINDS = {
    "gpt-2": False,
    "smollm": False,
    "starcoder": False,
    "falcon": False,
    "bloom": False,
    "stablelm2": False,
    "qwen2": False,
    "llama-bpe": True,
    "gpt-4o": False,
    "tekken": True,
}
TEXTS = [
    "What is the colour of the sky?",
    " (grass) is green, and 12345 is not",
    "it's\n\nA.  B\tC",
    "Über 3½ Éclairs…",
    "ABCsky1 sky22",
    "",
]


def spoken(pre: str | None, **more) -> dict:
    """A tokenizer whose merges cross what only some kinds split."""
    found = byte_level(pre or "gpt-2")
    letters = {token: i for i, token in enumerate(found["tokens"])}
    for place, (one, other) in enumerate([("1", "2"), ("(", "g"), ("Ġ", "1"), ("3", "4")]):
        if one + other not in letters:
            found["tokens"][311 + place] = one + other
            found["merges"].insert(0, f"{one} {other}")
    found["bos_token_id"] = 300
    if pre is None:
        del found["pre"]
    return found | more


def write_small(path: Path, tokenizer: dict | None = None, **more) -> Path:
    """A llama of one block."""
    model, family, keys, tensors = make("llama")
    return write_gguf(
        path,
        model,
        family,
        keys | more.pop("keys", {}),
        tensors | more.pop("tensors", {}),
        tokenizer,
        **more,
    )


def tokenizer_of(path: Path):
    return load_tokenizer(find_source(str(path)))


@pytest.mark.slow
@pytest.mark.llama_cpp
def test_texts_become_llama_cpps_tokens(tmp_path):
    """With BOS and without, with a space before the text and without, however they are split."""
    tokenizers = {pre: spoken(pre) for pre in KINDS}
    tokenizers["told to"] = spoken("gpt-2", add_bos_token=True)
    tokenizers["told not to"] = spoken("llama-bpe", add_bos_token=False)
    tokenizers["spm"] = sentencepiece()
    tokenizers["spm, no BOS"] = sentencepiece() | {"add_bos_token": False}
    tokenizers["spm, no space"] = sentencepiece() | {"add_space_prefix": False}
    tokenizers["spm, ids left out"] = {
        key: value for key, value in sentencepiece().items() if not key.endswith("_token_id")
    }
    asked = []
    for number, tokenizer in enumerate(tokenizers.values()):
        path = write_small(tmp_path / f"{number}.gguf", tokenizer)
        asked.append({"path": str(path), "context": 64, "prompts": [], "texts": TEXTS})
    answers = ask_llama_cpp(asked, tmp_path)
    for name, one, answer in zip(tokenizers, asked, answers, strict=True):
        ours = [tokenizer_of(one["path"])(text)["input_ids"] for text in TEXTS]
        assert ours == answer["tokens"], name


@pytest.mark.parametrize("pre", KINDS)
def test_bos_is_put_where_the_file_does_not_say(tmp_path, pre):
    tokenizer = tokenizer_of(write_small(tmp_path / "m.gguf", spoken(pre)))
    ids = tokenizer("sky")["input_ids"]
    assert (ids[0] == 300) == KINDS[pre] == tokenizer.add_bos_token


@pytest.mark.slow
def test_whether_bos_is_put_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    for pre, more, told in (
        ("llama-bpe", {}, "texts begin with BOS, as llama.cpp does where the file is silent"),
        ("gpt-2", {}, "texts do not begin with BOS, as llama.cpp does where the file is silent"),
        ("gpt-2", {"add_bos_token": True}, "texts begin with BOS, as the file says"),
    ):
        path = write_small(tmp_path / "m.gguf", spoken(pre, **more))
        code, out, _ = check(monkeypatch, capsys, path)
        assert code == 0 and told in out and "✓ inputs: cut on the left to 512 tokens" in out


UNREAD = {
    "llama.residual_scale": {"residual_scale": 0.5},
    "llama.logit_scale": {"logit_scale": 0.25},
    "llama.attention.clamp_kqv": {"attention.clamp_kqv": 8.0},
    "llama.expert_count": {"expert_count": 4},
    "llama.attn_logit_softcapping": {"attn_logit_softcapping": 50.0},
    "llama.attention.sliding_window": {"attention.sliding_window": 16},
    "llama.attention.value_length": {"attention.value_length": 16},
    "llama.something.new": {"something.new": 1},
    "llama.rope.scaling.type": {"rope.scaling.type": "ntk", "rope.scaling.factor": 2.0},
    "llama.rope.scaling.yarn_log_multiplier": {"rope.scaling.yarn_log_multiplier": 0.1},
    "llama.rope.dimension_sections": {"rope.dimension_sections": [2, 2, 0, 0]},
    "general.type": {"general.type": "adapter"},
    "split.count": {"split.count": 3},
    "tokenizer.ggml.pre": {},
    "tokenizer.ggml.unheard_of": {},
}


@pytest.mark.parametrize("key", UNREAD)
def test_a_key_that_nothing_reads_is_refused_by_its_name(tmp_path, key):
    more = {"pre": "viking2", "unheard_of": 1}
    own = key.removeprefix("tokenizer.ggml.")
    tokenizer = byte_level() | ({own: more[own]} if own in more else {})
    path = write_small(tmp_path / "m.gguf", tokenizer, keys=UNREAD[key])
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        load_model(str(path))


def test_values_that_change_nothing_are_no_hindrance(tmp_path):
    nothing = {
        "attention.clamp_kqv": 0.0,
        "expert_count": 0,
        "attention.causal": True,
        "attention.key_length": 8,
        "attention.value_length": 8,
        "rope.scaling.type": "none",
        "rope.scaling.factor": 4.0,
        "logit_scale": 1.0,
        "rope.scaling.finetuned": True,
        "general.type": "model",
        "general.name": "anything",
        "tensor_data_layout": "Meta AI",
    }
    plain = read_config(find_source(str(write_small(tmp_path / "a.gguf"))))
    same = read_config(find_source(str(write_small(tmp_path / "b.gguf", keys=nothing))))
    plain, same = plain.to_dict(), same.to_dict()
    found, expected = (
        {key: value for key, value in one.items() if "name_or_path" not in key}
        for one in (same, plain)
    )
    assert found == expected


TENSORS = {
    "blk.1.attn_q.bias": np.ones(32),
    "blk.0.attn_q_norm.weight": np.ones(8),
    "token_embd_norm.weight": np.ones(32),
    "blk.2.ffn_gate_inp.weight": np.ones((4, 32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_becomes_no_weight_is_refused_by_its_name(tmp_path, name):
    path = write_small(tmp_path / "m.gguf", tensors={name: TENSORS[name]})
    with pytest.raises(UserError, match=f"the first {name}"):
        seen(path)
    with pytest.raises(UserError, match=f"the first {name}"):
        load_model(str(path))


@pytest.mark.slow
def test_a_tensor_that_is_read_in_another_shape_is_refused_by_its_name(tmp_path):
    """Newer converters keep the gate of shared experts as a matrix, which transformers misreads."""
    model, family, keys, _ = make("qwen2moe")
    gate = {"blk.0.ffn_gate_inp_shexp.weight": np.ones((1, 32))}
    path = write_gguf(tmp_path / "m.gguf", model, family, keys, gate)
    with pytest.raises(UserError, match=r"layers.0.mlp.shared_expert_gate.weight .*\[1, 1, 32\]"):
        load_model(str(path))


def test_scaling_that_there_is_no_place_for_is_refused(tmp_path):
    for family, tensors, keys, told in (
        ("gpt2", {}, {"rope.freq_base": 1e4}, "gpt2.rope.freq_base"),
        ("bloom", {"rope_freqs.weight": np.ones(4)}, {}, "rope_freqs.weight"),
        ("phi3", {}, {"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0}, "scaling.type"),
        ("phi3", {"rope_factors_long.weight": np.ones(4)}, {}, "has one alone"),
    ):
        model, architecture, own, _ = make(family)
        path = write_gguf(tmp_path / "m.gguf", model, architecture, own | keys, tensors)
        with pytest.raises(UserError, match=told):
            load_model(str(path))


def test_what_a_file_leaves_out_is_llama_cpps_default_and_not_a_checkpoints(tmp_path):
    model, family, keys, _ = make("gemma3")
    path = write_gguf(tmp_path / "m.gguf", model, family, keys, without=("rope.freq_base",))
    config = read_config(find_source(str(path)))
    assert config.rope_parameters["full_attention"]["rope_theta"] == 10000.0
    assert config.query_pre_attn_scalar == config.head_dim == 16


def test_the_largest_gemmas_scale_attention_by_the_width_a_head(tmp_path):
    """llama.cpp knows them by their number of blocks."""
    config, keys = families()["gemma2"]
    for blocks, scalar in ((46, 8), (5, 16)):
        config.num_hidden_layers = blocks
        config.layer_types = ["sliding_attention", "full_attention"] * (blocks // 2 + 1)
        config.layer_types = config.layer_types[:blocks]
        model = gguf_files.tiny_model(config)
        path = write_gguf(tmp_path / "m.gguf", model, "gemma2", keys)
        assert read_config(find_source(str(path))).query_pre_attn_scalar == scalar


def test_a_scaled_file_is_exported_with_its_scaling(files, loaded, tmp_path):
    from transformers import AutoModelForCausalLM

    from phaseprune.decoder.export import export

    for name in ("llama3", "yarn qwen2"):
        _, model, _ = files[name]
        made = export(loaded(name), [2], tmp_path / name)
        plain = AutoModelForCausalLM.from_pretrained(made.path).eval()
        model = copy.deepcopy(model)  # others compare with it
        del model.model.layers[2]
        for index, block in enumerate(model.model.layers):
            block.self_attn.layer_idx = index
        model.config.num_hidden_layers = 4
        ids = prompts()[-1]
        assert float((following(model, ids) - following(plain, ids)).abs().max()) < 1e-4


@pytest.mark.slow
def test_other_frequencies_than_the_files_are_noticed(files, monkeypatch):
    """Where transformers built other ones than it was told to, nothing is run."""
    from phaseprune.decoder import gguf_rope

    real = gguf_rope._rotation
    monkeypatch.setattr(
        gguf_rope,
        "_rotation",
        lambda *given, **more: gguf_rope.Rotation(real(*given, **more).frequencies * 1.01, 1.0),
    )
    with pytest.raises(UserError, match="other frequencies than llama.cpp"):
        load_model(str(files["linear llama"][0]))
