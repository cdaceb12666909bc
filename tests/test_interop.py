"""Exports as other programs read them: transformers 4.57 and llama.cpp, in their own environment.

``make interop`` makes the environment and runs these; ``make test`` leaves them out.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parents[1] / "benchmarks"), str(Path(__file__).parent / "interop")]

from old_models import FAMILIES, read  # noqa: E402

from conftest import need  # noqa: E402
from interop import (  # noqa: E402
    CONVERTER,
    PYTHON,
    Work,
    difference,
    in_interop,
    make,
    read_both,
    read_llama_cpp,
)

pytestmark = pytest.mark.interop
#: Sources that transformers 4.57 and 5 read otherwise: 5 takes the base of OLMo 3's sliding blocks
#: to be 500000 whatever the file says.
READ_OTHERWISE = {"olmo3-base"}
#: What llama.cpp computes otherwise, or refuses, of the source already: it has no sliding window of
#: the first four, nor of an EXAONE 4 that has not 64 blocks, whose every block it also turns; it
#: takes no longer prompt than the file of the next allows. OLMo 3 is as above.
OTHERWISE_IN_LLAMA_CPP = {
    "qwen2",
    "mistral",
    "starcoder2",
    "phi-longrope",
    "exaone4",
    "llama-dynamic",
    "olmo3-base",
}
#: Sources that llama.cpp knows by their number of blocks, so that no removal keeps what they are.
KNOWN_BY_COUNT = "exaone4-64"
#: What the kept blocks may have no more.
PERIODS = {"sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval"}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    need(PYTHON)
    made = make(tmp_path_factory.mktemp("interop"), list(FAMILIES))
    read_both(made)
    return made


@pytest.fixture(scope="module")
def in_llama_cpp(work) -> Work:
    need(CONVERTER / "convert_hf_to_gguf.py")
    read_llama_cpp(work)
    return work


@pytest.mark.parametrize("name", FAMILIES)
def test_an_export_gives_the_same_logits_in_both(work, name):
    for path in (work.source(name), work.export(name)):
        found, allowed = difference(work, "transformers 4.57", path)
        if name in READ_OTHERWISE:
            assert found > allowed  # else it is no longer a difference of transformers
        else:
            assert found <= allowed
    assert work.exact[name] <= 1e-4


def test_what_is_read_matters(work):
    """The same export without what older programs read is another model in 4.57."""
    broken = work.folder / "broken"
    for name, keys in (("llama3", ["rope_theta", "rope_scaling"]), ("gemma3", ["layer_types"])):
        folder = broken / name
        folder.mkdir(parents=True)
        for path in work.export(name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        stated = json.loads((folder / "config.json").read_text())
        kept = {key: value for key, value in stated.items() if key not in keys}
        (folder / "config.json").write_text(json.dumps(kept))
    in_interop("old_models.py", "read", *broken.iterdir(), "--out", broken / "four.npz")
    with np.load(broken / "four.npz") as found:
        for name in ("llama3", "gemma3"):
            right = work.said["transformers 4.57"][str(work.export(name))]
            assert np.abs(found[f"{broken / name}|logits"] - right).max() > 0.01


def test_the_tokenizers_are_the_sources(work):
    with np.load(work.folder / "four.npz") as four, np.load(work.folder / "five.npz") as five:
        for name in FAMILIES:
            for found in (four, five):
                ids = [found[f"{path}|tokens"] for path in (work.source(name), work.export(name))]
                assert np.array_equal(*ids) and len(ids[0]) > 5
            assert str(four[f"{work.export(name)}|class"]).endswith("TokenizerFast")


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_but_the_blocks_changes_in_the_files(work, name):
    source, export = work.source(name), work.export(name)
    for path in source.iterdir():
        if path.name not in ("config.json", "model.safetensors", "model.gguf"):
            assert (export / path.name).read_bytes() == path.read_bytes(), path.name
    before, after = (json.loads((one / "config.json").read_text()) for one in (source, export))
    changed = {key for key in before if before[key] != after.get(key)}
    assert (
        changed
        <= {
            "num_hidden_layers",
            "n_layer",
            "layer_types",
            "no_rope_layers",
            "max_window_layers",
            "first_k_dense_replace",
        }
        | PERIODS
    )
    stay = [key for key in before if key in after]
    assert list(after)[: len(stay)] == stay and {*before} - {*after} <= PERIODS
    assert {*after} - {*before} <= {"layer_types", "num_nextn_predict_layers"}


def save_new(folder: Path) -> list[Path]:
    """Models in the words of transformers 5 alone, and a GGUF file, exported."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        Gemma3TextConfig,
        GPTNeoXConfig,
        LlamaConfig,
        Phi3Config,
    )

    from conftest import ROPE, SIZES, make_tokenizer
    from phaseprune.decoder.export import export
    from phaseprune.decoder.load import load_model
    from test_export_formats import write_llama_gguf

    sizes = ROPE | {"num_hidden_layers": 6, "max_position_embeddings": 64}
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "rope_theta": 5e5,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    longrope = {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.2, 1.5, 2.0],
        "rope_theta": 1e4,
        "long_factor": [1.5, 2.0, 3.0, 4.0],
    }
    linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    local = {"rope_type": "default", "rope_theta": 1e4}
    configs = {
        "llama": LlamaConfig(**sizes, rope_parameters=llama3),
        "gemma3": Gemma3TextConfig(
            **sizes,
            head_dim=8,
            sliding_window=8,
            query_pre_attn_scalar=8,
            rope_parameters={"sliding_attention": local, "full_attention": linear},
        ),
        "neox": GPTNeoXConfig(
            **SIZES,
            intermediate_size=48,
            max_position_embeddings=64,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 2e4,
                "partial_rotary_factor": 0.5,
            },
        ),
        "phi3": Phi3Config(
            **sizes, rope_parameters=longrope, pad_token_id=0, original_max_position_embeddings=16
        ),
    }
    made = []
    for name, config in configs.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
        stated = json.loads((folder / name / "config.json").read_text())
        assert "rope_parameters" in stated and "rope_theta" not in stated
        export(load_model(str(folder / name)), [1], folder / f"{name}-out")
        made.append(folder / f"{name}-out")
    gguf = write_llama_gguf(folder / "tiny.gguf", "F16")
    export(load_model(str(gguf)), [1], folder / "gguf-out")
    return [*made, folder / "gguf-out"]


def test_new_files_are_written_for_older_programs_too(work, tmp_path):
    made = save_new(tmp_path)
    in_interop("old_models.py", "read", *made, "--out", tmp_path / "four.npz")
    read(made, tmp_path / "five.npz")
    with np.load(tmp_path / "four.npz") as four, np.load(tmp_path / "five.npz") as five:
        for folder in made:
            both = [found[f"{folder}|logits"] for found in (four, five)]
            assert np.abs(both[0] - both[1]).max() <= 1e-4, folder.name
        ids = [found[f"{made[-1]}|tokens"] for found in (four, five)]
        assert np.array_equal(*ids)


def test_llama_cpp_computes_the_same_or_was_said_not_to(in_llama_cpp):
    """Every export, with and without its pattern, that llama.cpp can read the source of at all."""
    work, tried = in_llama_cpp, []
    for name in work.removed:
        source = difference(work, "llama.cpp", work.source(name))
        found = difference(work, "llama.cpp", work.export(name))
        if isinstance(source, str) or source[0] > source[1]:
            assert name.partition("+")[0] in OTHERWISE_IN_LLAMA_CPP, (name, source)
            continue
        assert not isinstance(found, str), (name, found)
        if name in work.warned:
            assert "+period" not in name or name.startswith(KNOWN_BY_COUNT)
        else:
            assert found[0] <= found[1], (name, found)
            tried.append(name)
    assert len(tried) >= 20
    warned = [name for name in work.warned if name not in OTHERWISE_IN_LLAMA_CPP]
    apart = [difference(work, "llama.cpp", work.export(name)) for name in warned]
    assert {"gemma2", "gemma3", "smollm3", "cohere2", "gpt-oss", KNOWN_BY_COUNT} <= set(warned)
    assert all(found > allowed for found, allowed in apart), (warned, apart)
